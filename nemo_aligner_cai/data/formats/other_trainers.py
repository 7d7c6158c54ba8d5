# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The formats of other trainers, and published data sets that can be written too.

Messages are ``[{"role": "user", "content": ...}, ...]``.
"""

from collections.abc import Mapping
from typing import Any, cast

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate, Role
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.fields import (
    BOOLEAN,
    MESSAGES,
    OPTIONAL_TEXT,
    PROMPT,
    QUESTION,
    REPLY,
    TEXT,
    TRANSCRIPT,
    Codec,
    Field,
    FieldFormat,
)
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import ATTRIBUTES, MASKED_SCORE, Chat, Comparison, PromptOnly, Rated, Record, Scored
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import is_transcript, parse_transcript


class Messages(FieldFormat):
    """Conversations in OpenAI's format."""

    name = "messages"
    description = "OpenAI fine-tuning, NeMo-RL openai_format, TRL SFT, UltraChat 200k: a list of messages"
    kind = Chat
    fields = (Field("messages", MESSAGES, "conversation"),)
    prompt_part = "conversation"


class InputOutput(FieldFormat):
    """One question and one answer."""

    name = "input-output"
    description = "NeMo SFT without chat (GPTSFTDataset), NeMo-RL ResponseDataset: input and output"
    kind = Chat
    fields = (Field("input", QUESTION, "prompt"), Field("output", TEXT, "reply"))

    def record(self, parts: dict[str, Any]) -> Chat:
        return Chat(parts["prompt"].with_turn(Role.ASSISTANT, parts["reply"]), parts["dataset"])

    def parts(self, record: Chat) -> Mapping[str, Any]:
        return _prompt_and_reply(record.conversation)


def _prompt_and_reply(conversation: Conversation) -> dict[str, Any]:
    prompt, reply = row_values.split_reply(conversation, "conversation")
    return {"prompt": prompt, "reply": reply}


def _ranked(row: Row, key: str) -> tuple[str, str]:
    completions = row_values.objects(row, key)
    ranks = [row_values.optional_number(item, "rank") for item in completions]
    if len(completions) != 2 or ranks[0] is None or ranks[1] is None or ranks[0] == ranks[1]:
        raise RowError(key, "must be two completions with different ranks")
    first, second = (row_values.single_reply(item, "completion") for item in completions)
    return (first, second) if ranks[0] < ranks[1] else (second, first)


def _completions(replies: tuple[str, str]) -> list[Row]:
    return [{"rank": rank, "completion": REPLY.write(reply)} for rank, reply in enumerate(replies)]


class NemoRlPreference(FieldFormat):
    """Two ranked completions in any order. The lower rank wins."""

    name = "nemo-rl-preference"
    description = "NeMo-RL PreferenceDataset (reward model, DPO): context and ranked completions"
    kind = Comparison
    fields = (Field("context", PROMPT, "prompt"), Field("completions", Codec(list, _ranked, _completions)))

    def record(self, parts: dict[str, Any]) -> Record:
        chosen, rejected = parts.pop("completions")
        return super().record({**parts, "chosen": chosen, "rejected": rejected})

    def parts(self, record: Comparison) -> Mapping[str, Any]:
        return {"prompt": record.prompt, "completions": (record.chosen, record.rejected)}


def _prompt_as_text_or_messages(row: Row, key: str) -> Conversation:
    return (PROMPT if isinstance(row.get(key), list) else QUESTION).read(row, key)


def _text_or_messages(prompt: Conversation) -> str | list[dict[str, str]]:
    is_text = len(prompt.messages) == 1 and not is_transcript(prompt.messages[0].content)
    return prompt.messages[0].content if is_text else prompt.to_messages()


class NemoRlBinary(FieldFormat):
    """A prompt and two replies as strings. A prompt of more than one user turn is written as messages."""

    name = "nemo-rl-binary-preference"
    description = "NeMo-RL BinaryPreferenceDataset: prompt, chosen and rejected as texts"
    kind = Comparison
    fields = (
        Field("prompt", Codec(object, _prompt_as_text_or_messages, _text_or_messages)),
        Field("chosen", TEXT),
        Field("rejected", TEXT),
    )

    def matches(self, row: Row) -> bool:
        if "prompt" not in row or not super().matches(row):
            return False
        # In copies of HH, the prompt is a transcript with which each reply starts.
        prompt: object = row["prompt"]
        return not (isinstance(prompt, str) and is_transcript(prompt) and is_transcript(row["chosen"]))


class TrlPreference(FieldFormat):
    """Comparisons with an explicit prompt."""

    name = "trl-preference"
    description = "TRL reward model and DPO, explicit prompt: messages"
    kind = Comparison
    fields = (Field("prompt", PROMPT), Field("chosen", REPLY), Field("rejected", REPLY))


class OpenRlhf(FieldFormat):
    """Comparisons with a margin, the chosen reward minus the rejected one; 0 if they are unknown."""

    name = "openrlhf"
    description = "OpenRLHF reward model and DPO: prompt, chosen and rejected messages, margin"
    kind = Comparison
    fields = (*TrlPreference.fields, Field("margin", Codec(object, row_values.optional_number, float)))

    def matches(self, row: Row) -> bool:
        return "margin" in row and super().matches(row)

    def record(self, parts: dict[str, Any]) -> Record:
        margin = parts.pop("margin")
        # A row without rewards gets the margin and 0.
        if margin and parts["chosen_reward"] is None and parts["rejected_reward"] is None:
            parts |= {"chosen_reward": margin, "rejected_reward": 0.0}
        return super().record(parts)

    def parts(self, record: Comparison) -> Mapping[str, Any]:
        return {**vars(record), "margin": (record.chosen_reward or 0.0) - (record.rejected_reward or 0.0)}


class _TwoConversations(FieldFormat):
    """Comparisons of two complete conversations that differ only in their last reply."""

    kind = Comparison
    prompt_part = "chosen"

    def record(self, parts: dict[str, Any]) -> Record:
        prompt, chosen = row_values.split_reply(parts["chosen"], "chosen")
        other_prompt, rejected = row_values.split_reply(parts["rejected"], "rejected")
        if prompt != other_prompt:
            raise RowError("rejected", "has another prompt than 'chosen'")
        return super().record({**parts, "prompt": prompt, "chosen": chosen, "rejected": rejected})

    def parts(self, record: Comparison) -> Mapping[str, Any]:
        replies = {"chosen": record.chosen, "rejected": record.rejected}
        return {key: record.prompt.with_turn(Role.ASSISTANT, reply) for key, reply in replies.items()}


class TrlImplicit(_TwoConversations):
    """Comparisons of two complete conversations as messages."""

    name = "trl-preference-implicit"
    description = "TRL reward model, implicit prompt (also Hugging Face's CAI data): two whole conversations"
    fields = (Field("chosen", MESSAGES), Field("rejected", MESSAGES))


class AnthropicHh(_TwoConversations):
    """Anthropic's HH comparisons: two transcripts that differ in their last, non-empty reply."""

    name = "anthropic-hh"
    description = "Anthropic HH-RLHF: chosen and rejected transcripts"
    lenient = True
    fields = (Field("chosen", TRANSCRIPT), Field("rejected", TRANSCRIPT))

    def matches(self, row: Row) -> bool:
        # One transcript is enough to know the prompt.
        return super().matches(row) and any(is_transcript(row[field.key]) for field in self.fields)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return parse_transcript(row_values.text(row, "chosen"))

    def record(self, parts: dict[str, Any]) -> Record:
        # A transcript may end where the assistant's reply should start.
        for key in ("chosen", "rejected"):
            if not parts[key].messages[-1].content:
                raise RowError(key, "has an empty last reply")
        return super().record(parts)

    def write(self, record: Comparison, template: NemoChatTemplate) -> tuple[Row, ...]:
        if not (record.chosen and record.rejected):
            raise UsageError(f"{self.name} cannot hold this record: a reply is empty")
        return super().write(record, template)


class TrlUnpaired(FieldFormat):
    """Single completions labeled true or false."""

    name = "trl-unpaired"
    description = "TRL KTO: prompt and completion messages, label true or false"
    kind = Rated
    fields = (Field("prompt", PROMPT), Field("completion", REPLY, "reply"), Field("label", BOOLEAN, "good"))


class TrlPrompts(FieldFormat):
    """Prompts as messages."""

    name = "trl-prompts"
    description = "TRL GRPO and other online trainers: prompts as messages"
    kind = PromptOnly
    fields = (Field("prompt", PROMPT),)


def _plain_prompt(row: Row, key: str) -> Conversation:
    value: object = row.get(key)
    # Real Toxicity Prompts have {"text": ..., "toxicity": ...} there.
    return row_values.question(cast(Row, value), "text") if isinstance(value, dict) else row_values.question(row, key)


def _label(row: Row, key: str) -> str | None:
    value: object = row.get(key)
    return str(value) if isinstance(value, (bool, int, float)) else row_values.optional_text(row, key)


class PlainPrompts(FieldFormat):
    """Prompts as strings."""

    name = "plain-prompts"
    description = "prompts as plain texts: .txt, .csv (as XSTest), JSON lines or a JSON list"
    kind = PromptOnly
    fields = (
        Field("prompt", Codec(object, _plain_prompt, QUESTION.write)),
        Field("label", Codec(object, _label, OPTIONAL_TEXT.write)),
    )

    def matches(self, row: Row) -> bool:
        # Any value is accepted: all other formats are tried before.
        return "prompt" in row


def _first_user_turn(row: Row, key: str) -> Conversation:
    return Conversation(TRANSCRIPT.read(row, key).messages[:1])


def _one_turn_transcript(prompt: Conversation) -> str:
    QUESTION.write(prompt)  # refuses a second user turn, which would not be read back
    return f"{TRANSCRIPT.write(prompt)}\n\nAssistant:"


class RedTeam(FieldFormat):
    """Anthropic's red-team attempts. The prompt is the first human turn."""

    name = "red-team"
    description = "Anthropic red-team attempts: transcripts"
    kind = PromptOnly
    lenient = True
    fields = (Field("transcript", Codec(str, _first_user_turn, _one_turn_transcript), "prompt"),)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return parse_transcript(row_values.text(row, "transcript"))


_BEFORE, _AFTER = NEMO_CHAT.generation_prompt(Conversation.of_user("\0")).split("\0")


def _parse_turns(row: Row, key: str) -> Conversation:
    try:
        return NEMO_CHAT.parse(_BEFORE + row_values.text(row, key) + _AFTER)
    except RowError:
        raise
    except UsageError as error:
        raise RowError(key, str(error)) from error


def _render_turns(prompt: Conversation) -> str:
    text = NEMO_CHAT.generation_prompt(prompt).removesuffix(_AFTER)
    if not text.startswith(_BEFORE) or NEMO_CHAT.parse(text + _AFTER) != prompt:
        raise UsageError("its prompt has a system message, or template tokens in a text")
    return text.removeprefix(_BEFORE)


def _score(row: Row, key: str) -> float:
    score = row_values.optional_number(row, key)
    return MASKED_SCORE if score is None else score


def _known_score(score: float) -> float | None:
    return None if score == MASKED_SCORE else score


class HelpSteer(FieldFormat):
    """Replies with scores for some attributes. A prompt of several turns contains NeMo's template tokens."""

    name = "helpsteer"
    description = "HelpSteer and HelpSteer2: prompt, response, helpfulness, correctness, coherence, ..."
    kind = Scored
    lenient = True
    fields = (
        Field("prompt", Codec(str, _parse_turns, _render_turns)),
        Field("response", TEXT, "reply"),
        *(Field(name, Codec(object, _score, _known_score)) for name in ATTRIBUTES),
    )

    def matches(self, row: Row) -> bool:
        return super().matches(row) and any(name in row for name in ATTRIBUTES)

    def record(self, parts: dict[str, Any]) -> Scored:
        scores = tuple(parts[name] for name in ATTRIBUTES)
        if all(score == MASKED_SCORE for score in scores):
            raise RowError(ATTRIBUTES[0], "no attribute has a score")
        return Scored(parts["prompt"].with_turn(Role.ASSISTANT, parts["reply"]), scores, parts["dataset"])

    def parts(self, record: Scored) -> Mapping[str, Any]:
        return _prompt_and_reply(record.conversation) | dict(zip(ATTRIBUTES, record.scores, strict=True))
