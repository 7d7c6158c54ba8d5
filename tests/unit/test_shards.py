# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Shards and their merge: the bytes of one run, no call twice, and a clear word for each call that is missing."""

import asyncio
import logging
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.engine.shards import CallsMissing, Shard
from nemo_aligner_cai.models import ScriptedClient
from nemo_aligner_cai.stages import PromptSource, RunSettings, SftFiles, SlCaiConfig, SlOutputs, run_sl_cai
from tests.unit import rl_run
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.sl_run import SHARDS, SlRun, outputs


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


def test_a_merge_takes_the_calls_of_the_shards_over_those_of_an_earlier_run(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    with FakeOpenAI(lambda body: f"first {body['seed']}") as server:
        run = SlRun(inputs, tmp_path / "run", *to_openai(server))
        assert run() == 0
        server.reply = lambda body: f"second {body['seed']}"
        for shard in range(2):
            assert run("--shard", f"{shard}/2") == 0
        assert run("--no-calls", "--journal-from", str(run.shards), "--overwrite") == 0
    [texts] = [text for name, text in outputs(run.folder).items() if name.endswith("cai_revisions.jsonl")]
    assert b"second" in texts and b"first" not in texts


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
