# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The base class of all data formats, and the metadata keys that every format carries."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar, NamedTuple

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.records import Kind, Record, conversations_of
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row


class Format(ABC):
    """One format. For every record it can hold, ``read(write(record)) == record``.

    Reading validates: `read` raises RowError for everything that the trainers would stop at or silently misread.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for users: which trainers or data sets use it."""
    kind: ClassVar[Kind]
    """The kind of its records."""
    group: ClassVar[int] = 1
    """The number of consecutive rows that form one record."""
    lenient: ClassVar[bool] = False
    """True: invalid rows are skipped and counted, because published data has a few. False: they are errors."""
    suffix: ClassVar[str] = ".jsonl"
    """The file type that its trainer reads: ``.jsonl``, ``.csv`` or ``.parquet``. JSON lines may have any name."""
    columns: ClassVar[Mapping[str, Any]] = {}
    """The columns of CSV or parquet -> ``str``, ``float``, ``[type]`` or a mapping of names to types."""
    read_only: ClassVar[bool] = False
    """True: the format is published or raw data that no trainer reads, and `write` raises UsageError."""
    origin: ClassVar[str] = "published data, which no trainer here reads"
    """The source of read-only rows, for the message of `write`."""
    required_keys: ClassVar[frozenset[str] | None] = None
    """The keys by which `matches` recognizes a row. None: no row matches, unless the format has its own `matches`."""
    keys: ClassVar[frozenset[str] | None] = None
    """The keys that `read` uses, without those of `read_metadata`. None: unknown, any key may be used."""

    def known_keys(self, row: Row) -> frozenset[str] | None:
        """The keys of a row that this format reads, None if unknown."""
        return None if self.keys is None else self.keys | metadata_keys(self.kind)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The conversation that prompts are extracted from. Unlike `read`, it needs no reply.

        Raises:
            UsageError: A key is invalid.
            TranscriptError: The row has no prompt.
        """
        return conversations_of(self.read([row], template))[0]

    def matches(self, row: Row) -> bool:
        """True if a row looks like this format by its keys and their types."""
        return self.required_keys is not None and self.required_keys <= row.keys()

    @abstractmethod
    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """Read the record of `group` consecutive rows.

        Raises:
            UsageError: A key is invalid; RowError where the row and key are known.
        """

    def write(self, record: Any, template: NemoChatTemplate) -> tuple[Row, ...]:
        """Return the `group` rows of a record of this format's `kind`.

        Raises:
            UsageError: The format is read-only, or cannot hold something in the record.
        """
        raise UsageError(f"{self.name} is read-only: its rows are {self.origin}; choose another format")


class _Metadata(NamedTuple):
    keys: tuple[str, ...]
    """The first is written. The others are alternative names in published data."""
    read: Callable[[Row, str], Any]


_METADATA: Mapping[str, _Metadata] = {
    "dataset": _Metadata(("dataset",), row_values.optional_text),
    # TRL reads a row with the key "label" as unpaired preference data.
    "label": _Metadata(("prompt_label",), row_values.optional_text),
    "chosen_reward": _Metadata(("chosen_reward", "score_chosen", "chosen_score"), row_values.optional_number),
    "rejected_reward": _Metadata(("rejected_reward", "score_rejected", "rejected_score"), row_values.optional_number),
}
"""Attribute of a record -> its keys in a row. Trainers ignore these keys, so every format can carry them."""
_REWARDS = ("chosen_reward", "rejected_reward")


@cache
def _metadata_names(kind: Kind) -> tuple[str, ...]:
    names = {field.name for field in fields(kind)}
    return tuple(name for name in _METADATA if name in names)


@cache
def metadata_keys(kind: Kind) -> frozenset[str]:
    """The keys that `read_metadata` reads."""
    return frozenset(key for name in _metadata_names(kind) for key in _METADATA[name].keys)


def read_metadata(row: Row, kind: Kind) -> dict[str, Any]:
    """The attributes of a record that are not its texts: data set, label, rewards.

    Raises:
        RowError: A value is invalid, or only one of the two replies has a reward.
    """
    found: dict[str, Any] = {}
    for name in _metadata_names(kind):
        keys, read = _METADATA[name]
        found[name] = read(row, next((key for key in keys if key in row), keys[0]))
    if (found.get("chosen_reward") is None) != (found.get("rejected_reward") is None):
        # NeMo's DPO replaces a missing reward by 1 or 0, whatever the scale of the other one.
        key = next(key for name in _REWARDS for key in _METADATA[name].keys if row.get(key) is not None)
        raise row_values.RowError(key, f"only one reply has a reward; give both, or --ignore-columns {key}")
    return found


def add_metadata(row: Row, record: Record, *, skip: Collection[str] = ()) -> Row:
    """Add the record's metadata to the row, except for the attributes in `skip`."""
    for name in _metadata_names(type(record)):
        if name not in skip and (value := getattr(record, name)) is not None:
            row[_METADATA[name].keys[0]] = value
    return row
