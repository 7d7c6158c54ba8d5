# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The rows that chains are made from, as far as the report reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, ValidationError

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import Row, content_hash, read_jsonl
from nemo_aligner_cai.sections import LenientModel, first_problem

R = TypeVar("R", bound=LenientModel)


def _read_messages(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    try:
        messages = Conversation.from_messages(rows).to_messages()
    except UsageError as error:
        raise ValueError(str(error)) from error
    if not messages:
        raise ValueError("has no message")
    return tuple(messages)


Messages = Annotated[tuple[Row, ...], AfterValidator(_read_messages)]
"""At least one message, each with "role" and "content"."""


class Round(LenientModel):
    """One critique and revision."""

    principle: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


class RevisionRow(LenientModel):
    """A row of revisions.jsonl; see `stages.revisions`."""

    id: str
    prompt: Messages
    response: str
    revision: str
    principle: str
    rounds: tuple[Round, ...]

    @property
    def changed(self) -> bool:
        """False if the last revision is the answer, except for case and spaces."""
        return self.response.casefold().split() != self.revision.casefold().split()


class ReplyRow(LenientModel):
    """A row of a measured file; see `tiny.measure`."""

    messages: Messages
    reply: str
    outcome: str
    harmful: bool

    @property
    def id(self) -> str:
        """The id of its prompt."""
        return content_hash(self.messages)


class DroppedRow(LenientModel):
    """A row of a left_out.jsonl: a prompt that gave no row."""

    id: str
    prompt: Messages
    reason: str
    detail: str


def read_rows(path: Path, schema: type[R], check: Callable[[R], str | None] | None = None) -> Iterator[R]:
    """Read a file's rows.

    Args:
        path: the file.
        schema: the rows'.
        check: returns what is wrong with a row, such as a name that the other files do not have; None if nothing is.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row does not have the schema, or fails the check.
    """
    for number, row in read_jsonl(path):
        try:
            read = schema.model_validate(row)
        except ValidationError as error:
            reason = f"{first_problem(error)}; the file was not written by `cai run` or `cai evaluate`"
            raise FormatError.at(path, number, reason) from error
        if check is not None and (problem := check(read)) is not None:
            raise FormatError.at(path, number, problem)
        yield read
