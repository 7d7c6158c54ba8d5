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
"""NeMo's chat template, as its SFT dataset class renders and masks it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum

from nemo_aligner_cai.conversation.messages import Conversation, Message, Role, require_user_last
from nemo_aligner_cai.conversation.template import ChatTemplate, Segment
from nemo_aligner_cai.errors import UsageError


class LabelType(str, Enum):
    """Where NeMo's chat datasets put a turn's label (the key ``type`` of a row)."""

    VALUE_TO_TEXT = "VALUE_TO_TEXT"
    """Label before the text: a reply conditioned on its attributes."""
    TEXT_TO_VALUE = "TEXT_TO_VALUE"
    """Label after the text: attributes predicted from a reply."""


@dataclass(frozen=True)
class ChatTokens:
    """The keys of ``model.data.chat_prompt_tokens``, with the values of the CAI tutorial."""

    system_turn_start: str = "<extra_id_0>"
    turn_start: str = "<extra_id_1>"
    label_start: str = "<extra_id_2>"
    end_of_turn: str = "\n"
    end_of_name: str = "\n"

    @classmethod
    def from_config(cls, config: Mapping[str, str]) -> "ChatTokens":
        """From a training configuration; raises UsageError on a key that NeMo does not have."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(config) - known):
            raise UsageError(
                f"chat_prompt_tokens: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(known))}"
            )
        return cls(**config)


@dataclass(frozen=True)
class NemoChatTemplate(ChatTemplate):
    """NeMo's chat template, as `GPTSFTChatDataset` renders and masks it (NeMo 2.2.1, gpt_sft_chat_dataset.py).

    No BOS or EOS: that class ignores ``add_bos`` and ``add_eos``.
    """

    tokens: ChatTokens = ChatTokens()
    label_type: LabelType | None = None

    @property
    def stop(self) -> tuple[str, ...]:
        return (self.tokens.turn_start,)

    @property
    def end_of_turn(self) -> str:
        return self.tokens.end_of_turn

    @property
    def assistant_header(self) -> str:
        return self._header(Role.ASSISTANT)

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.tokens.system_turn_start, self.tokens.turn_start, self.tokens.label_start)

    def segments(self, conversation: Conversation) -> list[Segment]:
        segments = [Segment(self._system(conversation), trained=False)]
        for position, turn in enumerate(conversation.turns):
            segments += self._turn_segments(position, turn)
        if conversation.turns and conversation.turns[-1].role is Role.ASSISTANT:
            segments.append(Segment(self.tokens.turn_start, trained=True))
        return segments

    def generation_prompt(self, conversation: Conversation, label: str | None = None) -> str:
        """The text that ends where the assistant is to speak.

        Args:
            conversation: ends with a user turn.
            label: the attributes to condition the reply on, for a model taught with VALUE_TO_TEXT.

        Raises:
            UsageError: the conversation does not end with a user turn.
        """
        require_user_last(conversation)
        turns = "".join(self._header(turn.role) + self._body(turn) for turn in conversation.turns)
        start = self._label(label) if self.label_type is LabelType.VALUE_TO_TEXT else ""
        return self._system(conversation) + turns + self.assistant_header + start

    def _system(self, conversation: Conversation) -> str:
        tokens = self.tokens
        return f"{tokens.system_turn_start}System{tokens.end_of_name}{conversation.system}{tokens.end_of_turn}"

    def _header(self, role: Role) -> str:
        return f"{self.tokens.turn_start}{role.speaker}{self.tokens.end_of_name}"

    def _label(self, label: str | None) -> str:
        return "" if label is None else f"{self.tokens.label_start}{label}{self.tokens.end_of_name}"

    def _body(self, turn: Message) -> str:
        text = turn.content + self.tokens.end_of_turn
        if self.label_type is LabelType.VALUE_TO_TEXT:
            return self._label(turn.label) + text
        if self.label_type is LabelType.TEXT_TO_VALUE:
            return text + self._label(turn.label)
        return text

    def _turn_segments(self, position: int, turn: Message) -> list[Segment]:
        # NeMo's rules: the first turn is context; a later user turn teaches only its first token, the end of the
        # reply before it; an assistant turn teaches its text, or its label alone where labels are predicted.
        header, body = self._header(turn.role), self._body(turn)
        predicts_label = self.label_type is LabelType.TEXT_TO_VALUE
        if turn.role is Role.USER:
            learnt = self.tokens.turn_start if position > 1 or (position == 1 and predicts_label) else ""
            return [Segment(learnt, trained=True), Segment((header + body).removeprefix(learnt), trained=False)]
        if position == 0 and not predicts_label:
            return [Segment(header + body, trained=False)]
        context = ""
        if turn.label is not None and predicts_label:
            context = body[: -len(turn.label + self.tokens.end_of_name)]
        elif turn.label is not None and self.label_type is LabelType.VALUE_TO_TEXT:
            context = self._label(turn.label)
        return [Segment(header + context, trained=False), Segment(body.removeprefix(context), trained=True)]


NEMO_CHAT = NemoChatTemplate()
"""The template of the CAI tutorial."""
