# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""NeMo's chat template and its loss mask, as in its SFT dataset class."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from typing import cast

from nemo_aligner_cai.chat.messages import Conversation, Message, Role, require_user_last
from nemo_aligner_cai.chat.template import ChatTemplate
from nemo_aligner_cai.errors import UsageError


class LabelType(str, Enum):
    """The place of a turn's label in NeMo's chat datasets (the key ``type`` of a row)."""

    VALUE_TO_TEXT = "VALUE_TO_TEXT"
    """Before the text: a reply conditioned on its attributes."""
    TEXT_TO_VALUE = "TEXT_TO_VALUE"
    """After the text: attributes predicted from a reply."""


@dataclass(frozen=True)
class ChatTokens:
    """The keys of ``model.data.chat_prompt_tokens``, with the values of the CAI tutorial."""

    system_turn_start: str = "<extra_id_0>"
    turn_start: str = "<extra_id_1>"
    label_start: str = "<extra_id_2>"
    end_of_turn: str = "\n"
    end_of_name: str = "\n"


@dataclass(frozen=True)
class Segment:
    """A piece of rendered text; `trained` is True if SFT computes its loss there."""

    text: str
    trained: bool


@dataclass(frozen=True)
class NemoChatTemplate(ChatTemplate):
    """The template of `GPTSFTChatDataset` (NeMo 2.2.1, gpt_sft_chat_dataset.py).

    No BOS or EOS: that class ignores ``add_bos`` and ``add_eos``.
    """

    tokens: ChatTokens = ChatTokens()
    label_type: LabelType | None = None

    @classmethod
    def from_config(cls, tokens: object, where: str = "chat_prompt_tokens") -> "NemoChatTemplate":
        """Build the template of a training configuration; None for the tutorial's tokens.

        Raises:
            UsageError: NeMo has no such key, or a token is not a non-empty string; the message starts with `where`.
        """
        if tokens is None:
            return NEMO_CHAT
        if not isinstance(tokens, Mapping):
            raise UsageError(f"{where}={tokens}: a mapping is needed, such as {{turn_start: <extra_id_1>}}")
        given, known = cast(Mapping[str, object], tokens), {item.name for item in fields(ChatTokens)}
        for name, token in given.items():
            if name not in known:
                raise UsageError(f"{where}: unknown key {name!r}; known: {', '.join(sorted(known))}")
            if not isinstance(token, str) or not token:
                raise UsageError(f"{where}.{name}={token}: must be a non-empty string")
        return cls(ChatTokens(**cast(Mapping[str, str], given)))

    @classmethod
    def of_model(cls, data: object, model: str) -> "NemoChatTemplate | None":
        """The template that a NeMo model was trained with; None if it was trained without one.

        SFT writes it into the model's configuration, and later stages keep it.

        Args:
            data: the section ``data`` of the model's configuration.
            model: the model, for messages.

        Raises:
            UsageError: as `from_config` does.
        """
        if not isinstance(data, Mapping):
            return None
        settings = cast(Mapping[str, object], data)
        tokens = settings.get("chat_prompt_tokens")
        # NeMo's own configuration of SFT has tokens too if it trains no chats.
        if settings.get("chat") is False or (tokens is None and settings.get("chat") is not True):
            return None
        if isinstance(tokens, Mapping):
            tokens = {name: token for name, token in cast(Mapping[str, object], tokens).items() if token is not None}
        return cls.from_config(tokens, f"{model}: data.chat_prompt_tokens")

    @property
    def stop(self) -> tuple[str, ...]:
        """The first token of a turn, which NeMo also trains as the end of the last reply."""
        return (self.tokens.turn_start,)

    @property
    def end_of_turn(self) -> str:
        """The token of that name."""
        return self.tokens.end_of_turn

    @property
    def reply_end(self) -> str:
        """The end of the turn and the start of the next; with TEXT_TO_VALUE, of a reply without a label."""
        return self.tokens.end_of_turn + self.tokens.turn_start

    @property
    def assistant_header(self) -> str:
        """The turn's first token, "Assistant" and the end of a name."""
        return self.turn_header(Role.ASSISTANT)

    @property
    def template_tokens(self) -> tuple[str, ...]:
        """The tokens that start or end a turn or a label, except white space."""
        tokens = self.tokens
        ends = tuple(token for token in (tokens.end_of_turn, tokens.end_of_name) if token.strip())
        return (tokens.system_turn_start, tokens.turn_start, tokens.label_start, *ends)

    @property
    def jinja(self) -> str:
        """The template in Jinja, for transformers' `apply_chat_template`; labels are not supported."""
        tokens = self.tokens
        user, assistant = (_in_jinja(self.turn_header(role)) for role in (Role.USER, Role.ASSISTANT))
        end, turn = _in_jinja(tokens.end_of_turn), _in_jinja(tokens.turn_start)
        return (
            "{%- set first = messages[0].role == 'system' -%}"
            f"{{{{- {_in_jinja(self._start)} + (messages[0].content if first else '') + {end} -}}}}"
            "{%- for message in (messages[1:] if first else messages) -%}"
            f"{{%- if message.role == 'user' -%}}{{{{- {user} + message.content + {end} -}}}}"
            f"{{%- elif message.role == 'assistant' -%}}{{{{- {assistant} + message.content + {end} -}}}}"
            "{%- else -%}{{- raise_exception('a system message must be the first, and other roles than user and "
            "assistant are unknown: ' + message.role) -}}{%- endif -%}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{- {assistant} -}}}}"
            f"{{%- elif messages[-1].role == 'assistant' -%}}{{{{- {turn} -}}}}{{%- endif -%}}"
        )

    def render(self, conversation: Conversation) -> str:
        """The whole conversation as SFT trains on it."""
        last = conversation.messages[-1].role if conversation.messages else None
        return self._text(conversation) + (self.tokens.turn_start if last is Role.ASSISTANT else "")

    def segments(self, conversation: Conversation) -> list[Segment]:
        """The rendered text in pieces, with the loss mask of ``mask: User``."""
        return [segment for group in self.segment_groups(conversation) for segment in group]

    def segment_groups(self, conversation: Conversation) -> list[tuple[Segment, ...]]:
        """The segments of the header, of each turn, and of the end; NeMo tokenizes each group separately."""
        header = self._start + conversation.system + self.tokens.end_of_turn
        groups: list[tuple[Segment, ...]] = [(Segment(header, trained=False),)]
        groups += [self._turn_segments(position, turn) for position, turn in enumerate(conversation.turns)]
        if conversation.turns and conversation.turns[-1].role is Role.ASSISTANT:
            groups.append((Segment(self.tokens.turn_start, trained=True),))
        return groups

    def generation_prompt(self, conversation: Conversation) -> str:
        """The text that ends where the assistant speaks next; raises UsageError unless a user turn is the last."""
        require_user_last(conversation)
        return self._text(conversation) + self._headers[1]

    def parse(self, text: str) -> Conversation:
        """Parse a rendered text, or a generation prompt (the conversation then ends with a user turn).

        Raises:
            UsageError: this template does not render that text; the message gives the place.
        """
        start, turn_start = self._start, self.tokens.turn_start
        if not text.startswith(start):
            raise UsageError(f"must start with {start!r}, got {text[: len(start)]!r}")
        system, *turns = text[len(start) :].split(turn_start)
        system = self._without_end(system, None)
        messages = [Message(Role.SYSTEM, system)] if system else []
        last = turns.pop() if turns and turns[-1] in ("", self._names[1]) else None
        messages += [self._parse_turn(position, turn) for position, turn in enumerate(turns)]
        role = messages[-1].role if turns else None
        if last == "" and role is not Role.ASSISTANT:
            raise UsageError(f"ends with {turn_start!r}, which may follow only an assistant turn")
        if last is None and role is Role.ASSISTANT:
            raise UsageError(f"must end with {turn_start!r} after the assistant's last turn")
        if last and role is not Role.USER:
            raise UsageError("a prompt must have a user turn before the assistant's header")
        return Conversation(tuple(messages))

    def _parse_turn(self, position: int, text: str) -> Message:
        user, assistant = self._names
        if text.startswith(user):
            role, body = Role.USER, text[len(user) :]
        elif text.startswith(assistant):
            role, body = Role.ASSISTANT, text[len(assistant) :]
        else:
            raise UsageError(f"turn {position}: must start with 'User' or 'Assistant', got {text[:20]!r}")
        body, label = (body, None) if self.label_type is None else self._split_label(body)
        return Message(role, self._without_end(body, position), label)

    def _split_label(self, body: str) -> tuple[str, str | None]:
        tokens, label = self.tokens, None
        if self.label_type is LabelType.VALUE_TO_TEXT and body.startswith(tokens.label_start):
            label, _, body = body.removeprefix(tokens.label_start).partition(tokens.end_of_name)
        elif self.label_type is LabelType.TEXT_TO_VALUE and tokens.label_start in body:
            body, _, label = body.rpartition(tokens.label_start)
            label = label.removesuffix(tokens.end_of_name)
        return body, label

    def _without_end(self, text: str, turn: int | None) -> str:
        end = self.tokens.end_of_turn
        if text.endswith(end):
            return text.removesuffix(end)
        where = "the system message" if turn is None else f"turn {turn}"
        raise UsageError(f"{where}: must end with {end!r}, got {text[-20:]!r}")

    def turn_header(self, role: Role) -> str:
        """The text before a turn's content: the token, the speaker's name and its end."""
        return self._headers[0 if role is Role.USER else 1]

    @cached_property
    def _names(self) -> tuple[str, str]:
        return "User" + self.tokens.end_of_name, "Assistant" + self.tokens.end_of_name

    @cached_property
    def _headers(self) -> tuple[str, str]:
        user, assistant = self._names
        return self.tokens.turn_start + user, self.tokens.turn_start + assistant

    @cached_property
    def _start(self) -> str:
        return f"{self.tokens.system_turn_start}System{self.tokens.end_of_name}"

    def _text(self, conversation: Conversation) -> str:
        """The header and the turns, without the text after a last reply."""
        (user, assistant), end = self._headers, self.tokens.end_of_turn
        parts = [self._start, conversation.system, end]
        for turn in conversation.turns:
            header = user if turn.role is Role.USER else assistant
            parts += (header, turn.content, end) if self.label_type is None else (header, self._body(turn))
        return "".join(parts)

    def _label(self, label: str | None) -> str:
        return "" if label is None else f"{self.tokens.label_start}{label}{self.tokens.end_of_name}"

    def _body(self, turn: Message) -> str:
        text = turn.content + self.tokens.end_of_turn
        if self.label_type is LabelType.VALUE_TO_TEXT:
            return self._label(turn.label) + text
        if self.label_type is LabelType.TEXT_TO_VALUE:
            return text + self._label(turn.label)
        return text

    def _turn_segments(self, position: int, turn: Message) -> tuple[Segment, ...]:
        # NeMo's rules: the first turn is context; of a later user turn only the first token is trained, as the end of
        # the reply before it; of an assistant turn its text, or only its label if labels are predicted.
        header, body = self.turn_header(turn.role), self._body(turn)
        predicts_label = self.label_type is LabelType.TEXT_TO_VALUE
        if turn.role is Role.USER:
            trained = self.tokens.turn_start if position > 1 or (position == 1 and predicts_label) else ""
            return Segment(trained, trained=True), Segment((header + body).removeprefix(trained), trained=False)
        if position == 0 and not predicts_label:
            return (Segment(header + body, trained=False),)
        context = ""
        if turn.label is not None and predicts_label:
            context = body[: -len(turn.label + self.tokens.end_of_name)]
        elif turn.label is not None and self.label_type is LabelType.VALUE_TO_TEXT:
            context = self._label(turn.label)
        return Segment(header + context, trained=False), Segment(body.removeprefix(context), trained=True)


def _in_jinja(text: str) -> str:
    # The escape sequences of JSON are valid in Jinja's string literals.
    return json.dumps(text, ensure_ascii=False)


NEMO_CHAT = NemoChatTemplate()
"""The template of the CAI tutorial."""
