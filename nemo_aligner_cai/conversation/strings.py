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
"""Chat templates given by one string per role, as upstream's command-line flags give them."""

import re
from dataclasses import dataclass

from nemo_aligner_cai.conversation.messages import Conversation, Role, require_user_last
from nemo_aligner_cai.conversation.template import ChatTemplate, Segment
from nemo_aligner_cai.errors import UsageError

_PLACE = "{MESSAGE}"


@dataclass(frozen=True)
class StringTemplate(ChatTemplate):
    """A template given by one string per role, as upstream's seven command-line flags give it.

    The user's string may contain the assistant's header, as upstream's defaults do, or the assistant's own string
    may start with it.

    Raises:
        UsageError: a string without exactly one ``{MESSAGE}``, or a default system message without a system string.
    """

    user_format: str
    assistant_format: str
    system_format: str | None = None
    system_default_message: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    response_extract_pattern: str | None = None

    def __post_init__(self) -> None:
        for name in ("user_format", "assistant_format", "system_format"):
            text = getattr(self, name)
            if text is not None and text.count(_PLACE) != 1:
                raise UsageError(f"--{name} must contain {_PLACE} exactly once, it is {text!r}")
        if self.system_default_message and self.system_format is None:
            raise UsageError("--system_default_message needs --system_format")

    @property
    def stop(self) -> tuple[str, ...]:
        return (self.eos_token,) if self.eos_token else ()

    @property
    def end_of_turn(self) -> str:
        suffix = self.assistant_format.split(_PLACE)[1]
        return suffix.split(self.eos_token)[0] if self.eos_token else suffix

    @property
    def assistant_header(self) -> str:
        if self.response_extract_pattern:
            return self.response_extract_pattern
        return self.assistant_format.split(_PLACE)[0] or self.user_format.split(_PLACE)[1]

    @property
    def markers(self) -> tuple[str, ...]:
        strings = (self.user_format, self.assistant_format, self.system_format or "")
        parts = {part.strip() for text in strings for part in re.split(r"\{MESSAGE\}|\n", text)}
        parts |= {(token or "").strip() for token in (self.bos_token, self.eos_token)}
        # "<extra_id_1>User" and "<extra_id_1>Assistant" share the token that gives them their meaning.
        parts |= {found for part in parts for found in re.findall(r"<[^<>\s]+>|\[/?[A-Z]+\]", part)}
        return tuple(sorted(part for part in parts if part))

    def segments(self, conversation: Conversation) -> list[Segment]:
        start = (self.bos_token or "") + self._system(conversation)
        segments = [Segment(start, trained=False)]
        for turn in conversation.turns:
            before, after = self._format(turn.role).split(_PLACE)
            if turn.role is Role.ASSISTANT:
                segments += [Segment(before, trained=False), Segment(turn.content + after, trained=True)]
            else:
                segments.append(Segment(before + turn.content + after, trained=False))
        if self.eos_token and self.eos_token not in self.assistant_format and _ends_with_reply(conversation):
            segments.append(Segment(self.eos_token, trained=True))
        return segments

    def generation_prompt(self, conversation: Conversation) -> str:
        require_user_last(conversation)
        return self.render(conversation) + self.assistant_format.split(_PLACE)[0]

    def _format(self, role: Role) -> str:
        return self.user_format if role is Role.USER else self.assistant_format

    def _system(self, conversation: Conversation) -> str:
        text = conversation.system or self.system_default_message
        if self.system_format is None:
            if text:
                raise UsageError("this chat template has no place for a system message; give --system_format")
            return ""
        return "" if text is None else self.system_format.replace(_PLACE, text)


def _ends_with_reply(conversation: Conversation) -> bool:
    return bool(conversation.turns) and conversation.turns[-1].role is Role.ASSISTANT


MISTRAL_INSTRUCT = StringTemplate(
    user_format="[INST] {MESSAGE} [/INST]",
    assistant_format="{MESSAGE}</s> ",
    bos_token="<s>",
    eos_token="</s>",
    response_extract_pattern="[/INST]",
)
"""Mistral-7B-Instruct's template. Its replies keep no space before the text, as upstream's template has it."""
