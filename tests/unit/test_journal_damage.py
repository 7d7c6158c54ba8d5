# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Cut, damaged and edited journals, full disks and failed writes."""

import asyncio
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine import journal as journal_module
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call, read_entries
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models import CallFailed, Completion, Request, Sampling
from tests.unit.journals import MODEL, cai_journal, call, done, found, write


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
    assert "j: 1 damaged" in caplog.text
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


def test_a_batch_that_lacks_a_line_takes_none_of_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first, second = [[call(f"{b}{n}") for n in range(3)] for b in "ab"]
    write(path, ("one", [done(one) for one in first]), ("two", [done(one) for one in second]))
    lines = path.read_bytes().splitlines(keepends=True)
    for lost in range(3):
        path.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
        assert found(path, *first, *second) == [None] * 3 + ["x"] * 3


def test_examples_within_a_batch_do_not_divide_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    batch = [call("1"), call("2", shared=2)]
    write(path, ("b", [done(one) for one in batch]))
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["call", "prefix", "call"]
    assert found(path, *batch) == ["x", "x"]


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


def entry_read(path: Path, entry: dict[str, Any]) -> dict[str, Any] | None:
    path.write_bytes(orjson.dumps(entry) + b"\n")
    ((_, _, read),) = read_entries(path)
    return read


def test_failures_and_models_that_lack_a_field_or_have_another_type_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "j"

    async def run() -> None:
        journal = Journal.open(path)
        journal.append_failure(call("1").key, call("1"), CallFailed("HTTP 500", "boom"))
        journal.append_served_model(MODEL, {"fingerprint": "aa"})
        await journal.close()

    asyncio.run(run())
    failure, served = [json.loads(line) for line in path.read_text().splitlines()]
    for entry, names in ((failure, ("step", "record", "reason", "detail", "key")), (served, ("model", "served"))):
        assert entry_read(path, entry) == entry
        for name in names:
            assert entry_read(path, entry | {name: 7}) is None, name
            # Earlier versions wrote failures without a key.
            less = {key: value for key, value in entry.items() if key != name}
            assert entry_read(path, less) == (less if name == "key" else None), name
    assert entry_read(path, failure | {"key": "xyz"}) is None
    assert entry_read(path, served | {"served": {"fingerprint": 7}}) is None
    assert entry_read(path, {"kind": "new", "key": 7}) == {"kind": "new", "key": 7}, "of a later version"


def test_damaged_lines_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j"
    write(path, (None, [done(call("1"))]))
    path.write_bytes(path.read_bytes() + b"damaged\n" * 2)
    assert found(path, call("1")) == ["x"] and f"{path}: 2 damaged" in caplog.text


@pytest.mark.parametrize("replaced", [False, True])
def test_a_journal_that_is_removed_or_replaced_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    path = tmp_path / "j"

    def sync(handle: int) -> None:
        pass

    async def run() -> None:
        journal = Journal.open(path)
        journal.append([done(call("1"))])
        path.rename(tmp_path / "elsewhere")
        if replaced:
            path.write_bytes(b"")
        with pytest.raises(CaiError, match=f"{path}: .*--resume"):
            for number in range(1000):
                await asyncio.sleep(0.01)  # It is noticed once the sync of an earlier call has ended.
                journal.append([done(call(str(number)))])
        await journal.close()

    monkeypatch.setattr(journal_module, "_FSYNC_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", sync)
    asyncio.run(run())


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


def test_a_line_that_the_system_writes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all = os.write

    def write_seven(handle: int, content: bytes) -> int:
        return write_all(handle, bytes(content[:7]))

    monkeypatch.setattr(os, "write", write_seven)
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
