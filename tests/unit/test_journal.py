# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a journal stores, finds and shows."""

import asyncio
import errno
import fcntl
import gzip
import json
import logging
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import CallFailed, Completion, Request, Sampling, Usage
from tests.unit.journals import MODEL, cai_journal, call, done, found, write


def test_what_is_written_is_found_with_everything_it_had(tmp_path: Path) -> None:
    path = tmp_path / "very" / "deep" / "journal.jsonl"
    one = call("1", temperature=0.5, seed=4)
    write(path, (None, [done(one, "Grüße \u2028 中文 😀")]))
    journal = Journal.open(path, resume=True)
    assert journal.lookup(one.key) == Completion(
        "Grüße \u2028 中文 😀", "stop", Usage(3, 4), raw={"content": "Grüße \u2028 中文 😀"}
    )
    asyncio.run(journal.close())


def test_a_key_names_all_that_determines_the_completion_and_nothing_else() -> None:
    base = call("1", temperature=0.5, seed=4)
    same = Call(
        "answer", "another record", 0, Request(base.request.conversation, base.request.sampling, priority=9), MODEL
    )
    assert base.key == same.key
    others = [
        call("2", temperature=0.5, seed=4),
        call("1", temperature=0.6, seed=4),
        call("1", temperature=0.5, seed=5),
        call("1", temperature=0.5, seed=4, step="critique"),
        call("1", temperature=0.5, seed=4, sample=1),
        call("1", temperature=0.5, seed=4, shared=2),
        Call("answer", "1", 0, base.request, {"server": "scripted", "model": "other"}),
    ]
    assert len({base.key, *(other.key for other in others)}) == 1 + len(others)
    assert call("1", greedy=True, seed=1).key == call("1", temperature=0.0, seed=2).key


def test_the_lines_are_those_that_are_documented(tmp_path: Path) -> None:
    path = tmp_path / "j"
    one = call("1", shared=2, sample=3, temperature=0.5)
    scored = Call("judge", "r", 0, Request(Conversation.of_user("q"), Sampling(), choices=("(A)", "(B)")), MODEL)
    logprobs = {"(A)": -0.5, "(B)": -1.0}

    async def run() -> None:
        journal = Journal.open(path)
        journal.append([done(one)])
        journal.append([(scored.key, scored, Completion("", "choices", choice_logprobs=logprobs))], batch="b7")
        journal.append_failure(one.key, one, CallFailed("HTTP 500", "boom"))
        journal.append_served_model(MODEL, {"fingerprint": "sha256:aa"})
        await journal.close()

    asyncio.run(run())
    prefix, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    times = [datetime.fromisoformat(entry.pop("time")) for entry in entries]
    assert all(abs((datetime.now(timezone.utc) - time).total_seconds()) < 3600 for time in times)
    shots = [{"role": "user", "content": "shot"}, {"role": "assistant", "content": "reply"}]
    assert prefix == {"kind": "prefix", "id": one.request.prefix, "messages": shots}
    place = {"step": "answer", "record": "1", "sample": 3}
    plain: dict[str, Any] = {"choices": [], "schema": None, "room": 0, "sampling": one.request.sampling.to_dict()}
    assert entries == [
        {
            **{"kind": "call", "key": one.key, **place, "batch": None, "model": MODEL},
            "request": {"prefix": prefix["id"], "messages": [{"role": "user", "content": "prompt 1"}], **plain},
            **{
                "text": "x",
                "finish_reason": "stop",
                "usage": [3, 4],
                "choice_logprobs": None,
                "raw": {"content": "x"},
            },
        },
        {
            **{"kind": "call", "key": scored.key, "step": "judge", "record": "r", "sample": 0, "model": MODEL},
            "batch": {"id": "b7", "size": 1, "place": 0},
            "request": {
                **{"prefix": None, "messages": [{"role": "user", "content": "q"}], "choices": ["(A)", "(B)"]},
                **{"schema": None, "room": 0, "sampling": Sampling().to_dict()},
            },
            **{"text": "", "finish_reason": "choices", "usage": None, "choice_logprobs": logprobs, "raw": None},
        },
        {"kind": "failure", "key": one.key, **place, "reason": "HTTP 500", "detail": "HTTP 500: boom"},
        {"kind": "served", "model": MODEL, "served": {"fingerprint": "sha256:aa"}},
    ]
    journal = Journal.open_to_read(path)
    assert journal.lookup(scored.key) == Completion("", "choices", choice_logprobs=logprobs)
    assert journal.had_calls and journal.served_model(MODEL) == {"fingerprint": "sha256:aa"}
    asyncio.run(journal.close())


def test_few_shots_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, (None, [done(call("1", shared=2))]), (None, [done(call("2", shared=2))]))
    write(path, (None, [done(call("3", shared=2))]), resume=True)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["kind"] for entry in entries] == ["prefix", "call", "call", "call"]
    assert entries[1]["request"]["messages"] == [{"role": "user", "content": "prompt 1"}]
    assert {entry["request"]["prefix"] for entry in entries[1:]} == {entries[0]["id"]}


def test_the_first_run_with_resume_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert found(tmp_path / "j", call("1")) == [None] and not caplog.text


def test_an_existing_journal_is_neither_overwritten_nor_continued_unasked(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, (None, [done(call("1"))]))
    with pytest.raises(UsageError, match="--resume"):
        Journal.open(path)
    write(path, resume=True, overwrite=True)
    assert found(path, call("1")) == ["x"]
    write(path, overwrite=True)
    assert found(path, call("1")) == [None]
    assert path.stat().st_mode & 0o133 == 0, "only its owner may write it, and nobody run it"


def test_another_file_is_not_taken_for_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "precious"}\n')
    with pytest.raises(UsageError, match=f"{path}: not a journal"):
        Journal.open(path, resume=True)
    assert path.read_text() == '{"text": "precious"}\n'


def test_two_runs_cannot_write_the_same_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal.open(path)
    with pytest.raises(UsageError, match=f"{path}: in use"):
        Journal.open(path, resume=True)
    asyncio.run(journal.close())
    asyncio.run(Journal.open(path, resume=True).close())


def test_failures_are_noted_and_never_reused(tmp_path: Path) -> None:
    path = tmp_path / "j"

    async def run() -> None:
        journal = Journal.open(path)
        journal.append_failure(call("1").key, call("1"), CallFailed("HTTP 500", "boom"))
        await journal.close()

    asyncio.run(run())
    assert json.loads(path.read_text())["reason"] == "HTTP 500"
    assert found(path, call("1")) == [None]


def test_calls_of_the_last_second_alone_are_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[float] = []
    now = 100.0

    def sync(handle: int) -> None:
        assert os.path.samestat(os.fstat(handle), (tmp_path / "j").stat())
        synced.append(now)

    monkeypatch.setattr(os, "fsync", sync)
    # The journal's clock alone: asyncio has the same one.
    monkeypatch.setattr("nemo_aligner_cai.engine.journal.time", SimpleNamespace(monotonic=lambda: now))

    async def at_once(work: Callable[..., None], *arguments: Any) -> None:
        work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)

    async def run() -> None:
        nonlocal now
        journal = Journal.open(tmp_path / "j")
        for number in range(8):
            now = 100.0 + number / 2
            journal.append([done(call(str(number)))])
            await asyncio.sleep(0)
        await journal.close()

    asyncio.run(run())
    assert synced == [101.0, 102.0, 103.0, 103.5]


def test_a_journal_that_is_only_read_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, (None, [done(call("1"))]))
    content = path.read_bytes()
    journal = Journal.open_to_read(path)
    journal.append([done(call("2", shared=2))])
    journal.append_served_model(MODEL, {"fingerprint": "aa"})
    journal.append_failure(call("3").key, call("3"), CallFailed("HTTP 500"))
    asyncio.run(journal.close())
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UsageError, match=f"{blocker / 'j'}: cannot be written: {blocker} is not a folder"):
        Journal.open(blocker / "j")
    assert os.listdir(tmp_path) == ["file"]


def test_the_command_shows_counts_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "j"
    write(path, (None, [done(call("1", shared=2), "one\nline")]), (None, [done(call("2", step="critique"))]))
    assert cai_journal("show", str(path)) == 0
    assert capsys.readouterr().out.splitlines() == ["1       answer one line", "2     critique x"]
    assert cai_journal("stats", str(path)) == 0
    assert "answer        1 calls        0 truncated          4 tokens" in capsys.readouterr().out
    assert cai_journal("export", str(path), str(tmp_path / "out.jsonl"), "--record", "1") == 0
    (exported,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [message["content"] for message in exported["request"]["messages"]] == ["shot", "reply", "prompt 1"]
    (tmp_path / "other").write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match="other: not a journal"):
        cai_journal("stats", str(tmp_path / "other"))


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"some text\n", gzip.compress(b"x" * 100, mtime=0) + b"\n", b'{"kind": "call"']
)
@pytest.mark.parametrize("words", [["show"], ["stats"], ["export"]])
def test_a_file_without_an_entry_is_an_error(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path, out = tmp_path / "j", tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"{path}: "):
        cai_journal(*words, str(path), *([str(out)] if words == ["export"] else []))
    assert not out.exists()


def test_a_key_is_compared_as_a_whole(tmp_path: Path) -> None:
    """Memory holds half of a key."""
    path, one = tmp_path / "j", call("1")
    write(path, (None, [done(one)]))
    journal = Journal.open_to_read(path)
    assert journal.lookup(one.key) is not None
    assert journal.lookup(one.key[:16] + one.key[16:][::-1]) is None
    asyncio.run(journal.close())


def test_calls_of_any_journal_are_calls_that_there_were(tmp_path: Path) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    write(full, (None, [done(call("1"))]))
    empty.write_bytes(b"")
    for sources, had_calls in (([], False), ([full], True), ([full, empty], True), ([empty], False)):
        journal = Journal.open(empty, sources=sources)
        assert journal.had_calls is had_calls
        asyncio.run(journal.close())


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    write(tmp_path / "j", (None, [done(call("1"))]))
    assert found(tmp_path / "j", call("1")) == ["x"]
