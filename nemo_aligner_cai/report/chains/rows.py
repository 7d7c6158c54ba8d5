# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The rows that chains are made from, as far as the report reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from nemo_aligner_cai.errors import FormatError
from nemo_aligner_cai.files import Row, content_hash, read_jsonl
from nemo_aligner_cai.sections import LenientModel, first_problem

R = TypeVar("R", bound=LenientModel)


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
    prompt: tuple[Row, ...]
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

    messages: tuple[Row, ...]
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
    prompt: tuple[Row, ...]
    reason: str
    detail: str


def read_rows(path: Path, schema: type[R]) -> Iterator[R]:
    """Read a file's rows.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row does not have the schema.
    """
    for number, row in read_jsonl(path):
        try:
            yield schema.model_validate(row)
        except ValidationError as error:
            reason = f"{first_problem(error)}; the file was not written by `cai run`"
            raise FormatError.at(path, number, reason) from error
