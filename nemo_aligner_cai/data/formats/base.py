# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a format of training data is: how a record stands in one or more rows, and how rows are told apart."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, NamedTuple

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.records import Kind, Record, conversations_of
from nemo_aligner_cai.files import Row


class Format(ABC):
    """One format. For every record it can hold, ``read(write(record)) == record``.

    Reading is validating: `read` raises RowError for whatever the trainers would stumble over or silently misread.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for users: who reads it."""
    kind: ClassVar[Kind]
    """What its records are."""
    group: ClassVar[int] = 1
    """Consecutive rows that make one record."""
    lenient: ClassVar[bool] = False
    """Whether rows that cannot be understood are counted and left out, as in published data that has a few of them,
    and not refused."""
    suffix: ClassVar[str] = ".jsonl"
    """What its trainer's files are: ``.jsonl``, ``.csv`` or ``.parquet``. JSON lines may have any name."""
    columns: ClassVar[Mapping[str, Any]] = {}
    """Of a table, the columns and their types: ``str``, ``float``, ``[type]`` or a mapping of names to types."""
    read_only: ClassVar[bool] = False
    """True for published or raw data, which no trainer reads: `write` raises UsageError."""
    keys: ClassVar[frozenset[str] | None] = None
    """The keys that `read` uses, apart from those of `beside`. None: any, for a format that does not say."""

    def known_keys(self, row: Row) -> frozenset[str] | None:
        """The keys of a row that this format reads; None where it does not say."""
        return None if self.keys is None else self.keys | beside_keys(self.kind)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The conversation in a row that prompts are taken from; unlike `read`, it needs no reply.

        Raises:
            UsageError: a key is wrong.
            TranscriptError: the row has no prompt.
        """
        return conversations_of(self.read([row], template))[0]

    @abstractmethod
    def matches(self, row: Row) -> bool:
        """Whether a row looks like this format, by its keys and their types."""

    @abstractmethod
    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """The record of `group` consecutive rows.

        Raises:
            UsageError: a key is wrong; RowError where the row and key are known.
        """

    @abstractmethod
    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """The `group` rows of a record, which is of this format's `kind`.

        Raises:
            UsageError: `read` would not give the record back, for want of a place for something in it.
        """


class _Beside(NamedTuple):
    keys: tuple[str, ...]
    """The first is the one that is written; the others are names that other people use."""
    read: Callable[[Row, str], Any]


_BESIDE: Mapping[str, _Beside] = {
    "dataset": _Beside(("dataset",), take.optional_text),
    # TRL takes a row with the key "label" for one of a reply.
    "label": _Beside(("prompt_label",), take.optional_text),
    "chosen_reward": _Beside(("chosen_reward", "score_chosen", "chosen_score"), take.optional_number),
    "rejected_reward": _Beside(("rejected_reward", "score_rejected", "rejected_score"), take.optional_number),
}
"""By attribute of a record, the key of a row."""


_REWARDS = ("chosen_reward", "rejected_reward")


@cache
def _names_beside(kind: Kind) -> tuple[str, ...]:
    names = {field.name for field in fields(kind)}
    return tuple(name for name in _BESIDE if name in names)


@cache
def beside_keys(kind: Kind) -> frozenset[str]:
    """The keys that `beside` reads."""
    return frozenset(key for name in _names_beside(kind) for key in _BESIDE[name].keys)


def beside(row: Row, kind: Kind) -> dict[str, Any]:
    """What a row says beside its texts, of what a record of this kind can hold: origin, label, rewards.

    Every format has room for it, as keys that its trainer does not look at.

    Raises:
        RowError: one of them is wrong, or there is a reward for one of two replies.
    """
    found = {name: _read_beside(row, _BESIDE[name]) for name in _names_beside(kind)}
    if (found.get("chosen_reward") is None) != (found.get("rejected_reward") is None):
        # NeMo's DPO puts 1 and 0 for a reward that is missing, whatever the scale of the other one is.
        key = next(key for name in _REWARDS for key in _BESIDE[name].keys if row.get(key) is not None)
        raise take.RowError(key, f"is the reward of one reply alone; give both, or --ignore-columns {key}")
    return found


def _read_beside(row: Row, spec: _Beside) -> Any:
    key = next((key for key in spec.keys if key in row), spec.keys[0])
    return spec.read(row, key)


def with_beside(row: Row, record: Record, *, but: Collection[str] = ()) -> Row:
    """The row with what the record knows beside its texts, `but` for what the row holds already."""
    for name in _names_beside(type(record)):
        if name not in but and (value := getattr(record, name)) is not None:
            row[_BESIDE[name].keys[0]] = value
    return row
