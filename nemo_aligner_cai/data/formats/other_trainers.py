# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The formats of other trainers, and the published data sets that are read and not written for a trainer.

Each class names its consumer; messages are ``[{"role": "user", "content": ...}, ...]``.
"""

from collections.abc import Mapping
from typing import Any, cast

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate, Role
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.fields import (
    MESSAGES,
    OPTIONAL_TEXT,
    PROMPT,
    QUESTION,
    REPLY,
    TEXT,
    TRANSCRIPT,
    TRUTH,
    Codec,
    Field,
    FieldFormat,
)
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import (
    ATTRIBUTES,
    MASKED_SCORE,
    Chat,
    Comparison,
    PromptOnly,
    Rated,
    Record,
    Scored,
)
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import is_transcript, parse_transcript


class Messages(FieldFormat):
    """Conversations in OpenAI's form."""

    name = "messages"
    description = "OpenAI fine-tuning, NeMo-RL openai_format, TRL SFT, UltraChat 200k: a list of messages"
    kind = Chat
    fields = (Field("messages", MESSAGES, "conversation"),)
    asked = "conversation"


class InputOutput(FieldFormat):
    """One question and one answer."""

    name = "input-output"
    description = "NeMo SFT without chat (GPTSFTDataset), NeMo-RL ResponseDataset: input and output"
    kind = Chat
    fields = (Field("input", QUESTION, "prompt"), Field("output", TEXT, "reply"))

    def record(self, parts: dict[str, Any]) -> Chat:
        """The question and its answer as a conversation."""
        return Chat(parts["prompt"].with_turn(Role.ASSISTANT, parts["reply"]), parts["dataset"])

    def parts(self, record: Record) -> Mapping[str, Any]:
        """The last reply, and all before it."""
        return _prompt_and_reply(cast(Chat, record).conversation)


def _prompt_and_reply(conversation: Conversation) -> dict[str, Any]:
    prompt, reply = take.split_reply(conversation, "conversation")
    return {"prompt": prompt, "reply": reply}


def _ranked(row: Row, key: str) -> tuple[str, str]:
    completions = take.objects(row, key)
    ranks = [take.optional_number(item, "rank") for item in completions]
    if len(completions) != 2 or ranks[0] is None or ranks[1] is None or ranks[0] == ranks[1]:
        raise RowError(key, "must be two completions with different ranks")
    first, second = (take.single_reply(item, "completion") for item in completions)
    return (first, second) if ranks[0] < ranks[1] else (second, first)


def _completions(replies: tuple[str, str]) -> list[Row]:
    return [{"rank": rank, "completion": REPLY.write(reply)} for rank, reply in enumerate(replies)]


class NemoRlPreference(FieldFormat):
    """Ranked completions, in any order; exactly two, and the lower rank wins."""

    name = "nemo-rl-preference"
    description = "NeMo-RL PreferenceDataset (reward model, DPO): context and ranked completions"
    kind = Comparison
    fields = (Field("context", PROMPT, "prompt"), Field("completions", Codec(list, _ranked, _completions)))

    def record(self, parts: dict[str, Any]) -> Record:
        """The completion of the lower rank is the chosen one."""
        chosen, rejected = parts.pop("completions")
        return super().record({**parts, "chosen": chosen, "rejected": rejected})

    def parts(self, record: Record) -> Mapping[str, Any]:
        """Both replies as one part."""
        record = cast(Comparison, record)
        return {"prompt": record.prompt, "completions": (record.chosen, record.rejected)}


def _prompt_as_text_or_messages(row: Row, key: str) -> Conversation:
    return (PROMPT if isinstance(row.get(key), list) else QUESTION).read(row, key)


def _text_or_messages(prompt: Conversation) -> str | list[dict[str, str]]:
    is_text = len(prompt.messages) == 1 and not is_transcript(prompt.messages[0].content)
    return prompt.messages[0].content if is_text else prompt.to_messages()


class NemoRlBinary(FieldFormat):
    """A prompt and two replies as texts; the prompt is messages where it is more than one user turn."""

    name = "nemo-rl-binary-preference"
    description = "NeMo-RL BinaryPreferenceDataset: prompt, chosen and rejected as texts"
    kind = Comparison
    fields = (
        Field("prompt", Codec(object, _prompt_as_text_or_messages, _text_or_messages)),
        Field("chosen", TEXT),
        Field("rejected", TEXT),
    )

    def matches(self, row: Row) -> bool:
        """By a ``chosen`` text beside a ``prompt``."""
        return "prompt" in row and super().matches(row)


class TrlPreference(FieldFormat):
    """Comparisons with their prompt apart."""

    name = "trl-preference"
    description = "TRL reward model and DPO, explicit prompt: messages"
    kind = Comparison
    fields = (Field("prompt", PROMPT), Field("chosen", REPLY), Field("rejected", REPLY))


class OpenRlhf(FieldFormat):
    """Comparisons with a margin, the chosen reward over the rejected one; 0 where they are unknown."""

    name = "openrlhf"
    description = "OpenRLHF reward model and DPO: prompt, chosen and rejected messages, margin"
    kind = Comparison
    fields = (*TrlPreference.fields, Field("margin", Codec(object, take.optional_number, float)))

    def matches(self, row: Row) -> bool:
        """By the key ``margin``."""
        return "margin" in row and super().matches(row)

    def record(self, parts: dict[str, Any]) -> Record:
        """With rewards: the row's own, else the margin over a rejected reward of 0."""
        margin = parts.pop("margin")
        if margin and parts["chosen_reward"] is None and parts["rejected_reward"] is None:
            parts |= {"chosen_reward": margin, "rejected_reward": 0.0}
        return super().record(parts)

    def parts(self, record: Record) -> Mapping[str, Any]:
        """With the margin."""
        record = cast(Comparison, record)
        return {**vars(record), "margin": (record.chosen_reward or 0.0) - (record.rejected_reward or 0.0)}


class _TwoConversations(FieldFormat):
    """Comparisons of two whole conversations, which differ in their last reply only."""

    kind = Comparison
    asked = "chosen"

    def record(self, parts: dict[str, Any]) -> Record:
        """What both conversations begin with is the prompt."""
        (prompt, chosen), (other, rejected) = (take.split_reply(parts[key], key) for key in ("chosen", "rejected"))
        if prompt != other:
            raise RowError("rejected", "has another prompt than 'chosen'")
        return super().record({**parts, "prompt": prompt, "chosen": chosen, "rejected": rejected})

    def parts(self, record: Record) -> Mapping[str, Any]:
        """The prompt with either reply."""
        record = cast(Comparison, record)
        replies = {"chosen": record.chosen, "rejected": record.rejected}
        return {key: record.prompt.with_turn(Role.ASSISTANT, reply) for key, reply in replies.items()}


class TrlImplicit(_TwoConversations):
    """Comparisons of two whole conversations as messages."""

    name = "trl-preference-implicit"
    description = "TRL reward model, implicit prompt (also Hugging Face's CAI data): two whole conversations"
    fields = (Field("chosen", MESSAGES), Field("rejected", MESSAGES))


class AnthropicHh(_TwoConversations):
    """Anthropic's HH comparisons: two transcripts that differ in their last reply, which is not empty."""

    name = "anthropic-hh"
    description = "Anthropic HH-RLHF: chosen and rejected transcripts"
    lenient = True
    fields = (Field("chosen", TRANSCRIPT), Field("rejected", TRANSCRIPT))

    def matches(self, row: Row) -> bool:
        """By two texts, of which one is a transcript: a bare reply does not say what it is a reply to."""
        return super().matches(row) and any(is_transcript(row[field.key]) for field in self.fields)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The turns of the chosen transcript."""
        return parse_transcript(take.text(row, "chosen"))

    def record(self, parts: dict[str, Any]) -> Record:
        """As the others; a transcript may break off where the assistant is to speak, and then says nothing."""
        for key in ("chosen", "rejected"):
            if not parts[key].messages[-1].content:
                raise RowError(key, "has an empty last reply")
        return super().record(parts)

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Comparison, record)
        if not (record.chosen and record.rejected):
            raise UsageError(f"{self.name} cannot hold this record: a reply is empty")
        return super().write(record, template)


class TrlUnpaired(FieldFormat):
    """Single completions with a verdict."""

    name = "trl-unpaired"
    description = "TRL KTO: prompt and completion messages, label true or false"
    kind = Rated
    fields = (Field("prompt", PROMPT), Field("completion", REPLY, "reply"), Field("label", TRUTH, "good"))


class TrlPrompts(FieldFormat):
    """Prompts as messages."""

    name = "trl-prompts"
    description = "TRL GRPO and other online trainers: prompts as messages"
    kind = PromptOnly
    fields = (Field("prompt", PROMPT),)


def _plain_prompt(row: Row, key: str) -> Conversation:
    value: object = row.get(key)
    # Real Toxicity Prompts have {"text": ..., "toxicity": ...} there.
    return take.question(cast(Row, value), "text") if isinstance(value, dict) else take.question(row, key)


def _label(row: Row, key: str) -> str | None:
    value: object = row.get(key)
    return str(value) if isinstance(value, (bool, int, float)) else take.optional_text(row, key)


class PlainPrompts(FieldFormat):
    """Prompts as texts."""

    name = "plain-prompts"
    description = "prompts as plain texts: .txt, .csv (as XSTest), JSON lines or a JSON list"
    kind = PromptOnly
    fields = (
        Field("prompt", Codec(object, _plain_prompt, QUESTION.write)),
        Field("label", Codec(object, _label, OPTIONAL_TEXT.write)),
    )

    def matches(self, row: Row) -> bool:
        """By the key ``prompt``, whatever is there: no other format has matched."""
        return "prompt" in row


def _first_user_turn(row: Row, key: str) -> Conversation:
    return Conversation(TRANSCRIPT.read(row, key).messages[:1])


def _asked(prompt: Conversation) -> str:
    QUESTION.write(prompt)  # a second user turn would not be read back
    return f"{TRANSCRIPT.write(prompt)}\n\nAssistant:"


class RedTeam(FieldFormat):
    """Anthropic's red-team attempts, of which the prompt is the first human turn."""

    name = "red-team"
    description = "Anthropic red-team attempts: transcripts"
    kind = PromptOnly
    lenient = True
    fields = (Field("transcript", Codec(str, _first_user_turn, _asked), "prompt"),)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """All of the turns."""
        return parse_transcript(take.text(row, "transcript"))


_BEFORE, _AFTER = NEMO_CHAT.generation_prompt(Conversation.of_user("\0")).split("\0")


def _turns_in_a_text(row: Row, key: str) -> Conversation:
    try:
        return NEMO_CHAT.parse(_BEFORE + take.text(row, key) + _AFTER)
    except RowError:
        raise
    except UsageError as error:
        raise RowError(key, str(error)) from error


def _text_of_turns(prompt: Conversation) -> str:
    text = NEMO_CHAT.generation_prompt(prompt).removesuffix(_AFTER)
    if not text.startswith(_BEFORE) or NEMO_CHAT.parse(text + _AFTER) != prompt:
        raise UsageError("its prompt has a system message, or the chat template's tokens in a text")
    return text.removeprefix(_BEFORE)


def _score(row: Row, key: str) -> float:
    score = take.optional_number(row, key)
    return MASKED_SCORE if score is None else score


def _known(score: float) -> float | None:
    return None if score == MASKED_SCORE else score


class HelpSteer(FieldFormat):
    """Replies with attribute scores, of which some are there. A prompt of several turns has NeMo's tokens in it."""

    name = "helpsteer"
    description = "HelpSteer and HelpSteer2: prompt, response, helpfulness, correctness, coherence, ..."
    kind = Scored
    lenient = True
    fields = (
        Field("prompt", Codec(str, _turns_in_a_text, _text_of_turns)),
        Field("response", TEXT, "reply"),
        *(Field(name, Codec(object, _score, _known)) for name in ATTRIBUTES),
    )

    def matches(self, row: Row) -> bool:
        """By ``prompt``, ``response`` and an attribute."""
        return super().matches(row) and any(name in row for name in ATTRIBUTES)

    def record(self, parts: dict[str, Any]) -> Scored:
        """The conversation and the nine scores."""
        scores = tuple(parts[name] for name in ATTRIBUTES)
        if all(score == MASKED_SCORE for score in scores):
            raise RowError(ATTRIBUTES[0], "no attribute has a score")
        return Scored(parts["prompt"].with_turn(Role.ASSISTANT, parts["reply"]), scores, parts["dataset"])

    def parts(self, record: Record) -> Mapping[str, Any]:
        """The last reply, all before it, and each score."""
        record = cast(Scored, record)
        return _prompt_and_reply(record.conversation) | dict(zip(ATTRIBUTES, record.scores, strict=True))
