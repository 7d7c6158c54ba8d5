# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Shards: one of N runs that share the prompts, each with a journal of its own; a last run merges the journals.

    prompts 0 1 2 3 4 5 6 7   --shard 0/3: 0 3 6   --shard 1/3: 1 4 7   --shard 2/3: 2 5
    cai_revisions.shards/0-of-3.journal.jsonl, 1-of-3.journal.jsonl, 2-of-3.journal.jsonl

Ids, seeds and journal keys depend on a prompt's content, never on its shard, so any cut makes the same calls, and the
journals of one cut are reused by another. Where a server has one seed for a whole batch, the replies depend on the
batch: there, whole blocks of prompts are dealt out, and the batches are those of a run without shards.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TypeVar

from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import PathLike

R = TypeVar("R")
JOURNAL_SUFFIX, SHARDS_SUFFIX = ".journal.jsonl", ".shards"
_NAME = re.compile(r"\d+-of-(\d+)" + re.escape(JOURNAL_SUFFIX))
_SLURM = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` parts of a run's prompts; `index` counts from 0, as Slurm's array tasks do."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raises UsageError for a shard that does not exist."""
        if not 0 <= self.index < self.count:
            raise UsageError(f"--shard {self}: K counts from 0 to N-1, so the shards are 0/{self.count} and following")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse ``K/N``; raises UsageError."""
        parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if parts is None or parts[2].strip("0") == "":
            raise UsageError(f"--shard {text!r}: needs K/N, such as 0/64 to 63/64")
        return cls(int(parts[1]), int(parts[2]))

    @classmethod
    def of_slurm_task(cls, environment: Mapping[str, str]) -> "Shard | None":
        """Return the shard of a task of a Slurm array, or None outside of one.

        Raises:
            UsageError: the array's ids have gaps, as in ``--array=3,7``, which repeats tasks of a larger array.
        """
        if f"{_SLURM}ID" not in environment:
            return None
        values = {name: environment.get(_SLURM + name, "") for name in ("ID", "COUNT", "MIN", "MAX")}
        if not all(value.isdecimal() for value in values.values()):
            raise UsageError(f"{_SLURM}ID is set, but not {_SLURM}COUNT, MIN and MAX; give --shard K/N or --shard all")
        task, count, first, last = (int(value) for value in values.values())
        if last - first + 1 != count:
            raise UsageError(
                f"the ids of this Slurm array have gaps ({count} tasks from {first} to {last}), so they do not tell "
                f"the shard; give --shard $SLURM_ARRAY_TASK_ID/N with the number of shards, or --shard all"
            )
        return cls(task - first, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def select(self, records: Iterable[R], block: int) -> Iterator[R]:
        """Yield the shard's records; `block` adjacent records stay together."""
        for position, record in enumerate(records):
            if position // block % self.count == self.index:
                yield record

    def size(self, records: int, block: int) -> int:
        """Return the number of the shard's records among so many."""
        rounds, rest = divmod(records, block * self.count)
        return rounds * block + min(block, max(0, rest - self.index * block))

    def journal(self, whole: Path) -> Path:
        """Return the path of the shard's journal; `whole` is that of a run without shards."""
        name = f"{self.index:0{len(str(self.count - 1))}}-of-{self.count}{JOURNAL_SUFFIX}"
        return shards_folder(whole) / name


def shards_folder(whole: Path) -> Path:
    """Return the folder of the shards' journals; `whole` is the journal of a run without shards."""
    return whole.with_name(f"{whole.name.removesuffix(JOURNAL_SUFFIX)}{SHARDS_SUFFIX}")


def find_journals(named: Sequence[PathLike]) -> list[Path]:
    """Return the journals of ``--journal-from`` without duplicates: files, all journals of folders, and patterns.

    Raises:
        UsageError: a value names no journal.
    """
    found: dict[Path, Path] = {}
    for name in named:
        path = Path(name)
        if path.is_dir():
            files = sorted(path.glob(f"*{JOURNAL_SUFFIX}"))
        elif not path.exists() and has_magic(str(path)):
            files = sorted(map(Path, glob(str(path))))
        else:
            files = [path]
        if not any(file.is_file() for file in files):
            raise UsageError(f"--journal-from {path}: no journal; a folder needs files that end in {JOURNAL_SUFFIX}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def shard_count(journals: Iterable[Path]) -> int:
    """Return the N of the coarsest cut that journals are named for; 1 if none is."""
    return min((int(name[1]) for path in journals if (name := _NAME.fullmatch(path.name))), default=1)


class CallsMissing(CaiError):
    """A run without a server (``--no-calls``) needs calls that no journal has; it has written nothing.

    Attributes:
        prompts: shard -> number of prompts that are not finished.
        calls: shard -> number of calls that are known to be missing; calls that depend on them are not counted.
    """

    def __init__(self, prompts: Mapping[Shard, int], calls: Mapping[Shard, int]) -> None:
        shards = ", ".join(map(str, prompts)) if len(prompts) <= 8 else f"{len(prompts)} shards"
        super().__init__(
            f"{sum(prompts.values())} prompts need at least {sum(calls.values())} calls that are in no journal "
            f"(shards: {shards}); nothing was written. Make them without --no-calls, or shard by shard"
        )
        self.prompts, self.calls = prompts, calls


class MissingCallCounter:
    """Counts the unfinished prompts of a run without a server by shard."""

    def __init__(self, journals: Iterable[Path], block: int) -> None:
        self._count, self._block = shard_count(journals), block
        self._prompts, self._calls = Counter[int](), Counter[int]()

    def add(self, position: int, calls: int) -> None:
        """Count the missing calls of the prompt at a position in the input."""
        shard = position // self._block % self._count
        self._prompts[shard] += 1
        self._calls[shard] += calls

    def check(self) -> None:
        """Raises CallsMissing if a call is missing."""
        if self._prompts:
            shards = {index: Shard(index, self._count) for index in sorted(self._prompts)}
            raise CallsMissing(
                {shard: self._prompts[index] for index, shard in shards.items()},
                {shard: self._calls[index] for index, shard in shards.items()},
            )
