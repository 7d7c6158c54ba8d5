# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Prompts from files of any known format, one row in memory at a time.

Input:  {"transcript": "\n\nHuman: How do I ...\n\nAssistant: ..."}     Anthropic's red-team attempts
        {"chosen": "\n\nHuman: ...\n\nAssistant: ...", "rejected": ...}  Anthropic HH
        {"prompt": "How do I ..."}, {"messages": [...]}, or a text in a list, a line of .txt, a row of .csv
        every other format of `data.formats.all_formats`; a file may mix formats
Output: Prompt(id="9f86d081884c7d65", conversation=Conversation((Message(Role.USER, "How do I ..."),)))
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, Role, TokenPolicy, guard
from nemo_aligner_cai.data.formats.all_formats import all_formats, matching, no_format
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice, carry
from nemo_aligner_cai.data.records import PromptOnly
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts
from nemo_aligner_cai.files.compact_sets import CompactSet
from nemo_aligner_cai.files.sources import DataFile, data_files, read_rows
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.prompts.transcript import TranscriptError

Turns = Literal["first", "all"]


def read_prompts(
    path: PathLike,
    *,
    counts: RowCounts,
    turns: Turns = "first",
    limit: int | None = None,
    column: str | None = None,
    template: ChatTemplate = NEMO_CHAT,
    system_message: str = "",
    replies: bool = True,
) -> Iterator[Prompt]:
    """Read prompts in file order, without duplicates.

    Args:
        path: A file, a folder or a data set on the hub, see `nemo_aligner_cai.files.sources`; its `data_files`
            chooses among several splits.
        counts: Receives the rows read, the prompts yielded as written, and the rows skipped by reason.
        turns: "first" for the first user turn, "all" for the conversation up to its last user turn.
        limit: The maximum number of prompts. Later rows are not read.
        column: The prompt column, None to detect it.
        template: The chat template whose tokens are escaped in prompts.
        system_message: The system message of prompts that have none.
        replies: False to skip prompts with earlier replies of the assistant.

    Raises:
        UsageError: The path cannot be read. Raised at the call.
        FormatError: A row is of no known format, or a prompt cannot hold it.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the number of prompts must be positive, it is {limit}")
    columns = ColumnChoice(prompt=column)
    reader = PromptReader(*all_formats(), columns, turns, template, system_message, counts, replies)
    return _read(data_files(path), reader, limit)


def _read(files: list[DataFile], reader: "PromptReader", limit: int | None) -> Iterator[Prompt]:
    seen, counts = CompactSet(), reader.counts
    prompts = 0
    for path in files:
        for line, row in read_rows(path):
            if prompts == limit:
                counts.stopped_at = limit
                return
            counts.rows_in += 1
            try:
                prompt = reader.prompt(row)
            except TranscriptError as reason:
                counts.skip(str(reason))
                continue
            except UsageError as error:
                raise FormatError.at(path, line, str(error)) from error
            if not seen.add(int(prompt.id, 16)):
                counts.skip("duplicate prompt")
                continue
            prompts += 1
            counts.written += 1
            yield prompt


@dataclass(frozen=True)
class PromptReader:
    """Reads the prompt of single rows; the arguments of `read_prompts` describe the attributes."""

    formats: Mapping[str, Format]
    broken_formats: Mapping[str, UsageError]
    columns: ColumnChoice
    turns: Turns
    template: ChatTemplate
    system: str
    counts: RowCounts
    replies: bool = True

    def prompt(self, row: Row) -> Prompt:
        """Read the prompt of a row, with the template's tokens escaped."""
        row, unused = self.columns.apply(row)
        self.counts.unused |= unused
        format = matching(row, self.formats)
        if format is None:
            raise UsageError(no_format(row, self.broken_formats))
        conversation = format.read_prompt(row, NEMO_CHAT)
        if (known := format.known_keys(row)) is not None:
            carried = carry(PromptOnly(conversation), [row], known, unused=self.counts.unused)
            assert isinstance(carried, PromptOnly), "a record keeps its kind"
            conversation = carried.prompt
        prompt = _select_turns(conversation, self.turns).with_system(self.system)
        if not self.replies and any(turn.role is Role.ASSISTANT for turn in prompt.turns):
            raise TranscriptError("earlier replies, which SFT would learn, too")
        safe = guard(prompt, self.template, policy=TokenPolicy.ESCAPE, counts=self.counts)
        assert safe is not None, "this policy does not drop conversations"
        return Prompt.of(safe)


def _select_turns(conversation: Conversation, turns: Turns) -> Conversation:
    messages = conversation.messages
    users = [position for position, message in enumerate(messages) if message.role is Role.USER]
    if not users:
        raise TranscriptError("no user turn")
    last = users[0] if turns == "first" else users[-1]
    prompt = messages[: last + 1]
    if turns == "first":
        prompt = tuple(message for message in prompt if message.role is not Role.ASSISTANT)
    if not prompt[-1].content.strip():
        raise TranscriptError("empty prompt")
    return Conversation(prompt)
