# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
r"""Prompt files of many shapes -> Prompt(id, conversation), one row in memory at a time.

Input:  {"transcript": "\n\nHuman: How do I ...\n\nAssistant: ..."}     Anthropic's red-team attempts
        {"chosen": "\n\nHuman: ...\n\nAssistant: ...", "rejected": ...}  Anthropic HH
        {"prompt": "How do I ..."}, {"messages": [...]}, or a text in a list, a line of .txt, a row of .csv
Output: Prompt(id="9f86d081884c7d65", conversation=Conversation((Message(Role.USER, "How do I ..."),)))
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from nemo_aligner_cai.compact import CompactSet
from nemo_aligner_cai.conversation import (
    NEMO_CHAT,
    ChatTemplate,
    Conversation,
    Message,
    Role,
    TokenPolicy,
    guard,
    require_user_last,
)
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import Balance, PathLike, Row, content_hash, read_json
from nemo_aligner_cai.sources import DataFile, data_files, read_rows
from nemo_aligner_cai.transcript import TranscriptError, parse_transcript, strip_run_on

Turns = Literal["first", "all"]

_KEYS = ("transcript", "chosen", "messages", "conversations", "prompt")


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for the assistant. `id` is a hash of its content: equal prompts have equal ids."""

    id: str
    conversation: Conversation

    @classmethod
    def of(cls, conversation: Conversation) -> "Prompt":
        """The prompt of a conversation that ends with a user turn; raises UsageError otherwise."""
        require_user_last(conversation)
        return cls(content_hash(conversation.to_messages()), conversation)


def read_prompts(
    path: PathLike,
    *,
    balance: Balance,
    turns: Turns = "first",
    limit: int | None = None,
    split: str = "train",
    template: ChatTemplate = NEMO_CHAT,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    system_message: str = "",
) -> Iterator[Prompt]:
    """Read prompts in file order, each only once.

    Args:
        path: a file, a folder, or a data set on the hub, see `nemo_aligner_cai.sources`.
        balance: receives the rows read, the prompts yielded as written, and the rows left out by reason.
        turns: "first" takes the first user turn; "all" takes the conversation up to its last user turn.
        limit: stop after so many prompts; the rows after are not read.
        split: of a folder or data set that has splits, the one to read.
        template: whose tokens must not stand in a prompt.
        policy: what to do with a prompt that contains them.
        system_message: of the prompts that have none.

    Raises:
        UsageError: the path cannot be read (at the call), or `policy` is to refuse.
        FormatError: a row is not one of the known shapes.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the number of prompts must be positive, it is {limit}")
    files = data_files(path, split)
    return _read(
        files, balance=balance, turns=turns, limit=limit, template=template, policy=policy, system=system_message
    )


def _read(
    files: list[DataFile],
    *,
    balance: Balance,
    turns: Turns,
    limit: int | None,
    template: ChatTemplate,
    policy: TokenPolicy,
    system: str,
) -> Iterator[Prompt]:
    seen, prompts = CompactSet(), 0
    for path in files:
        for line, row in read_rows(path):
            if prompts == limit:
                return
            balance.rows_in += 1
            try:
                conversation = _prompt_of(_conversation(row), turns).with_system(system)
            except TranscriptError as reason:
                balance.leave_out(str(reason))
                continue
            except UsageError as error:
                raise FormatError.at(path, line, str(error)) from error
            try:
                safe = guard(conversation, template, policy=policy, balance=balance)
            except UsageError as error:
                raise FormatError.at(path, line, str(error)) from error
            if safe is None:
                continue
            prompt = Prompt.of(safe)
            if not seen.add(int(prompt.id, 16)):
                balance.leave_out("duplicate prompt")
                continue
            prompts += 1
            balance.written += 1
            yield prompt


def _conversation(row: Row) -> Conversation:
    there = [key for key in _KEYS if key in row]
    if not there:
        raise UsageError(f"needs one of the keys {', '.join(_KEYS)}; it has {', '.join(row) or 'none'}")
    key = next((key for key in there if row[key] is not None), None)
    if key is None:
        raise TranscriptError("empty prompt")
    value = row[key]
    if isinstance(value, list):
        return _of_messages(cast(list[Any], value), system=row.get("system"))
    if not isinstance(value, str):
        raise UsageError(f"the key {key!r} must be a text or a list of messages, it is {type(value).__name__}")
    if key in ("transcript", "chosen") or value.startswith("\n\nHuman:"):
        return parse_transcript(value)
    if not value.strip():
        raise TranscriptError("empty prompt")
    return Conversation.of_user(value.strip())


def _of_messages(items: list[Any], system: object = None) -> Conversation:
    messages: list[dict[str, Any]] = []
    if isinstance(system, str) and system:
        messages.append({"role": "system", "content": system})
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise UsageError(f"message {position} must be an object, it is {type(item).__name__}")
        item = cast(Row, item)
        messages.append(
            {"role": item.get("role", item.get("from")), "content": item.get("content", item.get("value"))}
        )
    return Conversation.from_messages(messages)


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


_SHOT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")
_ASKS = ("Human", "CritiqueRequest", "RevisionRequest")
# Upstream's example file holds these words in place of a conversation; models copy what they are shown.
_PLACEHOLDERS = {
    "prompt",
    "response",
    "critique request",
    "critique response",
    "revision request",
    "revision response",
}


def read_few_shots(path: PathLike) -> tuple[Conversation, ...]:
    """Examples of answer, critique and revision to show a model before its own turn.

    Args:
        path: upstream's ``{"samples": [[{"role": "User", "content": ...}, ...], ...]}``, a list of such lists, or
            Anthropic's CritiqueRevisionFewShotPrompts.json (a list of texts).

    Raises:
        UsageError: another form, an example that does not end with the assistant, or upstream's unfilled example.
    """
    document = read_json(path)
    if isinstance(document, dict):
        document = cast(Row, document).get("samples")
    if not isinstance(document, list) or not document:
        raise UsageError(f'{path}: few-shot examples are needed: {{"samples": [[{{"role": ..., "content": ...}}]]}}')
    return tuple(_shot(path, position, item) for position, item in enumerate(cast(list[Any], document)))


def _shot(path: PathLike, position: int, item: Any) -> Conversation:
    try:
        conversation = _of_markers(item) if isinstance(item, str) else _of_messages(item)
    except (UsageError, TypeError) as error:
        raise UsageError(f"{path}: example {position}: {error}") from error
    turns = conversation.turns
    if not turns or turns[-1].role is not Role.ASSISTANT:
        raise UsageError(f"{path}: example {position}: must end with an assistant turn")
    if all(turn.content.strip().lower() in _PLACEHOLDERS for turn in turns):
        raise UsageError(f"{path}: example {position}: holds placeholders such as 'prompt'; write real examples")
    return conversation


def _of_markers(text: str) -> Conversation:
    _, *parts = _SHOT.split(strip_run_on(text))
    return Conversation(
        tuple(
            Message(Role.USER if name in _ASKS else Role.ASSISTANT, content.strip())
            for name, content in zip(parts[::2], parts[1::2], strict=True)
        )
    )
