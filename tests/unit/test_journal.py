# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a journal stores, finds and shows."""

import asyncio
import errno
import fcntl
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
    plain: dict[str, Any] = {"choices": [], "schema": None, "sampling": one.request.sampling.to_dict()}
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
                **{"schema": None, "sampling": Sampling().to_dict()},
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


def test_journals_of_two_models_under_one_name_are_not_read_together(tmp_path: Path) -> None:
    def served(name: str, *models: dict[str, str]) -> Path:
        async def run() -> None:
            journal = Journal.open(tmp_path / name)
            for model in models:
                journal.append_served_model(MODEL, model)
            await journal.close()

        asyncio.run(run())
        return tmp_path / name

    def read(*paths: Path) -> Journal:
        journal = Journal.open(tmp_path / "own", resume=True, sources=paths)
        asyncio.run(journal.close())
        return journal

    old, again = (served(name, {"fingerprint": "aa"}, {"fingerprint": "bb"}) for name in ("old", "again"))
    new, nameless = served("new", {"fingerprint": "cc"}), served("nameless", {"id": "m"})
    assert len(old.read_bytes().splitlines()) == 2
    assert read(old, again).served_model(MODEL) == {"fingerprint": "aa"}
    assert read(old, nameless).served_model(MODEL) == {"id": "m"}
    assert read().served_model(MODEL) is None and not read(old).had_calls
    with pytest.raises(UsageError, match=rf"{old} and {new}: .* aa and cc"):
        read(old, new)

    async def record() -> None:
        journal = Journal.open(tmp_path / "own", resume=True, sources=[old])
        for _ in range(2):
            journal.append_served_model(MODEL, {"fingerprint": "aa"})
        await journal.close()

    asyncio.run(record())
    assert len((tmp_path / "own").read_bytes().splitlines()) == 2, "the written journal says it itself"
    assert read().served_model(MODEL) == {"fingerprint": "aa"}


def served_and_called(path: Path, *events: str | Call) -> Path:
    """A journal of replies, whose text is the path's name, and of the fingerprints that the server reported."""

    async def run() -> None:
        journal = Journal.open(path, resume=True)
        for event in events:
            if isinstance(event, Call):
                journal.append([done(event, path.name)])
            else:
                journal.append_served_model(MODEL, {"fingerprint": event})
        await journal.close()

    asyncio.run(run())
    return path


def test_calls_count_if_the_next_report_of_the_server_confirms_the_model(tmp_path: Path) -> None:
    calls = [call(str(number)) for number in range(5)]
    one, two, three, four, _ = calls
    cases: list[tuple[str, tuple[str | Call, ...], str]] = [
        ("confirmed", ("A", one, "A", two, "A"), "12"),
        ("not checked yet", ("A", one, "A", two), "12"),
        ("resumed", ("A", one, "A", "A", two, "A"), "12"),
        ("before the first report", (one, "A", two), "12"),
        ("replaced and back", ("A", one, "B", two, "A", three), "3"),
        ("written behind the report", ("A", one, "A", two, "B", three), "1"),
        ("replaced by several", ("A", one, "A", two, "B", three, "C", four, "A"), "1"),
        ("replaced twice", ("A", "B", one, "A", two, "A", three, "B", four, "A"), "2"),
        ("found by the next run", ("A", one, "A", two, "B", "A"), "1"),
    ]
    for name, events, counted in cases:
        texts = found(served_and_called(tmp_path / name, *events), *calls)
        assert "".join(str(n) for n, text in enumerate(texts, start=1) if text) == counted, name


def test_a_report_about_another_client_changes_nothing(tmp_path: Path) -> None:
    def other(fingerprint: str) -> None:
        journal.append_served_model({"server": "other"}, {"fingerprint": fingerprint})

    async def run() -> None:
        for fingerprint in "AB":
            other(fingerprint)
            journal.append_served_model(MODEL, {"fingerprint": "M"})
            journal.append([done(call(fingerprint))])
        await journal.close()

    journal = Journal.open(tmp_path / "j")
    asyncio.run(run())
    assert found(tmp_path / "j", call("A"), call("B")) == ["x", "x"]


@pytest.mark.parametrize("order", [("good", "uncertain"), ("uncertain", "good")])
def test_an_uncertain_call_hides_none_of_another_journal(tmp_path: Path, order: tuple[str, ...]) -> None:
    served_and_called(tmp_path / "good", "A", call("1"), "A")
    served_and_called(tmp_path / "uncertain", "A", call("1"), "B", "A", call("2"), "A")
    journal = Journal.open_to_read(*(tmp_path / name for name in order))
    texts = [completion and completion.text for completion in map(journal.lookup, (call("1").key, call("2").key))]
    asyncio.run(journal.close())
    assert texts == ["good", "uncertain"]


def test_an_uncertain_batch_is_dropped_whole_and_the_next_one_is_found(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal.open(tmp_path / "j")
        for model, batch in (("A", "a"), ("B", "b"), ("A", "c")):
            journal.append_served_model(MODEL, {"fingerprint": model})
            journal.append([done(call(f"{batch}{number}", shared=2)) for number in range(3)], batch=batch)
        await journal.close()

    asyncio.run(run())
    expected = {"a": None, "b": None, "c": "x"}
    for batch, text in expected.items():
        assert found(tmp_path / "j", *(call(f"{batch}{number}", shared=2) for number in range(3))) == [text] * 3


def test_a_new_journal_does_not_begin_with_another_model_than_those_it_reads(tmp_path: Path) -> None:
    source, own = served_and_called(tmp_path / "source", "A", call("1"), "A"), tmp_path / "own"

    def run(*reports: str, adopted: bool = False) -> bytes:
        async def open_and_report() -> None:
            journal = Journal.open(own, resume=True, sources=[source])
            if adopted:
                journal.adopt_served_model(MODEL)
            for report in reports:
                journal.append_served_model(MODEL, {"fingerprint": report})
            await journal.close()

        asyncio.run(open_and_report())
        return own.read_bytes()

    assert run("B") == b""
    assert run("A", "B").count(b"\n") == 2
    own.unlink()
    assert [json.loads(line)["served"]["fingerprint"] for line in run("B", adopted=True).splitlines()] == ["A", "B"]
    assert run("A", adopted=True).count(b"\n") == 3, "it has a record of its own"


def test_the_room_of_a_reasoning_is_part_of_the_key() -> None:
    keys = {
        room: Call("vote", "r", 0, Request(Conversation.of_user("Q"), Sampling(max_tokens=8), room=room), MODEL).key
        for room in (0, 1024, 4096)
    }
    assert keys[0] == keys[1024] != keys[4096], "journals of the default room stay as they are"


def test_each_client_has_a_served_model_of_its_own(tmp_path: Path) -> None:
    async def run() -> Journal:
        journal = Journal.open(tmp_path / "j")
        journal.append_served_model(MODEL, {"id": "a"})
        journal.append_served_model({"server": "other"}, {"id": "b"})
        await journal.close()
        return journal

    journal = asyncio.run(run())
    assert len((tmp_path / "j").read_bytes().splitlines()) == 2
    assert (journal.served_model(MODEL), journal.served_model({"server": "other"})) == ({"id": "a"}, {"id": "b"})


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
