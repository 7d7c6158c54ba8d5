# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Declarative formats: a list of fields maps each key of a row to a part of the record.

    class TrlUnpaired(FieldFormat):
        kind = Rated
        fields = (Field("prompt", PROMPT), Field("completion", REPLY, "reply"), Field("label", BOOLEAN, "good"))

A part is an attribute of the record, unless the format overrides `FieldFormat.parts` and `FieldFormat.record`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.base import Format, add_metadata, metadata_keys, read_metadata
from nemo_aligner_cai.data.records import Comparison, Record
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import TranscriptError, is_transcript, write_transcript


@dataclass(frozen=True)
class Codec:
    """Reads and writes the JSON value of one part of a record."""

    type: type
    """The value's type in a row; `object` if the key may be missing."""
    read: Callable[[Row, str], Any]
    """Raises RowError for an invalid value."""
    write: Callable[[Any], Any]
    """Raises UsageError for a part that the value cannot hold."""


@dataclass(frozen=True)
class Field:
    """A key of a row, its codec, and the part of the record that it holds, by default the part named like the key."""

    key: str
    codec: Codec
    part: str = ""

    @property
    def name(self) -> str:
        """The part's name."""
        return self.part or self.key


class FieldFormat(Format):
    """A format that is described by its `fields`."""

    fields: ClassVar[Sequence[Field]]
    prompt_part: ClassVar[str] = "prompt"
    """The part that prompts are extracted from."""

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(field.key for field in self.fields) | metadata_keys(self.kind)

    def known_keys(self, row: Row) -> frozenset[str]:
        return self._known

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        field = next(field for field in self.fields if field.name == self.prompt_part)
        value: object = row.get(field.key)
        if value is None:
            raise TranscriptError("empty prompt")
        if isinstance(value, list):
            return row_values.messages(row, field.key)
        prompt: Conversation = field.codec.read(row, field.key)
        return Conversation.of_user(prompt.messages[0].content.strip()) if len(prompt.messages) == 1 else prompt

    def matches(self, row: Row) -> bool:
        return all(isinstance(row.get(field.key), field.codec.type) for field in self.fields)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row = rows[0]
        parts = {field.name: field.codec.read(row, field.key) for field in self.fields}
        record = self.record({**read_metadata(row, self.kind), **parts})
        if isinstance(record, Comparison):
            row_values.require_different(record.chosen, record.rejected, self.fields[-1].key)
        return record

    def write(self, record: Any, template: NemoChatTemplate) -> tuple[Row, ...]:
        try:
            parts = self.parts(record)
            values = {field.key: field.codec.write(parts[field.name]) for field in self.fields}
        except UsageError as error:
            raise UsageError(f"{self.name} cannot hold this record: {error}") from error
        row = {key: value for key, value in values.items() if value is not None}
        return (add_metadata(row, record, skip={field.name for field in self.fields}),)

    def record(self, parts: dict[str, Any]) -> Record:
        """Build the record from its parts and metadata."""
        return self.kind(**parts)

    def parts(self, record: Any) -> Mapping[str, Any]:
        """The parts of a record of this format's `kind`."""
        return vars(cast(object, record))


def _identity(value: Any) -> Any:
    return value


def _one_user_turn(prompt: Conversation) -> str:
    if len(prompt.messages) != 1:
        raise UsageError("its prompt has a system message or more than one user turn")
    if is_transcript(prompt.messages[0].content):
        raise UsageError("its prompt would be read as a transcript")
    return prompt.messages[0].content


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


TEXT = Codec(str, row_values.text, _identity)
OPTIONAL_TEXT = Codec(object, row_values.optional_text, _identity)
BOOLEAN = Codec(bool, row_values.boolean, _identity)
MESSAGES = Codec(list, row_values.messages, Conversation.to_messages)
"""A conversation as ``[{"role": "user", "content": ...}, ...]``."""
PROMPT = Codec(list, row_values.prompt, Conversation.to_messages)
"""`MESSAGES` that end with a user turn."""
REPLY = Codec(list, row_values.single_reply, _assistant)
"""`MESSAGES` with one assistant turn."""
QUESTION = Codec(str, row_values.question, _one_user_turn)
"""The text of a single user turn. Transcripts can be read, but are not written."""
TRANSCRIPT = Codec(str, row_values.transcript, write_transcript)
