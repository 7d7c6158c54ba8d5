# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Journals, manifests and what is left behind: nothing paid for is lost, and nothing of an older run is trained on."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli, packaged_files
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import sha256_file
from nemo_aligner_cai.stages.manifest import Manifest
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.rl_run import judge, policy, red_team_flags, run
from tests.unit.sl_run import run as run_sl
from tests.unit.test_judge_accuracy import comparison

OLD_SPLITS = ("--splits", "{'train': 0.5, 'validation': 0.5}")
NEW_SPLITS = ("--splits", "{'train': 0.9, 'test': 0.1}")


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return red_team_flags(tmp_path)


def reply(prompt: Any, rng: random.Random | None) -> str:
    return f"about {len(str(prompt))} {rng.random() if rng else 0}"


def training_files(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if path.name.endswith("with_chat_prompt.jsonl")}


def test_a9_files_of_other_splits_and_formats_are_removed_and_named(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server, *OLD_SPLITS, "--formats", "dpo") == 0
        stale = training_files(out) | {path.name for path in out.glob("*.dpo.jsonl")}
        for path in out.glob("*_validation_*"):
            Path(f"{path}.idx.npy").touch()
        changed = out / "cai_rlaif_validation_prompts_with_chat_prompt.jsonl"
        changed.write_text("changed by hand")
        mine = out / "notes_validation_with_chat_prompt.jsonl"
        mine.write_text("mine")
        capsys.readouterr()
        assert run(flags, server, judge_server, *NEW_SPLITS, "--resume") == 0
    own = {f"cai_rlaif_{s}_{k}_with_chat_prompt.jsonl" for s in ("train", "test") for k in ("prompts", "comparisons")}
    assert training_files(out) == own | {mine.name, changed.name}, "what is not the run's own stays"
    assert not list(out.glob("*.dpo.jsonl"))
    assert [path.name for path in out.glob("*.idx.npy")] == [f"{changed.name}.idx.npy"]
    shown = capsys.readouterr().out
    removed = stale - own - {changed.name}
    assert len(removed) == 3
    for name in removed:
        assert f"removed: {out / name}" in shown
    assert f"kept: {changed}" in shown


def test_a9_files_are_found_where_their_folder_is_now(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            assert run([*flags, "--output-dir", "out"], server, judge_server, "--formats", "dpo") == 0
        shutil.move(tmp_path / "out", tmp_path / "moved")
        assert list((tmp_path / "moved").glob("*.dpo.jsonl"))
        assert run([*flags, "--output-dir", str(tmp_path / "moved")], server, judge_server, "--resume") == 0
    assert not list((tmp_path / "moved").glob("*.dpo.jsonl"))


def test_a9_a_run_that_ended_while_it_wrote_is_cleaned_up_after(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        with monkeypatch.context() as patch:
            patch.setattr(Manifest, "write", killed)
            assert run(flags, server, judge_server, *OLD_SPLITS) == 130
        assert list((tmp_path / "out").glob("*_validation_*"))
        assert run(flags, server, judge_server, *NEW_SPLITS, "--resume") == 0
    assert not list((tmp_path / "out").glob("*_validation_*"))


def test_a9_nothing_outside_the_runs_folders_is_removed_whatever_a_manifest_says(
    flags: list[str], tmp_path: Path
) -> None:
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_text("precious")
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
        (out / "link").symlink_to(victim)
        manifest = json.loads((out / "cai_manifest.json").read_text())
        for path in (victim, out / "link", out / ".." / "victim"):
            manifest["outputs"][str(path)] = sha256_file(victim)
        (out / "cai_manifest.json").write_text(json.dumps(manifest))
        assert run(flags, server, judge_server, "--overwrite") == 0
    assert victim.exists()


def test_a9_sl_cai_without_the_length_filter_leaves_none_of_its_files(inputs: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "removed_long_dialogs"
    with FakeNemo(reply, ending="</s>") as server:
        filtered = ["--max-seq-length", "2000", "--tokenizer-model", str(packaged_files.TOKENIZER)]
        assert run_sl(inputs, *filtered, port=server.port) == 0
        assert len(list(folder.iterdir())) == 2
        assert run_sl(inputs, "--resume", port=server.port) == 0
    assert not list(folder.iterdir())


def test_a13_the_manifest_has_the_hash_of_what_was_read(inputs: dict[str, str], tmp_path: Path) -> None:
    source = Path(inputs["--red-teaming-prompts-dataset-path"])
    before = sha256_file(source)

    def replaces(prompt: Any, rng: random.Random | None) -> str:
        (tmp_path / "next").write_text(json.dumps({"prompt": "another"}) + "\n")
        os.replace(tmp_path / "next", source)
        return reply(prompt, rng)

    with FakeNemo(replaces, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
    manifest = json.loads((tmp_path / "out" / "cai_output" / "sl.jsonl" / "cai_manifest.json").read_text())
    assert manifest["inputs"][str(source)] == before != sha256_file(source)


def test_b4_two_outputs_in_one_folder_have_a_journal_each(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
        first = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
        second = inputs | {"--output-filepath": str(tmp_path / "out" / "second.jsonl")}
        assert run_sl(second, port=server.port) == 0
        assert run_sl(second, "--overwrite", port=server.port) == 0
        assert {path: path.read_bytes() for path in first} == first
        done = len(server.bodies)
        assert run_sl(inputs, "--resume", port=server.port) == 0
        assert len(server.bodies) == done


def test_b4_two_prefixes_in_one_folder_have_a_journal_each(flags: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        for prefix in ("cai_rlaif", "other", ""):
            assert run(flags, server, judge_server, "--output-filename-prefix", prefix) == 0
        before = {path: path.read_bytes() for path in out.iterdir() if not path.name.startswith("other")}
        assert run(flags, server, judge_server, "--output-filename-prefix", "other", "--overwrite") == 0
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(out.glob("*.journal.jsonl"))) == 3


def test_b4_resume_is_offered_first(inputs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
        capsys.readouterr()
        assert run_sl(inputs, port=server.port) == 2
    said = capsys.readouterr().err
    assert said.index("--resume") < said.index("--overwrite")
    assert "another name" not in said


def test_b4_a_journal_at_the_place_of_earlier_versions_is_resumed_and_kept(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "cai_output"
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
        whole = Path(inputs["--output-filepath"]).read_bytes()
        for path in (folder / "sl.jsonl").iterdir():
            shutil.move(path, folder)
        (folder / "sl.jsonl").rmdir()
        paid = (folder / "cai_revisions.journal.jsonl").read_bytes()
        done = len(server.bodies)
        assert run_sl(inputs, "--resume", port=server.port) == 0
        assert len(server.bodies) == done
        assert Path(inputs["--output-filepath"]).read_bytes() == whole
        assert run_sl(inputs, "--overwrite", port=server.port) == 0
    assert (folder / "cai_revisions.journal.jsonl").read_bytes() == paid


def test_b4_what_is_not_a_journal_is_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match="not a journal"):
        Journal.open(path, overwrite=True)
    assert path.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize("lost", ["journal", "folder", "content"])
def test_b5_finished_rows_are_not_replaced_where_their_journal_is_gone(
    inputs: dict[str, str], tmp_path: Path, lost: str
) -> None:
    out = Path(inputs["--output-filepath"])
    journal = out.parent / "cai_output" / "sl.jsonl" / "cai_revisions.journal.jsonl"
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
        finished, done = out.read_bytes(), len(server.bodies)
        if lost == "journal":
            journal.unlink()
        elif lost == "content":
            journal.write_bytes(b"")
        else:
            shutil.rmtree(out.parent / "cai_output")
        assert run_sl(inputs, "--resume", port=server.port) == 2
        assert out.read_bytes() == finished and len(server.bodies) == done
        assert run_sl(inputs, "--overwrite", port=server.port) == 0


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_b5_a_journal_that_is_gone_is_noticed_at_the_next_sync(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "out"
    journal = Journal.open(folder / "j")
    if how == "removed":
        shutil.rmtree(folder)
    elif how == "moved":
        folder.rename(tmp_path / "elsewhere")
    else:
        (folder / "j").rename(folder / "k")
        (folder / "j").touch()
    journal._synced_at = float("-inf")
    with pytest.raises(CaiError, match="during the run"):
        journal._write(b"{}\n")


def test_b5_a_run_whose_folder_is_removed_ends_before_its_calls_are_all_made(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_aligner_cai.engine.journal._FSYNC_SECONDS", 0.0)
    calls = 0

    def removes(prompt: Any, rng: random.Random | None) -> str:
        nonlocal calls
        calls += 1
        if calls == 5:
            shutil.rmtree(tmp_path / "out")
        return reply(prompt, rng)

    with FakeNemo(removes, ending="</s>") as server:
        assert run_sl(inputs, "--batch_size", "1", port=server.port) == 1
    assert calls < 25, "of 30"


def tree(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flag", ["--overwrite", "--resume", "--dry-run"])
def test_b2_a_dry_run_writes_nothing(
    flags: list[str], inputs: dict[str, str], tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(comparison(number)) + "\n" for number in range(3)))
    for name in ("figures.json", "judge_accuracy.jsonl"):
        (tmp_path / name).write_text("paid for")
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        assert run(flags, server, judge_server) == 0
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
    before = tree(tmp_path)
    sl_cai = [part for pair in inputs.items() for part in pair]
    judging = ["judge-accuracy", "items.jsonl", "--json", "figures.json"]
    for command in (["data", "rl-cai", *flags], ["data", "sl-cai", *sl_cai], judging):
        assert cli.main([*command, "--dry-run", flag]) == 0
    assert tree(tmp_path) == before


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "a/b"])
def test_b2_and_c5_a_prefix_leads_nowhere(flags: list[str], tmp_path: Path, prefix: str) -> None:
    before = tree(tmp_path)
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        for more in (["--dry-run", "--overwrite"], ["--overwrite"]):
            assert run(flags, server, judge_server, "--output-filename-prefix", prefix, *more) == 2
        assert server.bodies == []
    assert cli.main(["data", "anthropic-hh", "--output-dir", str(tmp_path), "--output-file-name-prefix", prefix]) == 2
    assert tree(tmp_path) == before


@pytest.mark.parametrize("what", ["seed", "negative seed", "prompts", "output", "long output"])
def test_b8_what_cannot_be_recorded_is_refused_before_any_call(
    inputs: dict[str, str], tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more: list[str] = []
    if "seed" in what:
        more = ["--seed", str(10**26 if what == "seed" else -1)]
    elif what == "prompts":
        name = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff.jsonl")
        shutil.copy(inputs["--red-teaming-prompts-dataset-path"], name)
        inputs = inputs | {"--red-teaming-prompts-dataset-path": name}
    else:
        name = os.fsdecode(b"\xff.jsonl") if what == "output" else "x" * 250 + ".jsonl"
        inputs = inputs | {"--output-filepath": str(tmp_path / "out" / name)}
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, *more, port=server.port) == 2
        assert server.bodies == []
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a9_a_split_that_new_human_preferences_lack_is_removed(tmp_path: Path) -> None:
    source, out = tmp_path / "hub", tmp_path / "out"
    (source / "helpful-base").mkdir(parents=True)
    pair = {end: f"\n\nHuman: Q\n\nAssistant: {end}" for end in ("chosen", "rejected")}
    for split in ("train", "test"):
        (source / "helpful-base" / f"{split}.jsonl").write_text(json.dumps(pair) + "\n")
    command = ["data", "anthropic-hh", "--output-dir", str(out), "--dataset-dir-name", "helpful-base"]
    assert cli.main([*command, "--input", str(source)]) == 0
    assert len(training_files(out)) == 4
    alone = str(source / "helpful-base" / "train.jsonl")
    assert cli.main([*command, "--input", alone, "--overwrite"]) == 0
    assert training_files(out) == {f"train_{kind}_with_chat_prompt.jsonl" for kind in ("prompts", "comparisons")}


def test_a13_the_tokenizer_is_among_the_inputs(inputs: dict[str, str], tmp_path: Path) -> None:
    filtered = ["--max-seq-length", "2000", "--tokenizer-model", str(packaged_files.TOKENIZER)]
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, *filtered, port=server.port) == 0
    manifest = json.loads((tmp_path / "out" / "cai_output" / "sl.jsonl" / "cai_manifest.json").read_text())
    assert manifest["inputs"][str(packaged_files.TOKENIZER)] == sha256_file(packaged_files.TOKENIZER)
