# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The shard of a task, the records of a shard, and journals that are read together."""

import asyncio
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.journal import Journal, JournalInUse
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.engine.shards import Shard, find_journals, shard_count
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import CallFailed, Completion, Request, Sampling


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
