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
"""The formats of other trainers, and the published data sets that are read and not written for a trainer.

Each class names its consumer; messages are ``[{"role": "user", "content": ...}, ...]``.
"""

from collections.abc import Sequence
from typing import cast

from nemo_aligner_cai.conversation import Conversation, NemoChatTemplate, Role
from nemo_aligner_cai.data import rows as take
from nemo_aligner_cai.data.format import Format, with_dataset
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Rated, Record
from nemo_aligner_cai.data.rows import RowError
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.transcript import TranscriptError, parse_transcript, write_transcript

_REPLY_KEYS = ("chosen", "rejected")


def _message_list(value: object) -> bool:
    return isinstance(value, list)


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _one_user_turn(prompt: Conversation, format_name: str) -> str:
    if len(prompt.messages) != 1:
        raise UsageError(f"{format_name} holds one user turn and no system message, this prompt has more")
    return prompt.messages[0].content


class Messages(Format):
    """Conversations in OpenAI's form."""

    name = "messages"
    description = "OpenAI fine-tuning, NeMo-RL openai_format, TRL SFT: a list of messages"
    kind = Chat

    def matches(self, row: Row) -> bool:
        """By the key ``messages``."""
        return "messages" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Chat:
        """One row."""
        return Chat(take.messages(rows[0], "messages"), take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Chat, record)
        return (with_dataset({"messages": record.conversation.to_messages()}, record.dataset),)


class InputOutput(Format):
    """One question and one answer."""

    name = "input-output"
    description = "NeMo SFT without chat (GPTSFTDataset), NeMo-RL ResponseDataset: input and output"
    kind = Chat

    def matches(self, row: Row) -> bool:
        """By the keys ``input`` and ``output``."""
        return "input" in row and "output" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Chat:
        """One row."""
        prompt = Conversation.of_user(take.text(rows[0], "input"))
        reply = take.text(rows[0], "output")
        return Chat(prompt.with_turn(Role.ASSISTANT, reply), take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; raises UsageError for a longer conversation."""
        record = cast(Chat, record)
        turns = record.conversation.turns
        if len(turns) != 2 or turns[-1].role is not Role.ASSISTANT:
            raise UsageError(f"{self.name} holds one user turn and its reply, this conversation is another")
        question = _one_user_turn(record.conversation.without_last(), self.name)
        return (with_dataset({"input": question, "output": turns[-1].content}, record.dataset),)


class NemoRlPreference(Format):
    """Ranked completions; exactly two, and the lower rank wins."""

    name = "nemo-rl-preference"
    description = "NeMo-RL PreferenceDataset (reward model, DPO): context and ranked completions"
    kind = Comparison

    def matches(self, row: Row) -> bool:
        """By the key ``completions``."""
        return "context" in row and "completions" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row, its completions in any order."""
        row = rows[0]
        completions = take.objects(row, "completions")
        ranks = [take.optional_number(item, "rank") for item in completions]
        if len(completions) != 2 or ranks[0] is None or ranks[1] is None or ranks[0] == ranks[1]:
            raise RowError("completions", "must be two completions with different ranks")
        if ranks[0] > ranks[1]:
            completions = completions[::-1]
        chosen, rejected = (take.single_reply(item, "completion") for item in completions)
        take.different(chosen, rejected, "completions")
        return Comparison(take.prompt(row, "context"), chosen, rejected, take.optional_text(row, "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Comparison, record)
        row: Row = {
            "context": record.prompt.to_messages(),
            "completions": [
                {"rank": rank, "completion": _assistant(reply)}
                for rank, reply in enumerate((record.chosen, record.rejected))
            ],
        }
        return (with_dataset(row, record.dataset),)


class NemoRlBinary(Format):
    """A prompt and two replies as texts."""

    name = "nemo-rl-binary-preference"
    description = "NeMo-RL BinaryPreferenceDataset: prompt, chosen and rejected as texts"
    kind = Comparison

    def matches(self, row: Row) -> bool:
        """By a ``chosen`` text beside a ``prompt``."""
        return "prompt" in row and isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row; the prompt may be a text or messages."""
        row = rows[0]
        listed = _message_list(row.get("prompt"))
        prompt = take.prompt(row, "prompt") if listed else Conversation.of_user(take.text(row, "prompt"))
        chosen, rejected = (take.text(row, key) for key in _REPLY_KEYS)
        take.different(chosen, rejected, "rejected")
        return Comparison(prompt, chosen, rejected, take.optional_text(row, "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; the prompt is a text where one user turn is all of it, else messages."""
        record = cast(Comparison, record)
        alone = len(record.prompt.messages) == 1
        prompt = record.prompt.messages[0].content if alone else record.prompt.to_messages()
        row: Row = {"prompt": prompt, "chosen": record.chosen, "rejected": record.rejected}
        return (with_dataset(row, record.dataset),)


class OpenRlhf(Format):
    """Comparisons with a margin between the two replies."""

    name = "openrlhf"
    description = "OpenRLHF reward model and DPO: prompt, chosen and rejected messages, margin"
    kind = Comparison

    def matches(self, row: Row) -> bool:
        """By the key ``margin``."""
        return "margin" in row and _message_list(row.get("chosen"))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row; the margin is the chosen reward over a rejected one of 0."""
        row = rows[0]
        margin = take.optional_number(row, "margin")
        chosen, rejected = (take.single_reply(row, key) for key in _REPLY_KEYS)
        take.different(chosen, rejected, "rejected")
        rewards = (margin, 0.0) if margin else (None, None)
        return Comparison(take.prompt(row, "prompt"), chosen, rejected, take.optional_text(row, "dataset"), *rewards)

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; margin 0 where the rewards are unknown."""
        record = cast(Comparison, record)
        row: Row = {
            "prompt": record.prompt.to_messages(),
            "chosen": _assistant(record.chosen),
            "rejected": _assistant(record.rejected),
            "margin": (record.chosen_reward or 0.0) - (record.rejected_reward or 0.0),
        }
        return (with_dataset(row, record.dataset),)


class TrlPreference(Format):
    """Comparisons with their prompt apart."""

    name = "trl-preference"
    description = "TRL reward model and DPO, explicit prompt: messages"
    kind = Comparison

    def matches(self, row: Row) -> bool:
        """By ``prompt`` and ``chosen`` messages."""
        return all(_message_list(row.get(key)) for key in ("prompt", *_REPLY_KEYS))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row."""
        row = rows[0]
        chosen, rejected = (take.single_reply(row, key) for key in _REPLY_KEYS)
        take.different(chosen, rejected, "rejected")
        return Comparison(take.prompt(row, "prompt"), chosen, rejected, take.optional_text(row, "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Comparison, record)
        row: Row = {
            "prompt": record.prompt.to_messages(),
            "chosen": _assistant(record.chosen),
            "rejected": _assistant(record.rejected),
        }
        return (with_dataset(row, record.dataset),)


class TrlImplicit(Format):
    """Comparisons of two whole conversations."""

    name = "trl-preference-implicit"
    description = "TRL reward model, implicit prompt (also Hugging Face's CAI data): two whole conversations"
    kind = Comparison

    def matches(self, row: Row) -> bool:
        """By ``chosen`` and ``rejected`` messages."""
        return all(_message_list(row.get(key)) for key in _REPLY_KEYS)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row, whose conversations differ in their last reply only."""
        chosen, rejected = (_whole(take.messages(rows[0], key), key) for key in _REPLY_KEYS)
        if chosen[0] != rejected[0]:
            raise RowError("rejected", "has another prompt than 'chosen'")
        take.different(chosen[1], rejected[1], "rejected")
        return Comparison(chosen[0], chosen[1], rejected[1], take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Comparison, record)
        row: Row = {
            "chosen": record.prompt.with_turn(Role.ASSISTANT, record.chosen).to_messages(),
            "rejected": record.prompt.with_turn(Role.ASSISTANT, record.rejected).to_messages(),
        }
        return (with_dataset(row, record.dataset),)


def _whole(conversation: Conversation, key: str) -> tuple[Conversation, str]:
    turns = conversation.turns
    if len(turns) < 2 or turns[-1].role is not Role.ASSISTANT or turns[-2].role is not Role.USER:
        raise RowError(key, "must end with a user turn and the assistant's reply to it")
    return conversation.without_last(), turns[-1].content


class TrlUnpaired(Format):
    """Single completions with a verdict."""

    name = "trl-unpaired"
    description = "TRL KTO: prompt and completion messages, label true or false"
    kind = Rated

    def matches(self, row: Row) -> bool:
        """By the keys ``completion`` and ``label``."""
        return "completion" in row and "label" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Rated:
        """One row."""
        row = rows[0]
        reply = take.single_reply(row, "completion")
        return Rated(take.prompt(row, "prompt"), reply, take.truth(row, "label"), take.optional_text(row, "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(Rated, record)
        row: Row = {
            "prompt": record.prompt.to_messages(),
            "completion": _assistant(record.reply),
            "label": record.good,
        }
        return (with_dataset(row, record.dataset),)


class TrlPrompts(Format):
    """Prompts as messages."""

    name = "trl-prompts"
    description = "TRL GRPO and other online trainers: prompts as messages"
    kind = PromptOnly

    def matches(self, row: Row) -> bool:
        """By ``prompt`` messages."""
        return _message_list(row.get("prompt"))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> PromptOnly:
        """One row."""
        return PromptOnly(take.prompt(rows[0], "prompt"), take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row."""
        record = cast(PromptOnly, record)
        return (with_dataset({"prompt": record.prompt.to_messages()}, record.dataset),)


class PlainPrompts(Format):
    """Prompts as texts."""

    name = "plain-prompts"
    description = "prompts as plain texts"
    kind = PromptOnly

    def matches(self, row: Row) -> bool:
        """By a ``prompt`` text."""
        return isinstance(row.get("prompt"), str)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> PromptOnly:
        """One row."""
        prompt = Conversation.of_user(take.text(rows[0], "prompt"))
        return PromptOnly(prompt, take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; raises UsageError for more than one user turn."""
        record = cast(PromptOnly, record)
        return (with_dataset({"prompt": _one_user_turn(record.prompt, self.name)}, record.dataset),)


class AnthropicHh(Format):
    """Anthropic's HH comparisons: two transcripts that differ in their last reply."""

    name = "anthropic-hh"
    description = "Anthropic HH-RLHF: chosen and rejected transcripts"
    kind = Comparison
    lenient = True

    def matches(self, row: Row) -> bool:
        """By ``chosen`` and ``rejected`` texts without a prompt."""
        return all(isinstance(row.get(key), str) for key in _REPLY_KEYS)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Comparison:
        """One row."""
        chosen, rejected = (_whole(_transcript(rows[0], key), key) for key in _REPLY_KEYS)
        if chosen[0] != rejected[0]:
            raise RowError("rejected", "has another prompt than 'chosen'")
        for key, (_, reply) in zip(_REPLY_KEYS, (chosen, rejected), strict=True):
            if not reply:
                raise RowError(key, "has an empty last reply")
        take.different(chosen[1], rejected[1], "rejected")
        return Comparison(chosen[0], chosen[1], rejected[1], take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; raises UsageError for what a transcript cannot hold, such as a system message."""
        record = cast(Comparison, record)
        if not (record.chosen and record.rejected):
            raise UsageError("a transcript cannot hold an empty reply")
        row: Row = {
            key: write_transcript(record.prompt.with_turn(Role.ASSISTANT, reply))
            for key, reply in (("chosen", record.chosen), ("rejected", record.rejected))
        }
        return (with_dataset(row, record.dataset),)


class RedTeam(Format):
    """Anthropic's red-team attempts, of which the prompt is the first human turn."""

    name = "red-team"
    description = "Anthropic red-team attempts: transcripts"
    kind = PromptOnly
    lenient = True

    def matches(self, row: Row) -> bool:
        """By the key ``transcript``."""
        return "transcript" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> PromptOnly:
        """One row."""
        first = _transcript(rows[0], "transcript").messages[0]
        return PromptOnly(Conversation((first,)), take.optional_text(rows[0], "dataset"))

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """One row; raises UsageError for more than one user turn, which would not be read back."""
        record = cast(PromptOnly, record)
        _one_user_turn(record.prompt, self.name)
        return (with_dataset({"transcript": f"{write_transcript(record.prompt)}\n\nAssistant:"}, record.dataset),)


def _transcript(row: Row, key: str) -> Conversation:
    try:
        return parse_transcript(take.text(row, key))
    except TranscriptError as error:
        raise RowError(key, str(error)) from error
