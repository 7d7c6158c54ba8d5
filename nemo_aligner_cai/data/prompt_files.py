# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Prompt files of any known format -> Prompt(id, conversation), one row in memory at a time.

Input:  {"transcript": "\n\nHuman: How do I ...\n\nAssistant: ..."}     Anthropic's red-team attempts
        {"chosen": "\n\nHuman: ...\n\nAssistant: ...", "rejected": ...}  Anthropic HH
        {"prompt": "How do I ..."}, {"messages": [...]}, or a text in a list, a line of .txt, a row of .csv
        every other format of `data.format_registry`, row by row: a file may mix them
Output: Prompt(id="9f86d081884c7d65", conversation=Conversation((Message(Role.USER, "How do I ..."),)))
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, Role, TokenPolicy, guard
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.columns import ColumnChoice, carry
from nemo_aligner_cai.data.formats.table import all_formats, matching, no_format
from nemo_aligner_cai.data.records import PromptOnly
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts
from nemo_aligner_cai.files.compact import CompactSet
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
    split: str = "train",
    column: str | None = None,
    template: ChatTemplate = NEMO_CHAT,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    system_message: str = "",
) -> Iterator[Prompt]:
    """Read prompts in file order, each only once.

    Args:
        path: a file, a folder, or a data set on the hub, see `nemo_aligner_cai.files.sources`.
        counts: receives the rows read, the prompts yielded as written, and the rows left out by reason.
        turns: "first" takes the first user turn; "all" takes the conversation up to its last user turn.
        limit: stop after so many prompts; the rows after are not read.
        split: of a folder or data set that has splits, the one to read.
        column: the one that holds the prompts; None to tell by the names.
        template: whose tokens must not stand in a prompt.
        policy: what to do with a prompt that contains them.
        system_message: of the prompts that have none.

    Raises:
        UsageError: the path cannot be read (at the call), or `policy` is to refuse.
        FormatError: a row is of no known format, or says what a prompt cannot hold.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the number of prompts must be positive, it is {limit}")
    reader = _Reader(*all_formats(), ColumnChoice(prompt=column), turns, template, policy, system_message, counts)
    return _read(data_files(path, split), reader, limit)


def _read(files: list[DataFile], reader: "_Reader", limit: int | None) -> Iterator[Prompt]:
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
            if prompt is None:
                continue
            if not seen.add(int(prompt.id, 16)):
                counts.skip("duplicate prompt")
                continue
            prompts += 1
            counts.written += 1
            yield prompt


@dataclass(frozen=True)
class _Reader:
    formats: Mapping[str, Format]
    broken: Mapping[str, UsageError]
    columns: ColumnChoice
    turns: Turns
    template: ChatTemplate
    policy: TokenPolicy
    system: str
    counts: RowCounts

    def prompt(self, row: Row) -> Prompt | None:
        """The prompt of a row; None where the policy leaves it out."""
        row, unused = self.columns.apply(row)
        self.counts.unused |= unused
        format = matching(row, self.formats)
        if format is None:
            raise UsageError(no_format(row, self.broken))
        asked = format.asks(row, NEMO_CHAT)
        if (known := format.known_keys(row)) is not None:
            carried = carry(PromptOnly(asked), [row], known, unused=self.counts.unused)
            assert isinstance(carried, PromptOnly), "a record keeps its kind"
            asked = carried.prompt
        whole = _prompt_of(asked, self.turns).with_system(self.system)
        safe = guard(whole, self.template, policy=self.policy, counts=self.counts)
        return None if safe is None else Prompt.of(safe)


def _prompt_of(conversation: Conversation, turns: Turns) -> Conversation:
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
