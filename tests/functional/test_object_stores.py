# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""SL-CAI with inputs and outputs in a real S3 server (moto's) over a socket, and in an emulator of Google's store."""

import gzip
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.standin import standin
from benchmarks.workload import prompt_text
from nemo_aligner_cai import cli, packaged_files
from nemo_aligner_cai.commands.generate import rl_cai, sl_cai
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import object_stores, write_jsonl
from nemo_aligner_cai.training.launch.jobs import free_port

fs = pytest.importorskip("pyarrow.fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def store() -> Generator[str]:
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(store: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """A client of the server, independent of the code under test."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": store,
    }.items():
        monkeypatch.setenv(name, value)
    client = fs.S3FileSystem(
        endpoint_override=store.removeprefix("http://"), scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    client.create_dir("cai")
    return client


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Prompts, compressed, and a folder with helpfulness data."""
    prompts, helpful = folder / "prompts.jsonl.gz", folder / "helpful" / "train.jsonl"
    write_jsonl(prompts, ({"prompt": prompt_text(number)} for number in range(30)))
    turns = [{"role": "user", "content": "How far?"}, {"role": "assistant", "content": "Far."}]
    write_jsonl(helpful, [{"messages": turns}])
    return prompts, helpful


def generate(url: str, prompts: str, helpful: str, out: str, *more: str) -> int:
    flags = ["--model-url", url, "--model", "standin", "--greedy", "False"]
    files = ["--red-teaming-prompts-dataset-path", prompts, "--helpfulness-dataset-path", helpful]
    return sl_cai.main([*flags, *files, "--output-filepath", out, *more])


def put(s3: object, file: Path, path: str) -> None:
    with s3.open_output_stream(path, compression=None) as stream:  # type: ignore[attr-defined]
        stream.write(file.read_bytes())


def objects_of(s3: object, prefix: str) -> dict[str, bytes]:
    found = s3.get_file_info(fs.FileSelector(prefix, recursive=True, allow_not_found=True))  # type: ignore[attr-defined]
    files = [info.path for info in found if info.type == fs.FileType.File]
    return {
        path.removeprefix(f"{prefix}/"): s3.open_input_stream(path, compression=None).read()  # type: ignore[attr-defined]
        for path in files
    }


def test_inputs_and_outputs_in_s3_are_the_bytes_of_local_ones(s3: object, tmp_path: Path) -> None:
    prompts, helpful = write_inputs(tmp_path)
    put(s3, prompts, "cai/in/prompts.jsonl.gz")
    put(s3, helpful, "cai/in/helpful/train.jsonl")
    with standin("--time-scale", "0") as server:
        local, remote = tmp_path / "local", tmp_path / "remote"
        assert generate(server.url, str(prompts), str(helpful.parent), str(local / "sft.jsonl")) == 0
        sources = "s3://cai/in/prompts.jsonl.gz", "s3://cai/in/helpful"
        assert generate(server.url, *sources, str(remote / "sft.jsonl"), "--upload", "s3://cai/out") == 0
        # Nothing is asked again, and the copies are taken again.
        assert generate(server.url, *sources, str(remote / "sft.jsonl"), "--upload", "s3://cai/out", "--resume") == 0
        assert server.stats()["requests"] == 2 * 3 * 30
    uploaded = objects_of(s3, "cai/out")
    expected = {
        str(file.relative_to(local)): file.read_bytes()
        for file in local.rglob("*")
        if file.is_file() and "journal" not in file.name
    }
    assert sorted(uploaded) == sorted(expected) and len(uploaded) > 5
    differing = [name for name in expected if uploaded[name] != expected[name]]
    assert {Path(name).name for name in differing} <= {"cai_manifest.json", "sft.summary.jsonl"}, (
        "they name the inputs"
    )
    copy = remote / "cai_inputs" / "cai" / "in" / "prompts.jsonl.gz"
    assert gzip.decompress(copy.read_bytes()) == gzip.decompress(prompts.read_bytes())


def test_preferences_are_uploaded_and_a_shard_has_nothing_to_upload(s3: object, tmp_path: Path) -> None:
    prompts, _ = write_inputs(tmp_path)
    put(s3, prompts, "cai/in/prompts.jsonl.gz")
    out = tmp_path / "rl"
    with standin("--time-scale", "0") as server:
        servers = [
            "--model-url",
            server.url,
            "--model",
            "standin",
            "--judge-url",
            server.url,
            "--judge-model",
            "standin",
        ]
        judge = ["--judge", "multiple-choice", "--num-responses", "2", "--max-dropped", "1"]
        files = ["--red-teaming-file-path", "s3://cai/in/prompts.jsonl.gz", "--output-dir", str(out)]
        words = [*servers, *judge, *files, "--upload", "s3://cai/rl"]
        assert rl_cai.main([*words, "--shard", "0/1"]) == 0
        assert objects_of(s3, "cai/rl") == {}
        assert rl_cai.main([*words, "--resume"]) == 0
    uploaded = objects_of(s3, "cai/rl")
    assert "cai_comparisons.jsonl" in uploaded and any("manifest" in name for name in uploaded)
    assert all(content == (out / name).read_bytes() for name, content in uploaded.items())


def test_tasks_that_share_a_folder_copy_an_object_once_and_again_only_if_it_changed(
    s3: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    def copy(source: object, target: object, length: int) -> None:
        copied.append(target.name)  # type: ignore[attr-defined]
        original(source, target, length)

    original = shutil.copyfileobj
    monkeypatch.setattr(object_stores.shutil, "copyfileobj", copy)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        put(s3, tmp_path / name, f"cai/tasks/{name}")

    def tasks() -> dict[str, str]:
        with ThreadPoolExecutor(8) as pool:
            folders = {*pool.map(lambda _: object_stores.download("s3://cai/tasks", tmp_path / "in"), range(8))}
        assert folders == {tmp_path / "in" / "cai" / "tasks"}
        return {path.name: path.read_text() for path in folders.pop().iterdir()}

    assert tasks() == {"a": "a", "b": "b"} and len(copied) == 2
    (tmp_path / "a").write_text("changed")
    put(s3, tmp_path / "a", "cai/tasks/a")
    s3.delete_file("cai/tasks/b")  # type: ignore[attr-defined]
    assert tasks() == {"a": "changed"} and len(copied) == 3


def test_a_run_copies_its_data_in_its_first_step(
    s3: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, _ = write_inputs(tmp_path)
    put(s3, prompts, "cai/in/prompts.jsonl.gz")
    for name, source in (("local", prompts), ("remote", "s3://cai/in/prompts.jsonl.gz")):
        words = [str(packaged_files.QUICKSTART), "data.max_prompt_tokens=128", f"data.red_team={source}"]
        assert cli.main(["run", *words, "--output", str(tmp_path / name), "--step", "1_data"]) == 0
    for file in ("sl_prompts.jsonl", "rl_prompts.jsonl"):
        local, remote = (tmp_path / name / "1_data" / file for name in ("local", "remote"))
        assert local.read_bytes() == remote.read_bytes() != b""
    capsys.readouterr()
    assert cli.main(["run", str(packaged_files.QUICKSTART), "--output", "s3://cai/run"]) == 2
    said = capsys.readouterr().err
    assert "s3:/" in said and len(said.strip().splitlines()) == 1


def test_google_cloud_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="pip install gcp-storage-emulator")
    port = free_port()
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", f"http://127.0.0.1:{port}")
    with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="cai"):
        prompts, helpful = write_inputs(tmp_path)
        object_stores.upload([prompts, helpful], base=tmp_path, url="gs://cai/in")
        sources = "gs://cai/in/prompts.jsonl.gz", "gs://cai/in/helpful"
        with standin("--time-scale", "0") as model:
            local, remote = tmp_path / "local", tmp_path / "remote"
            assert generate(model.url, str(prompts), str(helpful.parent), str(local / "sft.jsonl")) == 0
            assert generate(model.url, *sources, str(remote / "sft.jsonl"), "--upload", "gs://cai/out") == 0
        copy = object_stores.download("gs://cai/out", tmp_path / "copy")
        assert (copy / "sft.jsonl").read_bytes() == (local / "sft.jsonl").read_bytes()
        with pytest.raises(UsageError, match="no such object"):
            object_stores.download("gs://cai/nothing", tmp_path / "copy")


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--red-teaming-prompts-dataset-path", "s3://cai/nothing.jsonl", "s3://cai/nothing.jsonl"),
        ("--red-teaming-prompts-dataset-path", "s3:///nothing.jsonl", "no bucket"),
        ("--red-teaming-prompts-dataset-path", "s3://key:secret@cai/in", "AWS_ACCESS_KEY_ID"),
        ("--output-filepath", "s3://cai/out.jsonl", "--upload s3://cai/out.jsonl"),
        ("--journal-from", "s3://cai/journals", "--journal-from"),
        ("--upload", "s3://other-bucket/out", "other-bucket"),
        ("--upload", "/somewhere", "s3://"),
    ],
)
def test_what_cannot_be_used_is_named_before_any_call(
    s3: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, named: str
) -> None:
    prompts, helpful = write_inputs(tmp_path)
    out = tmp_path / "out" / "sft.jsonl"
    assert generate("http://127.0.0.1:9", str(prompts), str(helpful.parent), str(out), flag, value) == 2
    said = capsys.readouterr().err
    assert named in said and len(said.strip().splitlines()) == 1 and "secret" not in said
    assert not out.parent.exists()
