# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""Engine and journal against a reference, through any sequence of runs, kills, full disks, damage, changes and merges.

Each row is the one that the reference computes, each prompt gives a row or a counted reason, in input order, and the
model is asked exactly for the calls that no journal has. A long search: ``pytest --hypothesis-profile=long`` and this
file's path.
"""

import asyncio
import errno
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from nemo_aligner_cai.engine.engine import Engine, Outcome
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.models import ServerRefused
from tests.unit.journal_model import START, Model, Note, Row, Settings, chain, reference, stored_in

PROMPTS = tuple(f"prompt {number}" for number in range(6))
MAIN, SHARDS = "whole", ("shard 0", "shard 1")
NAMES = st.sampled_from((MAIN, *SHARDS))
SETTINGS = st.builds(
    Settings,
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=len(PROMPTS), unique=True).map(tuple),
    seed=st.sampled_from((1, 1, 1, 2)),
    principle=st.sampled_from(("a", "a", "b")),
    greedy=st.sampled_from((False, False, True)),
    fails=st.frozensets(st.tuples(st.sampled_from(PROMPTS), st.integers(0, 2)), max_size=3),
)


class Disk:
    """Stands for the system calls by which the journal writes."""

    def __init__(self, room: int | None = None, *, recovers: bool = False, syncs: bool = True) -> None:
        """Create a disk.

        Args:
            room: the space left in bytes; None without limit.
            recovers: True if there is space again after the first write that finds none.
            syncs: False if the first fsync fails.
        """
        self._room, self._recovers, self._syncs, self._write = room, recovers, syncs, os.write

    def write(self, handle: int, content: bytes) -> int:
        if self._room is None:
            return self._write(handle, content)
        if not self._room:
            self._room = None if self._recovers else 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(handle, bytes(content)[: self._room])
        self._room -= written
        return written

    def fsync(self, handle: int) -> None:
        if not self._syncs:
            self._syncs = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Runs(RuleBasedStateMachine):
    """Runs on three journals: of the whole input, and of each of two shards."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.journal.jsonl"

    def existing(self) -> list[Path]:
        return [path for path in map(self.path, (MAIN, *SHARDS)) if path.exists()]

    @rule(name=NAMES, wanted=SETTINGS)
    def finish(self, name: str, wanted: Settings) -> None:
        self.start(name, wanted)

    @rule(wanted=SETTINGS)
    def merge(self, wanted: Settings) -> None:
        self.start(MAIN, wanted, sources=[path for path in self.existing() if path != self.path(MAIN)])

    @rule(name=NAMES, wanted=SETTINGS, calls=st.integers(0, 20), back=st.integers(0, 3000))
    def kill(self, name: str, wanted: Settings, calls: int, back: int) -> None:
        """After so many calls, with so many bytes of the last lines not on the disk."""
        path = self.path(name)
        before = path.stat().st_size if path.exists() else 0
        self.start(name, wanted, calls=calls)
        size = path.stat().st_size
        os.truncate(path, max(min(before, size), size - back))

    @rule(name=NAMES, wanted=SETTINGS, room=st.integers(0, 4000), recovers=st.booleans())
    def fill_the_disk(self, name: str, wanted: Settings, room: int, recovers: bool) -> None:
        self.start(name, wanted, disk=Disk(room, recovers=recovers))

    @rule(name=NAMES, wanted=SETTINGS)
    def fail_to_sync(self, name: str, wanted: Settings) -> None:
        self.start(name, wanted, disk=Disk(syncs=False))

    @precondition(lambda self: self.existing())
    @rule(choice=st.integers(0, 2), place=st.floats(0, 1, exclude_max=True), how=st.sampled_from((b"\0", b"\n")))
    def damage(self, choice: int, place: float, how: bytes) -> None:
        """Spoil or break a line at a byte, or join two, but never a journal's beginning, by which it is known."""
        paths = self.existing()
        path = paths[choice % len(paths)]
        content = path.read_bytes()
        at = len(START) + int(place * (len(content) - len(START)))
        if at < len(content):
            path.write_bytes(content[:at] + how + content[at + 1 :])

    @precondition(lambda self: self.existing())
    @rule(choice=st.integers(0, 2), wanted=SETTINGS)
    def spoil_the_beginning(self, choice: int, wanted: Settings) -> None:
        """A file that is not a journal is refused and stays as it is."""
        paths = self.existing()
        path = paths[choice % len(paths)]
        content = path.read_bytes()
        if not content:
            return
        path.write_bytes(b"x" + content[1:])
        try:
            Journal.open(path, resume=True)
        except UsageError:
            assert path.read_bytes() == b"x" + content[1:]
            path.write_bytes(content)
        else:
            raise AssertionError("not a journal")

    @rule(wanted=SETTINGS)
    def finish_without_a_server(self, wanted: Settings) -> None:
        """Prompts whose calls are all in journals give their rows; the others are left out as faults."""
        paths = self.existing()
        model, outcomes = Model(wanted), list[Outcome[Note]]()

        async def run() -> None:
            journal = Journal.open_to_read(*paths)
            engine = Engine(seed=wanted.seed, journal=journal, no_calls=True)
            try:
                await engine.run(map(Note, wanted.prompts), chain(model, wanted), outcomes.append)
            finally:
                await journal.close()

        asyncio.run(run())
        assert not model.requests and len(outcomes) == len(wanted.prompts)
        for prompt, outcome in zip(wanted.prompts, outcomes, strict=True):
            rows, calls = reference(replace(wanted, prompts=(prompt,), fails=frozenset()), stored_in(*paths))
            if calls:
                assert outcome.skipped is not None and outcome.skipped.fault
            else:
                assert [row_of(outcome)] == rows

    def start(
        self,
        name: str,
        wanted: Settings,
        *,
        sources: list[Path] | None = None,
        calls: int | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Start or resume a run, and compare it with the reference; `calls` and `disk` may end it early."""
        path, sources = self.path(name), sources or []
        if name in SHARDS:
            selected = Shard(SHARDS.index(name), len(SHARDS)).select(wanted.prompts, 1)
            wanted = replace(wanted, prompts=tuple(selected))
        rows, due = reference(wanted, stored_in(path, *sources))
        model, outcomes = Model(wanted, calls), list[Outcome[Note]]()
        engine = self._run(path, sources, wanted, model, outcomes, disk or Disk())
        made = [row_of(outcome) for outcome in outcomes]
        if engine is not None:
            assert made == rows
            assert model.asked == due
            counted = Counter(outcome.skipped.reason for outcome in outcomes if outcome.skipped)
            assert len(wanted.prompts) == sum(not outcome.skipped for outcome in outcomes) + counted.total()
            again, calls_again = reference(wanted, stored_in(path, *sources))
            assert again == rows, "what the run has made is found by the next one"
            assert calls_again.total() == engine.stats.failed, "which only makes the calls again that have failed"
        else:
            assert calls is not None or disk is not None
            assert made == rows[: len(made)]
            assert model.asked <= due

    def _run(
        self,
        path: Path,
        sources: list[Path],
        wanted: Settings,
        model: Model,
        outcomes: list[Outcome[Note]],
        disk: Disk,
    ) -> Engine | None:
        """Return the engine of a run that came to its end, else None."""

        async def run() -> Engine:
            journal = Journal.open(path, resume=True, sources=sources)
            try:
                engine = Engine(seed=wanted.seed, journal=journal)
                await engine.run(map(Note, wanted.prompts), chain(model, wanted), outcomes.append)
            finally:
                await journal.close()
            return engine

        with mock.patch.object(os, "write", disk.write), mock.patch.object(os, "fsync", disk.fsync):
            try:
                return asyncio.run(run())
            except (CaiError, ServerRefused) as error:
                assert not isinstance(error, UsageError)
                return None


def row_of(outcome: Outcome[Note]) -> Row:
    return outcome.record.id, outcome.record.texts, outcome.skipped.reason if outcome.skipped else None


TestRuns = Runs.TestCase
# The default profile's hundred examples of fifty steps are for a long search.
TestRuns.settings = (
    settings(max_examples=30, stateful_step_count=20) if settings.default.max_examples == 100 else settings.default
)
