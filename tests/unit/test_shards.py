# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Shards and their merge: the bytes of one run, no call twice, and a clear word for each call that is missing."""

import argparse
import asyncio
import logging
import os
import random
import shlex
import shutil
import socket
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli, extras
from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.commands.generate import ray_shards
from nemo_aligner_cai.engine.journal import Journal, JournalInUse
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.engine.shards import CallsMissing, Shard, find_journals, shard_count
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import CallFailed, Completion, Request, Sampling, ScriptedClient
from nemo_aligner_cai.stages import PromptSource, RunSettings, SftFiles, SlCaiConfig, SlOutputs, run_sl_cai
from tests.unit import rl_run, sl_run
from tests.unit.fake_servers import FakeNemo, FakeOpenAI

SHARDS = "cai_output/sl.jsonl/cai_revisions.shards"


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file of a run but those that hold times; the run's own folder, which some of them name, is cut out."""
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(os.fsencode(folder), b"")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "journal" not in path.name and "manifest" not in path.name
    }


class SlRun:
    """Runs of the SL-CAI command in a folder of their own, against a server on a real socket."""

    def __init__(self, inputs: dict[str, str], folder: Path, *flags: str) -> None:
        self.folder = folder / "out"
        self._inputs = inputs | {"--output-filepath": str(self.folder / "sl.jsonl")}
        self._flags = flags
        self.shards = self.folder / SHARDS

    def __call__(self, *more: str) -> int:
        return sl_run.run(self._inputs, *self._flags, *more)


def to_openai(server: FakeOpenAI) -> list[str]:
    return ["--model-url", f"http://127.0.0.1:{server.port}/v1", "--model", "m", "--greedy", "False", "--top_k", "0"]


def contents(server: FakeNemo | FakeOpenAI) -> list[str]:
    return sorted(repr(sorted(body.items())) for body in server.bodies)


@pytest.fixture
def whole(inputs: dict[str, str], tmp_path: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a run without shards, and what it asked."""
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path / "whole", *to_openai(server))
        assert run() == 0
        return outputs(run.folder), contents(server)


def reply(body: dict[str, Any]) -> str:
    return f"reply to {len(body['messages'])} messages, seed {body['seed']}"


@pytest.mark.parametrize("count", [1, 3, 16])
def test_shards_and_their_merge_ask_and_write_what_one_run_does(
    inputs: dict[str, str], tmp_path: Path, whole: tuple[dict[str, bytes], list[str]], count: int
) -> None:
    files, asked = whole
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path / "shards", *to_openai(server))
        for shard in range(count):
            assert run("--shard", f"{shard}/{count}") == 0
        assert outputs(run.folder) == {}, "a shard writes its journal alone"
        assert contents(server) == asked, "each call once, in whatever shard"
        server.close()
        assert run("--no-calls", "--journal-from", str(run.shards)) == 0
    assert outputs(run.folder) == files
    assert len(list(run.shards.iterdir())) == count


def test_another_cut_finishes_the_work_and_repeats_nothing(
    inputs: dict[str, str], tmp_path: Path, whole: tuple[dict[str, bytes], list[str]]
) -> None:
    files, asked = whole
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path / "shards", *to_openai(server))
        for shard in (0, 3, 5):
            assert run("--shard", f"{shard}/7") == 0
        for shard in range(2):
            assert run("--shard", f"{shard}/2", "--journal-from", str(run.shards / "*-of-7.*")) == 0
        assert contents(server) == asked
        assert run("--no-calls", "--journal-from", str(run.shards)) == 0
    assert outputs(run.folder) == files


def test_batches_of_nemos_server_are_those_of_one_run(inputs: dict[str, str], tmp_path: Path) -> None:
    sampled = ("--batch_size", "1", "--greedy", "False", "--top_k", "0")
    seen = []
    for name, shards in (("whole", 0), ("shards", 2)):
        with FakeNemo(lambda prompt, rng: f"drawn {rng.randrange(10**6) if rng else 0}", ending="</s>") as server:
            run = SlRun(inputs, tmp_path / name, *sampled, "--port", str(server.port))
            for shard in range(shards):
                assert run("--shard", f"{shard}/{shards}") == 0
            assert run(*["--no-calls", "--journal-from", str(run.shards)] * bool(shards)) == 0
            seen.append((outputs(run.folder), contents(server)))
    assert seen[0] == seen[1]


def test_preferences_are_merged_too(tmp_path: Path) -> None:
    seen = []
    for name, shards in (("whole", 0), ("shards", 3)):
        folder = tmp_path / name
        folder.mkdir()
        flags = [*rl_run.red_team_flags(folder), "--batch-size", "2", "--judge-model", "j"]
        with FakeNemo(rl_run.policy) as server, FakeOpenAI(rl_run.judge) as judge:
            for shard in range(shards):
                assert rl_run.run(flags, server, judge, "--shard", f"{shard}/{shards}") == 0
            merge = ["--no-calls", "--journal-from", str(folder / "out" / "cai_comparisons.shards")]
            assert rl_run.run(flags, server, judge, *merge * bool(shards)) == 0
            asked = sorted(repr(body) for body in rl_run.questions_to(judge) if "thought" in repr(body))
            seen.append((outputs(folder / "out"), contents(server), asked))
    assert seen[0] == seen[1]


def test_missing_calls_are_listed_with_commands_that_make_them(
    inputs: dict[str, str],
    tmp_path: Path,
    whole: tuple[dict[str, bytes], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, asked = whole
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path / "shards", *to_openai(server))
        assert run("--shard", "1/4") == run("--shard", "3/4") == 0
        capsys.readouterr()
        assert run("--no-cal", "--journal-from", str(run.shards)) == 1
        assert outputs(run.folder) == {}, "nothing is written"
        listed = [line.split(": ", 2) for line in capsys.readouterr().err.splitlines() if line.startswith("  shard ")]
        assert [name.strip() for name, _, _ in listed] == ["shard 0/4", "shard 2/4"]
        assert [figures for _, figures, _ in listed] == ["3 prompts, at least 3 calls", "2 prompts, at least 2 calls"]
        for _, _, command in listed:
            assert cli.main(shlex.split(command)[1:]) == 0
        assert run("--no-calls", "--journal-from", str(run.shards)) == 0
        assert contents(server) == asked
    assert outputs(run.folder) == files


def test_a_merge_with_a_server_makes_the_missing_calls_itself(
    inputs: dict[str, str], tmp_path: Path, whole: tuple[dict[str, bytes], list[str]]
) -> None:
    files, asked = whole
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path / "shards", *to_openai(server))
        assert run("--shard", "1/4") == 0
        assert run("--journal-from", str(run.shards)) == 0
        assert outputs(run.folder) == files
        # Its own journal has the rest, and both together are a whole again.
        assert run("--no-calls", "--overwrite", "--journal-from", str(run.shards)) == 0
        assert run("--resume", "--journal-from", str(run.shards)) == 0
        assert contents(server) == asked
    assert outputs(run.folder) == files


def test_a_torn_line_costs_its_own_journal_one_call(
    inputs: dict[str, str], tmp_path: Path, whole: tuple[dict[str, bytes], list[str]]
) -> None:
    files, asked = whole
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path / "shards", *to_openai(server))
        for shard in range(3):
            assert run("--shard", f"{shard}/3") == 0
        torn = run.shards / "0-of-3.journal.jsonl"
        torn.write_bytes(torn.read_bytes()[:-9])
        assert run("--no-calls", "--journal-from", str(run.shards)) == 1
        assert run("--shard", "0/3", "--resume", "--journal-from", str(run.shards)) == 0
        assert len(contents(server)) == len(asked) + 1
        assert run("--no-calls", "--journal-from", str(run.shards)) == 0
    assert outputs(run.folder) == files


def test_a_prompt_that_a_server_refused_is_dropped_by_the_merge_as_by_one_run(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    def refuses(body: dict[str, Any]) -> int | None:
        return 400 if "Ding 4" in body["messages"][-1]["content"] else None

    seen = []
    with FakeOpenAI(reply) as server:
        server.fault_of = refuses
        for name, shards in (("whole", 0), ("shards", 2)):
            run = SlRun(inputs, tmp_path / name, *to_openai(server), "--max-dropped", "0.3")
            for shard in range(shards):
                assert run("--shard", f"{shard}/{shards}") == 0
            assert run(*["--no-calls", "--journal-from", str(run.shards)] * bool(shards)) == 0
            seen.append(outputs(run.folder))
    assert seen[0] == seen[1]
    assert b"400" in seen[0]["cai_output/sl.jsonl/cai_revisions.left_out.jsonl"]


def test_a_shard_with_too_many_faults_fails_and_its_calls_are_kept(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeOpenAI(reply) as server:
        server.fault_of = lambda body: 400 if "Ding 4" in body["messages"][-1]["content"] else None
        run = SlRun(inputs, tmp_path, *to_openai(server))
        assert run("--shard", "0/2") == 1
        assert run("--shard", "1/2") == 0
        server.fault_of = lambda body: None
        before = len(server.bodies)
        assert run("--shard", "0/2", "--resume") == 0
        assert len(server.bodies) == before + 3


def test_a_shard_without_prompts_ends_well(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeOpenAI(reply) as server:
        assert SlRun(inputs, tmp_path, *to_openai(server))("--shard", "98/99") == 0
        assert server.bodies == []


def test_journals_of_different_models_are_not_merged(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path, *to_openai(server))
        for shard, fingerprint in enumerate(("sha256:aaaa", "sha256:bbbb")):
            server.model = {"id": "m", "fingerprint": fingerprint}
            assert run("--shard", f"{shard}/2") == 0
        # Each journal names its model, also where another one that is read does.
        assert run("--shard", "0/3", "--journal-from", str(run.shards / "1-of-2.journal.jsonl")) == 0
        assert "bbbb" in (run.shards / "0-of-3.journal.jsonl").read_text()
        capsys.readouterr()
        assert run("--no-calls", "--journal-from", str(run.shards)) == 2
    said = capsys.readouterr().err
    assert "aaaa" in said and "bbbb" in said and "0-of-2" in said and "0-of-3" in said


def test_a_merge_needs_neither_key_nor_server(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path, *to_openai(server), "--api-key-env", "A_KEY")
        monkeypatch.setenv("A_KEY", "secret")
        assert run("--shard", "0/1") == 0
    monkeypatch.delenv("A_KEY")
    assert run("--resume") == 2
    assert run("--no-calls", "--journal-from", str(run.shards / "0-of-1.journal.jsonl")) == 0


def test_the_plan_counts_a_shard_and_all_journals(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(*more: str) -> list[str]:
        capsys.readouterr()
        assert run("--plan", *more) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("all")).split()

    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path, *to_openai(server))
        assert planned("--shard", "0/4") == ["all", "9", "0"]
        assert run("--shard", "0/4") == 0
        assert planned("--shard", "0/4") == ["all", "0", "9"]
        assert planned("--journal-from", str(run.shards)) == ["all", "21", "9"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--shard", "4/4"], "4/4"),
        (["--shard", "4/0"], "4/0"),
        (["--shard", "four"], "four"),
        (["--shard", "0/2", "--no-calls"], "--no-calls"),
        (["--journal-from", "absent"], "absent"),
        (["--journal-from", "."], "--journal-from"),
        (["--journal-from", "*.absent"], "*.absent"),
        (["--no-calls", "--dry-run"], "--no-calls"),
        (["--shards", "4"], "--shards"),
        (["--ray", "auto"], "--shards"),
        (["--ray", "auto", "--shards", "4", "--shard", "0/4"], "--shard"),
        (["--ray", "auto", "--shards", "0"], "--shards"),
    ],
)
def test_wrong_flags_are_one_error_before_any_request(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    with FakeOpenAI(reply) as server:
        assert SlRun(inputs, tmp_path, *to_openai(server))(*flags) == 2
        assert server.bodies == []
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cai: ")]
    assert len(said) == 1 and named in said[0]


def test_without_ray_the_extra_is_named(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    assert SlRun(inputs, tmp_path)("--ray", "auto", "--shards", "2") == 2
    assert "[ray]" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1", "no.such.host.invalid:6379"])
def test_a_cluster_that_cannot_be_reached_is_one_error(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    run = SlRun(inputs, tmp_path)
    assert run("--ray", address, "--shards", "2") == 2
    assert f"--ray {address}" in capsys.readouterr().err
    assert outputs(run.folder) == {}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
@pytest.mark.parametrize("form", ["{}", "ray://{}", "auto"])
def test_a_program_that_is_not_ray_is_one_error_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, str], answer: bytes, form: str
) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    monkeypatch.setattr(ray_shards, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", place)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(1 << 10)
                # A silent program keeps the connection.
                ended.wait(10 if not answer else 0)

        ended, server = threading.Event(), threading.Thread(target=serve)
        server.start()
        with pytest.raises(UsageError, match=place), ray_shards._cluster(form.format(place)):
            pytest.fail("no cluster was reached")
        ended.set()
        server.join()


def test_a_task_that_sees_another_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray comes with the extra ray")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "absent"):
        end = ray_shards.run_task("sl-cai", argparse.Namespace(), str(folder), str(tmp_path / "marker"))
        assert str(folder) in end.error and "shared" in end.error


def test_what_is_read_is_not_deleted(inputs: dict[str, str], tmp_path: Path) -> None:
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path, *to_openai(server))
        assert run("--shard", "0/2") == 0
        assert run("--shard", "0/2") == 2, "its journal is there"
        assert run("--shard", "0/2", "--overwrite", "--journal-from", str(run.shards)) == 2
        assert run("--shard", "0/2", "--resume", "--journal-from", str(run.shards)) == 0
        asked = len(server.bodies)
        assert run("--shard", "1/2") == 0
        for _ in range(2):
            assert run("--no-calls", "--overwrite", "--journal-from", str(run.shards)) == 0
        assert run("--no-calls", "--journal-from", str(run.shards)) == 2, "its outputs are there"
        assert len(server.bodies) == 2 * asked


def test_the_shard_of_a_slurm_task_is_used_and_told(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, value in {"ID": "5", "COUNT": "4", "MIN": "3", "MAX": "6"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    with FakeOpenAI(reply) as server:
        run = SlRun(inputs, tmp_path, *to_openai(server))
        assert run() == 0
        assert "--shard 2/4" in caplog.text
        assert os.listdir(run.shards) == ["2-of-4.journal.jsonl"]
        # Tasks that only look, or merge, work on all prompts.
        assert run("--no-calls", "--journal-from", str(run.shards)) == 1
        assert run("--shard", "all", "--journal-from", str(run.shards)) == 0
        assert (run.folder / "sl.jsonl").is_file()


def slurm(**values: object) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_slurm_tasks() -> None:
    assert Shard.of_slurm_task({}) is None
    assert Shard.of_slurm_task(slurm(ID=0, COUNT=64, MIN=0, MAX=63)) == Shard(0, 64)
    assert Shard.of_slurm_task(slurm(ID=64, COUNT=64, MIN=1, MAX=64)) == Shard(63, 64)
    for values in (slurm(ID=7, COUNT=2, MIN=3, MAX=7), slurm(ID=1)):
        with pytest.raises(UsageError, match="--shard"):
            Shard.of_slurm_task(values)


def test_every_record_is_in_one_shard_and_blocks_stay_whole() -> None:
    draw = random.Random(5)
    for _ in range(200):
        records, count, block = draw.randrange(50), draw.randint(1, 12), draw.randint(1, 7)
        parts = [list(Shard(index, count).select(range(records), block)) for index in range(count)]
        assert sorted(record for part in parts for record in part) == list(range(records))
        assert [Shard(index, count).size(records, block) for index in range(count)] == list(map(len, parts))
        for part in parts:
            blocks = [part[start : start + block] for start in range(0, len(part), block)]
            assert all(one[0] % block == 0 and one[-1] - one[0] == len(one) - 1 for one in blocks)


def test_journals_are_found_by_file_folder_and_pattern_once_each(tmp_path: Path) -> None:
    shards = [Shard(index, count).journal(tmp_path / "a.journal.jsonl") for count in (12, 3) for index in range(count)]
    assert shards[1].name == "01-of-12.journal.jsonl" and shards[1].parent.name == "a.shards"
    shards[0].parent.mkdir()
    for path in (*shards, shards[0].with_name("notes.txt")):
        path.touch()
    folder = shards[0].parent
    (tmp_path / "link").symlink_to(folder)
    found = find_journals([folder, folder / "*-of-3.*", tmp_path / "link", shards[2]])
    assert sorted(found) == sorted(shards)
    assert find_journals([]) == [] and shard_count([]) == shard_count([tmp_path / "other.journal.jsonl"]) == 1
    assert shard_count(found) == 3


def call(number: int) -> Call:
    return Call(
        "answer", str(number), 0, Request(Conversation.of_user(f"prompt {number}"), Sampling()), {"model": "m"}
    )


def write_journal(path: Path, entries: list[tuple[int, str | CallFailed]]) -> None:
    async def write() -> None:
        journal = Journal.open(path)
        for number, result in entries:
            if isinstance(result, CallFailed):
                journal.append_failure(call(number).key, call(number), result)
            else:
                journal.append([(call(number).key, call(number), Completion(result, "stop"))])
        await journal.close()

    asyncio.run(write())


def test_more_journals_than_open_files_and_the_own_one_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_aligner_cai.engine.journal_index._MOST_OPEN", 4)
    paths = [tmp_path / f"{number}" for number in range(12)]
    for number, path in enumerate(paths):
        write_journal(path, [(number, f"reply {number}"), (1000, f"said by {number}")])
    own = tmp_path / "own"
    write_journal(own, [(1000, "said here")])
    before = len(os.listdir("/proc/self/fd"))
    journal = Journal.open(own, resume=True, sources=paths)
    for number in random.Random(1).sample(range(12), 12):
        found = journal.lookup(call(number).key)
        assert found is not None and found.text == f"reply {number}"
    assert len(os.listdir("/proc/self/fd")) == before + 4 + 1, "four to read, and the own one to write"
    found = journal.lookup(call(1000).key)
    assert found is not None and found.text == "said here"
    with pytest.raises(JournalInUse):
        Journal.open(own, resume=True)
    asyncio.run(journal.close())
    assert len(os.listdir("/proc/self/fd")) == before


def test_failures_are_read_as_they_were(tmp_path: Path) -> None:
    failures = [CallFailed("HTTP 400", "it: says: no"), CallFailed("empty reply")]
    write_journal(tmp_path / "j", list(enumerate(failures)))
    journal = Journal.open_to_read(tmp_path / "j")
    for number, failure in enumerate(failures):
        found = journal.failure(call(number).key)
        assert found is not None and (found.reason, str(found)) == (failure.reason, str(failure))
        assert journal.lookup(call(number).key) is None
    assert journal.failure(call(7).key) is None
    asyncio.run(journal.close())


def test_a_merge_keeps_no_reply_in_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{shard}-of-8.journal.jsonl" for shard in range(8)]
    for shard, path in enumerate(paths):
        write_journal(path, [(number, "long " * 8_000) for number in range(shard, 800, 8)])
    assert sum(path.stat().st_size for path in paths) > 30_000_000
    tracemalloc.start()
    journal = Journal.open_to_read(*paths)
    texts = [len(found.text) for number in range(800) if (found := journal.lookup(call(number).key)) is not None]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    asyncio.run(journal.close())
    assert texts == [40_000] * 800
    assert peak < 2_000_000


def config(out: Path, red: str, helpful: str, **run: Any) -> SlCaiConfig:
    return SlCaiConfig(
        prompts=PromptSource(path=red),
        files=SftFiles(helpful=helpful),
        outputs=SlOutputs.named(out / "sl.jsonl"),
        run=RunSettings(**run),
    )


def test_the_library_makes_shards_and_merges_them(inputs: dict[str, str], tmp_path: Path) -> None:
    def run(out: str, **settings: Any) -> Any:
        red, helpful = inputs["--red-teaming-prompts-dataset-path"], inputs["--helpfulness-dataset-path"]
        return asyncio.run(run_sl_cai(config(tmp_path / out, red, helpful, **settings), ScriptedClient()))

    run("one")
    for shard in ("0/2", Shard(1, 2)):
        report = run("many", shard=shard)
        assert report.files == {} and report.summary.in_shard == 5
        report.summary.counts.check()
    folder = tmp_path / "many" / SHARDS
    moved = tmp_path / "moved"
    shutil.move(folder / "1-of-2.journal.jsonl", moved)
    with pytest.raises(CallsMissing) as missing:
        run("many", no_calls=True, journal_from=[folder])
    assert missing.value.prompts == {Shard(1, 2): 5}
    run("many", no_calls=True, journal_from=[folder, moved])
    assert outputs(tmp_path / "many") == outputs(tmp_path / "one")
    assert SlCaiConfig.model_validate(config(tmp_path, "a", "b", shard="1/2").model_dump()).run.shard == Shard(1, 2)
