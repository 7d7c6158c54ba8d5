# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A13: replies of a journal are reused for the model that gave them, and for no other under the same name."""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.engine import served_models
from nemo_aligner_cai.models.served import fetch_served_model
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.rl_run import judge, numbers_in, policy, red_team_flags, run
from tests.unit.sl_run import SHARDS, outputs
from tests.unit.sl_run import run as run_sl

OLD = {"id": "nemo", "root": "/models/a.nemo", "fingerprint": "sha256:aaaa"}
NEW = OLD | {"fingerprint": "sha256:bbbb"}


def reply(prompt: Any, rng: Any) -> str:
    return f"about {len(str(prompt))}"


def journal_of(inputs: dict[str, str]) -> Path:
    out = Path(inputs["--output-filepath"])
    return out.parent / "cai_output" / out.name / "cai_revisions.journal.jsonl"


def written(inputs: dict[str, str]) -> bytes:
    """The content of all outputs, which also have the answers and the critiques."""
    return b"".join(outputs(Path(inputs["--output-filepath"]).parent).values())


def test_a13_a_server_with_another_model_is_not_resumed(
    inputs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(inputs["--output-filepath"])
    with FakeNemo(reply, ending="</s>") as server:
        server.model = OLD
        assert run_sl(inputs, port=server.port) == 0
        whole, done = out.read_bytes(), len(server.bodies)
        server.model = OLD | {"root": "/moved/a.nemo"}
        assert run_sl(inputs, "--resume", port=server.port) == 0
        server.model = NEW
        capsys.readouterr()
        assert run_sl(inputs, "--resume", port=server.port) == 2
        assert len(server.bodies) == done and out.read_bytes() == whole
        said = capsys.readouterr().err
        assert "aaaa" in said and "bbbb" in said and "--model" in said
        assert run_sl(inputs, "--resume", "--model", "second", port=server.port) == 0
        assert len(server.bodies) == 2 * done
        assert run_sl(inputs, "--resume", "--model", "second", port=server.port) == 0
        assert len(server.bodies) == 2 * done


def test_a13_replies_of_a_model_that_replaced_another_do_not_count(
    inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(inputs["--output-filepath"])
    with FakeNemo(reply, ending="</s>") as server:

        def replaces(prompt: Any, rng: Any) -> str:
            server.model = NEW
            return "of the new model"

        server.reply, server.model = replaces, OLD
        assert run_sl(inputs, port=server.port) == 2
        assert not out.exists()
        assert "during the run, whose calls since the last check do not count" in capsys.readouterr().err
        asked = len(server.bodies)
        server.reply, server.model = reply, OLD
        assert run_sl(inputs, "--resume", port=server.port) == 0
        assert len(server.bodies) > asked
        again = len(server.bodies)
        assert run_sl(inputs, "--resume", port=server.port) == 0
        assert len(server.bodies) == again
    assert b"about" in written(inputs) and b"of the new model" not in written(inputs)


def test_a13_a_run_stops_soon_after_its_model_is_replaced(
    inputs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_models, "_SECONDS", 0.01)
    asked: list[str] = []

    def counted(prompt: Any, rng: Any) -> str:
        asked.append(str(prompt))
        return reply(prompt, rng)

    with FakeNemo(reply, ending="</s>") as server:

        def replaced_after_the_answers(prompt: Any, rng: Any) -> str:
            if len(asked) == 12:
                server.model = NEW
            # Checks confirm the answers meanwhile, also on a machine that is busy.
            time.sleep(0.3)
            return counted(prompt, rng)

        server.reply, server.model = replaced_after_the_answers, OLD
        batches = ("--batch_size", "1")
        assert run_sl(inputs, *batches, port=server.port) == 2
        stopped = len(asked)
        server.reply, server.model = counted, OLD
        assert run_sl(inputs, *batches, "--resume", port=server.port) == 0
        resumed = len(asked) - stopped
        assert run_sl(inputs, *batches, "--resume", "--model", "other", port=server.port) == 0
        every = len(asked) - stopped - resumed
    assert 12 <= stopped < every
    assert resumed < every, "confirmed answers are made again"


def refuse_after(server: FakeNemo, calls: int) -> None:
    server.fault_of = lambda body: 401 if len(server.bodies) > calls else None


@pytest.mark.parametrize("reachable", [True, False])
def test_a13_a_model_that_was_replaced_before_a_run_ended_early(inputs: dict[str, str], reachable: bool) -> None:
    """A refusal, a full disk or a kill may come before the next check."""
    batches = ("--batch_size", "1")
    with FakeNemo(reply, ending="</s>") as server:

        def replaced(prompt: Any, rng: Any) -> str:
            server.model = NEW if reachable else None
            return "of the new model"

        server.reply, server.model = replaced, OLD
        refuse_after(server, 4)
        assert run_sl(inputs, *batches, port=server.port) == 1
        refuse_after(server, 1000)
        server.reply, asked = reply, len(server.bodies)
        if not reachable:
            server.model = NEW
            assert run_sl(inputs, *batches, "--resume", port=server.port) == 2
            assert len(server.bodies) == asked
        server.model = OLD
        assert run_sl(inputs, *batches, "--resume", port=server.port) == 0
        finished = len(server.bodies)
        assert run_sl(inputs, *batches, "--resume", port=server.port) == 0
        assert len(server.bodies) == finished, "the next resumption reuses everything"
    assert "of the new model" in journal_of(inputs).read_text()
    assert b"about" in written(inputs) and b"of the new model" not in written(inputs)


def test_a13_each_of_several_replaced_models_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [*red_team_flags(tmp_path), "--judge-model", "j"]
    judges = {"old": {"id": "j", "fingerprint": "sha256:cccc"}, "new": {"id": "j", "fingerprint": "sha256:dddd"}}
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:

        def replaced(body: dict[str, Any]) -> str:
            if numbers_in(body["messages"][-1]["content"]):
                # It is not the first greeting, which comes before the first check.
                server.model, judge_server.model = NEW, judges["new"]
            return judge(body).replace("Because it is higher", "By the new judge")

        server.model, judge_server.model, judge_server.reply = OLD, judges["old"], replaced
        assert run(flags, server, judge_server) == 2
        said = capsys.readouterr().err
        assert all(fingerprint in said for fingerprint in ("aaaa", "bbbb", "cccc", "dddd"))
        server.model, judge_server.model, judge_server.reply = OLD, judges["old"], judge
        assert run(flags, server, judge_server, "--resume") == 0
    rows = (tmp_path / "out" / "cai_comparisons.jsonl").read_text()
    assert "Because it is higher" in rows and "By the new judge" not in rows


@pytest.mark.parametrize("unavailable", [False, True])
def test_a13_another_model_than_that_of_the_journals_that_are_read(
    inputs: dict[str, str], monkeypatch: pytest.MonkeyPatch, unavailable: bool
) -> None:
    monkeypatch.setattr(served_models, "_SECONDS", 0.01)
    out = Path(inputs["--output-filepath"])
    with FakeNemo(reply, ending="</s>") as server:
        server.model = OLD
        batches = ("--batch_size", "1")
        assert run_sl(inputs, *batches, "--shard", "0/2", port=server.port) == 0
        again = (*batches, "--journal-from", str(out.parent / SHARDS))

        def other(prompt: Any, rng: Any) -> str:
            server.model = NEW
            return "of the new model"

        # A server that is still loading reports no model at first.
        server.reply, server.model = other, None if unavailable else NEW
        assert run_sl(inputs, *again, port=server.port) == 2
        server.reply, server.model = reply, OLD
        assert run_sl(inputs, *again, "--resume", port=server.port) == 0
        if unavailable:
            assert "of the new model" in journal_of(inputs).read_text()
    assert b"about" in written(inputs) and b"of the new model" not in written(inputs)


def test_a13_a_long_list_of_models_is_read_to_its_end() -> None:
    models = [OLD | {"id": f"m{number}"} for number in range(5000)]

    class Hosted(FakeOpenAI):
        def list_models(self) -> list[dict[str, Any]]:
            return models

    with Hosted() as server:
        server.model = models[-1]
        found = asyncio.run(fetch_served_model([f"http://127.0.0.1:{server.port}/v1/models"], "m4999"))
    assert found == {"fingerprint": "sha256:aaaa"}


def test_a13_where_the_server_does_not_tell_the_user_is_told_once(
    inputs: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with FakeNemo(reply, ending="</s>") as server:
        assert run_sl(inputs, port=server.port) == 0
        assert "--model" not in caplog.text
        assert run_sl(inputs, "--resume", port=server.port) == 0
    assert caplog.text.count("--judge-model") == 1


def test_a13_an_openai_server_with_the_name_at_another_path_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    flags = [*red_team_flags(tmp_path), "--judge-model", "j"]
    with FakeNemo(policy) as server, FakeOpenAI(judge) as judge_server:
        judge_server.model = {"id": "j", "root": "/models/one"}
        assert run(flags, server, judge_server) == 0
        judge_server.model = {"id": "j", "root": "/models/two"}
        assert run(flags, server, judge_server, "--resume") == 0
    assert caplog.text.count("/models/one") == 1


@pytest.mark.parametrize("model", [{}, {"id": 3}, {"id": ["x"], "root": {}, "fingerprint": None}])
def test_a13_whatever_a_server_says_of_its_models_the_run_goes_on(
    inputs: dict[str, str], model: dict[str, Any]
) -> None:
    with FakeNemo(reply, ending="</s>") as server:
        server.model = model
        assert run_sl(inputs, port=server.port) == 0


def test_a13_the_record_is_no_call(inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeNemo(reply, ending="</s>") as server:
        server.model = OLD
        assert run_sl(inputs, port=server.port) == 0
    journal = str(journal_of(inputs))
    kinds = [json.loads(line)["kind"] for line in Path(journal).read_text().splitlines()]
    assert kinds.count("served") == 2, "at the beginning and at the end"
    capsys.readouterr()
    for command in ("show", "stats"):
        assert cli.main(["journal", command, journal]) == 0
    exported = tmp_path / "calls.jsonl"
    assert cli.main(["journal", "export", journal, str(exported)]) == 0
    assert len(exported.read_text().splitlines()) == kinds.count("call")
