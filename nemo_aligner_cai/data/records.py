# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The six kinds of training records. Every format reads its rows into one of them and writes its rows from one."""

from dataclasses import dataclass, replace

from nemo_aligner_cai.chat import Conversation, LabelType, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import content_hash

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
"""The scored attributes of a reply, in the order of NeMo-Aligner's regression reward model."""
MASKED_SCORE = -100.0
"""An unknown score. The regression loss skips it."""


@dataclass(frozen=True)
class Chat:
    """A conversation to imitate. The turns of the speakers in `mask` are not learned."""

    conversation: Conversation
    dataset: str | None = None
    mask: str = "User"
    label_type: LabelType | None = None


@dataclass(frozen=True)
class Comparison:
    """Two replies to one prompt. `chosen` is the better one. Rewards are on any one scale, None if unknown."""

    prompt: Conversation
    chosen: str
    rejected: str
    dataset: str | None = None
    chosen_reward: float | None = None
    rejected_reward: float | None = None


@dataclass(frozen=True)
class PromptOnly:
    """A conversation that ends with the user. `label` is the data set's class of it, such as XSTest's "unsafe"."""

    prompt: Conversation
    dataset: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Rated:
    """One reply to a prompt, labeled good or bad."""

    prompt: Conversation
    reply: str
    good: bool
    dataset: str | None = None


@dataclass(frozen=True)
class Scored:
    """A conversation with a score of its last reply for each of the `ATTRIBUTES`, shape (9,), or `MASKED_SCORE`."""

    conversation: Conversation
    scores: tuple[float, ...]
    dataset: str | None = None


@dataclass(frozen=True)
class Judged:
    """A prompt and the comparisons that a judge made of its candidate responses. There may be none."""

    prompt: Conversation
    comparisons: tuple[Comparison, ...]
    dataset: str | None = None


Record = Chat | Comparison | PromptOnly | Rated | Scored | Judged
Kind = type[Chat] | type[Comparison] | type[PromptOnly] | type[Rated] | type[Scored] | type[Judged]


def prompt_of(record: Record) -> Conversation:
    """The conversation up to its last user turn."""
    if isinstance(record, (Comparison, PromptOnly, Rated, Judged)):
        return record.prompt
    messages = record.conversation.messages
    users = [position for position, message in enumerate(messages) if message.role is Role.USER]
    return Conversation(messages[: users[-1] + 1]) if users else record.conversation


def record_prompt_id(record: Record) -> str:
    """The content hash of the record's prompt. Records of different kinds with the same prompt share it."""
    return content_hash(prompt_of(record).to_messages())


def record_id(record: Record) -> str:
    """The content hash of the record's texts, verdict and scores. The data set and rewards are not part of it."""
    conversations = [conversation.to_messages() for conversation in conversations_of(record)]
    return content_hash([conversations, getattr(record, "good", None), getattr(record, "scores", None)])


def with_system(record: Record, text: str) -> Record:
    """Add a system message to the record's conversations, as `Conversation.with_system` does."""
    if isinstance(record, (Chat, Scored)):
        return replace(record, conversation=record.conversation.with_system(text))
    if isinstance(record, Judged):
        comparisons = tuple(replace(pair, prompt=pair.prompt.with_system(text)) for pair in record.comparisons)
        return replace(record, prompt=record.prompt.with_system(text), comparisons=comparisons)
    return replace(record, prompt=record.prompt.with_system(text))


def conversations_of(record: Record) -> list[Conversation]:
    """The complete conversations of a record: two for a comparison, the prompt alone if there is no reply."""
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


def require_texts(record: Record) -> None:
    """Raise UsageError for an empty user turn, or an empty reply that would be learned or preferred.

    A rejected reply may be empty, and one with scores: published data have some, and they are informative.
    """
    if isinstance(record, Judged):
        for pair in record.comparisons:
            require_texts(pair)
    may_be_empty = isinstance(record, Scored) or (isinstance(record, Rated) and not record.good)
    conversation = prompt_of(record) if may_be_empty else conversations_of(record)[0]
    for turn in conversation.turns:
        if not turn.content.strip():
            what = "a user turn" if turn.role is Role.USER else "a reply"
            raise UsageError(f"{what} is empty; remove the row")


def to_kind(record: Record, kind: Kind) -> tuple[Record, ...]:
    """Convert a record to another kind, which may hold less information. The result has zero or more records.

    Raises:
        UsageError: The other kind needs information that the record does not have.
    """
    if isinstance(record, kind):
        return (record,)
    if kind is PromptOnly:
        return (PromptOnly(prompt_of(record), record.dataset),)
    if isinstance(record, Judged):
        return record.comparisons if kind is Comparison else _unambiguous_replies(record, kind)
    if isinstance(record, Comparison) and kind is Rated:
        return (
            Rated(record.prompt, record.chosen, True, record.dataset),
            Rated(record.prompt, record.rejected, False, record.dataset),
        )
    if isinstance(record, Comparison) and kind is Chat:
        return (Chat(record.prompt.with_turn(Role.ASSISTANT, record.chosen), record.dataset),)
    if isinstance(record, Scored) and kind is Chat:
        return (Chat(record.conversation, record.dataset),)
    name, format = _KIND_NAMES[type(record)]
    raise UsageError(f"{name} cannot be converted to {_KIND_NAMES[kind][0]}; it can be written as {format}")


_KIND_NAMES: dict[Kind, tuple[str, str]] = {
    Chat: ("a conversation", "sft-chat"),
    Comparison: ("a comparison of two replies", "dpo"),
    PromptOnly: ("a prompt without a reply", "ppo-prompts"),
    Rated: ("a reply rated good or bad", "kto"),
    Scored: ("a reply with scores", "rm-regression"),
    Judged: ("a prompt with judged replies", "rm-comparisons"),
}
"""Kind -> its name in messages and a format that can hold it."""


def _unambiguous_replies(record: Judged, kind: Kind) -> tuple[Record, ...]:
    """Single replies without duplicates and without those that won one comparison and lost another."""
    won = {pair.chosen for pair in record.comparisons}
    lost = {pair.rejected for pair in record.comparisons}
    replies: dict[Record, None] = {}
    for pair in record.comparisons:
        for reply in to_kind(pair, kind):
            is_bad = isinstance(reply, Rated) and not reply.good
            if (pair.rejected not in won) if is_bad else (pair.chosen not in lost):
                replies[reply] = None
    return tuple(replies)
