# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio
import errno
import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.commands import journal as journal_command
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.engine import journal as journal_module
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call, read_entries
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.models import CallFailed, Completion, Request, Sampling, Usage

MODEL = {"server": "scripted", "model": "m"}


def call(record: str, *, step: str = "answer", shared: int = 0, sample: int = 0, **sampling: Any) -> Call:
    shots = [Message(Role.USER, "shot"), Message(Role.ASSISTANT, "reply")] if shared else []
    conversation = Conversation((*shots, Message(Role.USER, f"prompt {record}")))
    return Call(step, record, sample, Request(conversation, Sampling(**sampling), shared=shared), MODEL)


def done(one: Call, text: str = "x") -> tuple[str, Call, Completion]:
    return one.key, one, Completion(text, "stop", Usage(3, 4), raw={"content": text})


def write(path: Path, *groups: tuple[str | None, list[tuple[str, Call, Completion]]], **kwargs: bool) -> None:
    async def run() -> None:
        journal = Journal.open(path, **kwargs)
        for batch, calls in groups:
            journal.append(calls, batch=batch)
        await journal.close()

    asyncio.run(run())


def found(path: Path, *calls: Call) -> list[str | None]:
    journal = Journal.open(path, resume=True)
    answers = [journal.lookup(one.key) for one in calls]
    asyncio.run(journal.close())
    return [answer.text if answer else None for answer in answers]


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
    plain = {"choices": [], "schema": None, "sampling": one.request.sampling.to_dict()}
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


def test_cut_at_any_byte_it_opens_and_loses_only_what_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "whole"
    calls = [call(str(number), shared=2) for number in range(3)]
    write(path, *((None, [done(one)]) for one in calls))
    content = path.read_bytes()
    for size in {*range(0, len(content), 3), len(content)}:
        cut = tmp_path / "cut"
        cut.write_bytes(content[:size])
        whole_lines = content[:size].count(b"\n")
        texts = found(cut, *calls)
        assert texts == ["x"] * max(0, whole_lines - 1) + [None] * (3 - max(0, whole_lines - 1)), size
        if size % 50:
            continue
        # What was cut off can be written again, few-shots included.
        write(cut, *((None, [done(one)]) for one, text in zip(calls, texts, strict=True) if text is None), resume=True)
        assert found(cut, *calls) == ["x"] * 3
        assert sum(json.loads(line)["kind"] == "prefix" for line in cut.read_text().splitlines()) == 1


def test_an_incomplete_batch_is_dropped_whole_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first, second = [[call(f"{b}{n}", shared=2) for n in range(3)] for b in "ab"]
    write(path, ("one", [done(one) for one in first]), ("two", [done(one) for one in second]))
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for kept in range(1, 4):
        path.write_bytes(b"".join(lines[: len(lines) - kept]) + lines[-1][:7])
        assert found(path, *first, *second) == ["x"] * 3 + [None] * 3
        assert path.read_bytes() == b"".join(lines[:4])
        write(path, ("two", [done(one, "y") for one in second]), resume=True)
        assert found(path, *first, *second) == ["x"] * 3 + ["y"] * 3


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 20,
        b'{"kind":"call"}',
        b'{"kind":"prefix"}',
        b'{"kind":"failure"}',
        b'{"kind":"call","key":"xyz","batch":3}',
        b"[1]",
    ],
)
def test_a_damaged_line_costs_only_its_call_and_is_told(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j"
    calls = [call(str(number)) for number in range(3)]
    write(path, *((None, [done(one)]) for one in calls))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + line + b"\n" + lines[2])
    caplog.set_level(logging.WARNING)
    assert found(path, *calls) == ["x", None, "x"]
    assert "1 damaged" in caplog.text
    assert cai_journal("stats", str(path)) == cai_journal("show", str(path)) == 0
    assert "1 damaged lines" in capsys.readouterr().err


def test_a_damaged_line_in_the_last_batch_takes_no_later_line_with_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    batch = [call(f"b{n}") for n in range(3)]

    async def run() -> None:
        journal = Journal.open(path)
        journal.append([done(one) for one in batch], batch="b")
        journal.append_failure(call("1").key, call("1"), CallFailed("HTTP 500", "boom"))
        await journal.close()

    asyncio.run(run())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00" * 20 + b"\n" + lines[2] + lines[3])
    assert found(path, *batch) == [None] * 3
    journal = Journal.open(path, resume=True)
    assert journal.failure(call("1").key) is not None
    asyncio.run(journal.close())


def test_calls_whose_examples_are_damaged_are_not_exported_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, exported = tmp_path / "j", tmp_path / "calls.jsonl"
    write(path, *((None, [done(call(str(number), shared=2 * (number > 0)))]) for number in range(3)))
    lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[1])["kind"] == "prefix"
    path.write_bytes(lines[0] + b"\x00\n" + lines[2] + lines[3])
    assert cai_journal("export", str(path), str(exported)) == 0
    assert [json.loads(line)["record"] for line in exported.read_text().splitlines()] == ["0"]
    assert "skipped 2 calls" in capsys.readouterr().err


def test_a_line_that_lacks_any_field_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, ("b1", [done(call("1", shared=2))]))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [entry["kind"] for entry in lines] == ["prefix", "call"]
    for entry in lines:
        for name in entry.keys() - {"kind", "sample", "model", "time"}:
            path.write_bytes(orjson.dumps({key: value for key, value in entry.items() if key != name}) + b"\n")
            assert [entry for _, _, entry in read_entries(path)] == [None], name
            assert found(path, call("1", shared=2)) == [None]


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
    with pytest.raises(UsageError, match="not a journal"):
        Journal.open(path, resume=True)
    assert path.read_text() == '{"text": "precious"}\n'


def test_two_runs_cannot_write_the_same_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal.open(path)
    with pytest.raises(UsageError, match="in use"):
        Journal.open(path, resume=True)
    asyncio.run(journal.close())
    asyncio.run(Journal.open(path, resume=True).close())


def test_a_full_disk_leaves_no_part_of_a_line_to_which_the_next_one_is_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write_to_disk, room = tmp_path / "j", os.write, [10**6]
    first, lost, last = [call(str(number), shared=2) for number in range(3)]

    def write_what_fits(handle: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write_to_disk(handle, content[: room[0]])
        room[0] -= written
        return written

    async def run() -> None:
        journal = Journal.open(path)
        room[0] = 40
        with pytest.raises(CaiError, match="No space left"):
            journal.append([done(first)])
        room[0] = 10**6
        journal.append([done(first)])
        room[0] = 200
        with pytest.raises(CaiError, match="No space left"):
            journal.append([done(lost), done(lost)], batch="b")
        room[0] = 10**6
        journal.append([done(last)])
        await journal.close()

    monkeypatch.setattr(os, "write", write_what_fits)
    asyncio.run(run())
    kinds = [entry["kind"] if entry else None for _, _, entry in read_entries(path)]
    assert kinds == ["prefix", "call", "call"], "the examples are there, too"
    assert found(path, first, lost, last) == ["x", None, "x"]


def test_a_failed_sync_ends_the_run_though_the_system_reports_it_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [OSError(errno.EIO, "Input/output error")]

    def sync(handle: int) -> None:
        if errors:
            raise errors.pop()

    async def run() -> None:
        journal = Journal.open(tmp_path / "j")
        journal.append([done(call("1"))])
        while errors:
            await asyncio.sleep(0.01)
        for end in (lambda: journal.append([done(call("2"))]), lambda: None):
            with pytest.raises(CaiError, match="j: the journal cannot be written: Input/output error"):
                end()
                await journal.close()
        Journal.open(tmp_path / "j", resume=True)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(journal_module, "_FSYNC_SECONDS", 0.0)
    asyncio.run(run())


def test_failures_are_noted_and_never_reused(tmp_path: Path) -> None:
    path = tmp_path / "j"

    async def run() -> None:
        journal = Journal.open(path)
        journal.append_failure(call("1").key, call("1"), CallFailed("HTTP 500", "boom"))
        await journal.close()

    asyncio.run(run())
    assert json.loads(path.read_text())["reason"] == "HTTP 500"
    assert found(path, call("1")) == [None]


def test_a_line_that_the_system_writes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write_all(handle, bytes(content[:7])))
    write(tmp_path / "j", (None, [done(call("1"), "one")]), (None, [done(call("2"), "two")]))
    assert found(tmp_path / "j", call("1"), call("2")) == ["one", "two"]


def test_a_disk_that_is_full_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal.open(tmp_path / "j")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CaiError, match=f"{tmp_path / 'j'}.*No space left"):
        journal.append([done(call("1"))])
    asyncio.run(journal.close())


def test_calls_of_the_last_second_alone_are_not_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[float] = []
    now = 100.0
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(now))
    # The journal's clock alone: asyncio has the same one.
    monkeypatch.setattr("nemo_aligner_cai.engine.journal.time", SimpleNamespace(monotonic=lambda: now))

    async def run() -> None:
        nonlocal now
        journal = Journal.open(tmp_path / "j")
        for number in range(8):
            now = 100.0 + number / 2
            journal.append([done(call(str(number)))])
            await asyncio.sleep(0.01)
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
    assert len(old.read_bytes().splitlines()) == 1, "a model is recorded once"
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
    assert len((tmp_path / "own").read_bytes().splitlines()) == 1, "the written journal says it itself"
    assert read().served_model(MODEL) == {"fingerprint": "aa"}


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


def test_a_journal_that_is_cut_while_it_is_read_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, (None, [done(call("1"), "long " * 40_000)]))
    journal = Journal.open_to_read(path)
    assert len(str(journal.lookup(call("1").key))) > 200_000
    os.truncate(path, 100_000)
    with pytest.raises(CaiError, match=f"{path}: .*cut off"):
        journal.lookup(call("1").key)
    path.unlink()
    asyncio.run(journal.close())
    with pytest.raises(CaiError, match=f"{path}: cannot be read"):
        journal.lookup(call("1").key)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Journal.open(blocker / "j")
    assert os.listdir(tmp_path) == ["file"]


def cai_journal(*arguments: str) -> int:
    parser = Parser()
    journal_command.add_arguments(parser)
    return journal_command.run(parser.parse_args(list(arguments)))


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
    "scores", [{"(A)": "x", "(B)": -1.0}, {"(A)": -0.1}, {"(A)": None, "(B)": -1.0}, {"(A)": True, "(B)": 0}, [1], "x"]
)
def test_b6_edited_scores_are_a_damaged_line(tmp_path: Path, scores: Any) -> None:
    one = Call("judge", "r", 0, Request(Conversation.of_user("q"), Sampling(), choices=("(A)", "(B)")), MODEL)
    scored = Completion("", "choices", choice_logprobs={"(A)": -0.1, "(B)": -2})
    path = tmp_path / "j.jsonl"
    write(path, (None, [(one.key, one, scored)]))
    assert found(path, one) == [""]
    entry = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(entry | {"choice_logprobs": scores}) + b"\n")
    assert found(path, one) == [None]
