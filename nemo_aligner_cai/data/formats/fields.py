# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Formats that are a table: which key of a row holds which part of a record, and as what.

    class TrlUnpaired(FieldFormat):
        kind = Rated
        fields = (Field("prompt", PROMPT), Field("completion", REPLY, "reply"), Field("label", TRUTH, "good"))

A part is an attribute of the record, unless the format has a view of its own (`FieldFormat.parts`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.base import Format, beside, beside_keys, with_beside
from nemo_aligner_cai.data.records import Comparison, Record
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import TranscriptError, is_transcript, write_transcript


@dataclass(frozen=True)
class Codec:
    """How a part of a record stands in JSON."""

    type: type
    """What it is there."""
    read: Callable[[Row, str], Any]
    """Raises RowError for what cannot be read."""
    write: Callable[[Any], Any]
    """Raises UsageError for what cannot be written."""


@dataclass(frozen=True)
class Field:
    """A key of a row, how its value is to be read, and the part of the record that it holds, if not of that name."""

    key: str
    codec: Codec
    part: str = ""

    @property
    def name(self) -> str:
        """The part."""
        return self.part or self.key


class FieldFormat(Format):
    """A format whose rows have `fields`."""

    fields: ClassVar[Sequence[Field]]
    asked: ClassVar[str] = "prompt"
    """The part that prompts are taken from."""

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(field.key for field in self.fields) | beside_keys(self.kind)

    def known_keys(self, row: Row) -> frozenset[str]:
        """The keys of the fields, and those of `beside`."""
        return self._known

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """What the row's prompt says, whatever else it says."""
        field = next(field for field in self.fields if field.name == self.asked)
        value: object = row.get(field.key)
        if value is None:
            raise TranscriptError("empty prompt")
        if isinstance(value, list):
            return take.messages(row, field.key)
        asked: Conversation = field.codec.read(row, field.key)
        return Conversation.of_user(asked.messages[0].content.strip()) if len(asked.messages) == 1 else asked

    def matches(self, row: Row) -> bool:
        """By the keys and the types of their values."""
        return all(isinstance(row.get(field.key), field.codec.type) for field in self.fields)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """The record of one row."""
        row = rows[0]
        parts = {field.name: field.codec.read(row, field.key) for field in self.fields}
        record = self.record({**beside(row, self.kind), **parts})
        if isinstance(record, Comparison):
            take.different(record.chosen, record.rejected, self.fields[-1].key)
        return record

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        try:
            parts = self.parts(record)
            values = {field.key: field.codec.write(parts[field.name]) for field in self.fields}
        except UsageError as error:
            raise UsageError(f"{self.name} cannot hold this record: {error}") from error
        row = {key: value for key, value in values.items() if value is not None}
        return (with_beside(row, record, but={field.name for field in self.fields}),)

    def record(self, parts: dict[str, Any]) -> Record:
        """The record of its parts, and of what stands beside them."""
        return self.kind(**parts)

    def parts(self, record: Record) -> Mapping[str, Any]:
        """The parts of a record."""
        return vars(record)


def _as_it_is(value: Any) -> Any:
    return value


def _one_user_turn(prompt: Conversation) -> str:
    if len(prompt.messages) != 1:
        raise UsageError("its prompt is more than one user turn")
    if is_transcript(prompt.messages[0].content):
        raise UsageError("its prompt would be read as a transcript")
    return prompt.messages[0].content


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


TEXT = Codec(str, take.text, _as_it_is)
OPTIONAL_TEXT = Codec(object, take.optional_text, _as_it_is)
TRUTH = Codec(bool, take.truth, _as_it_is)
MESSAGES = Codec(list, take.messages, Conversation.to_messages)
"""A conversation as ``[{"role": "user", "content": ...}, ...]``."""
PROMPT = Codec(list, take.prompt, Conversation.to_messages)
"""Such a one that ends with a user turn."""
REPLY = Codec(list, take.single_reply, _assistant)
"""A list of one assistant message."""
QUESTION = Codec(str, take.question, _one_user_turn)
"""The text of a prompt's one user turn; a transcript is read too."""
TRANSCRIPT = Codec(str, take.transcript, write_transcript)
