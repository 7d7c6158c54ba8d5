# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a row of training data says, whatever its format: every format reads into and writes out of these six."""

from dataclasses import dataclass, replace

from nemo_aligner_cai.chat import Conversation, LabelType, Role
from nemo_aligner_cai.errors import UsageError

ATTRIBUTES = (
    "quality",
    "toxicity",
    "humor",
    "creativity",
    "helpfulness",
    "correctness",
    "coherence",
    "complexity",
    "verbosity",
)
"""What a reply is scored by, in the order of NeMo-Aligner's regression reward model."""
MASKED_SCORE = -100.0
"""A score that is unknown; the regression loss leaves it out."""


@dataclass(frozen=True)
class Chat:
    """A conversation to imitate. `mask` names the speaker whose words are not learnt."""

    conversation: Conversation
    dataset: str | None = None
    mask: str = "User"
    label_type: LabelType | None = None


@dataclass(frozen=True)
class Comparison:
    """Two replies to one prompt, of which `chosen` is the better. Rewards are on any one scale, None if unknown."""

    prompt: Conversation
    chosen: str
    rejected: str
    dataset: str | None = None
    chosen_reward: float | None = None
    rejected_reward: float | None = None


@dataclass(frozen=True)
class PromptOnly:
    """A conversation that waits for the assistant. `label` is its data set's word for it, as XSTest's "unsafe"."""

    prompt: Conversation
    dataset: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Rated:
    """One reply to a prompt, and whether it is a good one."""

    prompt: Conversation
    reply: str
    good: bool
    dataset: str | None = None


@dataclass(frozen=True)
class Scored:
    """A conversation whose last reply has a score for each of the `ATTRIBUTES`, shape (9,), or `MASKED_SCORE`."""

    conversation: Conversation
    scores: tuple[float, ...]
    dataset: str | None = None


@dataclass(frozen=True)
class Judged:
    """A prompt and the comparisons that a judge made of its candidate responses: several, one, or none."""

    prompt: Conversation
    comparisons: tuple[Comparison, ...]
    dataset: str | None = None


Record = Chat | Comparison | PromptOnly | Rated | Scored | Judged
Kind = type[Chat] | type[Comparison] | type[PromptOnly] | type[Rated] | type[Scored] | type[Judged]


def prompt_of(record: Record) -> Conversation:
    """What the assistant was asked: the conversation up to the last user turn. Equal prompts belong together."""
    if isinstance(record, (Comparison, PromptOnly, Rated, Judged)):
        return record.prompt
    messages = record.conversation.messages
    users = [position for position, message in enumerate(messages) if message.role is Role.USER]
    return Conversation(messages[: users[-1] + 1]) if users else record.conversation


def with_system(record: Record, text: str) -> Record:
    """The record with a system message in its conversations, as `Conversation.with_system`."""
    if isinstance(record, (Chat, Scored)):
        return replace(record, conversation=record.conversation.with_system(text))
    if isinstance(record, Judged):
        comparisons = tuple(replace(one, prompt=one.prompt.with_system(text)) for one in record.comparisons)
        return replace(record, prompt=record.prompt.with_system(text), comparisons=comparisons)
    return replace(record, prompt=record.prompt.with_system(text))


def conversations_of(record: Record) -> list[Conversation]:
    """The whole conversations of a record: the chosen and the rejected one of a comparison, the prompt of a prompt."""
    match record:
        case Chat() | Scored():
            return [record.conversation]
        case PromptOnly():
            return [record.prompt]
        case Rated():
            return [record.prompt.with_turn(Role.ASSISTANT, record.reply)]
        case Comparison():
            return [record.prompt.with_turn(Role.ASSISTANT, reply) for reply in (record.chosen, record.rejected)]
        case Judged():
            pairs = [whole for comparison in record.comparisons for whole in conversations_of(comparison)]
            return pairs or [record.prompt]


def to_kind(record: Record, kind: Kind) -> tuple[Record, ...]:
    """The record as another kind, which may say less (a comparison as a prompt) and may take several records, or none.

    Raises:
        UsageError: the other kind says something that the record does not know.
    """
    if isinstance(record, kind):
        return (record,)
    if kind is PromptOnly:
        return (PromptOnly(prompt_of(record), record.dataset),)
    if isinstance(record, Judged) and kind is Comparison:
        return record.comparisons
    if isinstance(record, Judged):
        return _clear_replies(record, kind)
    if isinstance(record, Comparison) and kind is Rated:
        return (
            Rated(record.prompt, record.chosen, True, record.dataset),
            Rated(record.prompt, record.rejected, False, record.dataset),
        )
    if isinstance(record, Comparison) and kind is Chat:
        return (Chat(record.prompt.with_turn(Role.ASSISTANT, record.chosen), record.dataset),)
    if isinstance(record, Scored) and kind is Chat:
        return (Chat(record.conversation, record.dataset),)
    said, format = _SAID[type(record)]
    raise UsageError(f"{said} cannot be made into {_SAID[kind][0]}; it can be written as {format}")


_SAID: dict[Kind, tuple[str, str]] = {
    Chat: ("a conversation", "sft-chat"),
    Comparison: ("a comparison of two replies", "dpo"),
    PromptOnly: ("a prompt without a reply", "ppo-prompts"),
    Rated: ("a reply that is good or bad", "kto"),
    Scored: ("a reply with scores", "rm-regression"),
    Judged: ("a prompt with judged replies", "rm-comparisons"),
}
"""By kind, its name in messages and a format that holds it."""


def _clear_replies(record: Judged, kind: Kind) -> tuple[Record, ...]:
    """The comparisons of one prompt as single replies: each once, none that won one comparison and lost another."""
    won = {pair.chosen for pair in record.comparisons}
    lost = {pair.rejected for pair in record.comparisons}
    parts: dict[Record, None] = {}
    for pair in record.comparisons:
        for part in to_kind(pair, kind):
            is_bad = isinstance(part, Rated) and not part.good
            if (pair.rejected not in won) if is_bad else (pair.chosen not in lost):
                parts[part] = None
    return tuple(parts)
