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
"""Published shapes of instructions, preferences and labels, which are read and which no trainer here reads.

    alpaca                  {"instruction": ..., "input": ..., "output": ..., "history": [[...]], "system": ...}
    question-answer         {"question": ..., "response": ...}, {"prompt": ..., "completion": ...}
    preference-texts        {"question": ..., "chosen": ..., "rejected": ...}; a transcript as the prompt, as rm-static
    sharegpt                {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    unpaired-texts          {"prompt": ..., "response": ..., "is_safe": false}

A system message stands in a column of its own, which `data.columns` carries for every format.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.conversation import Conversation, Message, NemoChatTemplate, Role
from nemo_aligner_cai.data import rows as take
from nemo_aligner_cai.data.columns import one_of
from nemo_aligner_cai.data.format import Format, beside, beside_keys
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.data.rows import RowError
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.transcript import is_transcript

_QUESTIONS = ("prompt", "question", "query")
_MORE = ("input", "context")
_ANSWERS = ("output", "response", "completion", "answer")


class Published(Format):
    """A format that is read and not written."""

    read_only = True

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """Raises UsageError."""
        raise UsageError(f"{self.name} is a format of published data, which no trainer here reads; choose another")


def _has_text(row: Row, keys: Sequence[str]) -> bool:
    return any(isinstance(row.get(key), str) for key in keys)


def _asked(row: Row, key: str) -> Conversation:
    """The turns of ``history``, then an instruction with its input, a question, or a transcript."""
    prompt = take.question(row, key)
    if key == "instruction":
        more = [text for name in _MORE if (text := take.optional_text(row, name)) and text.strip()]
        prompt = Conversation.of_user("\n\n".join([take.text(row, key), *more]))
    return Conversation((*_history(row), *prompt.messages))


def _history(row: Row) -> tuple[Message, ...]:
    pairs: object = row.get("history")
    if pairs in (None, "", []):
        return ()
    turns: list[Message] = []
    for pair in cast(list[Any], pairs if isinstance(pairs, list) else [pairs]):
        match pair:
            case [str(question), str(answer)]:
                turns += [Message(Role.USER, question), Message(Role.ASSISTANT, answer)]
            case _:
                raise RowError("history", "must be a list of pairs, a user's text and the reply to it")
    return tuple(turns)


def _reply(row: Row, key: str) -> str:
    """A reply that is a text, or one assistant message."""
    value: object = row.get(key)
    if isinstance(value, (dict, list)):
        return take.single_reply({key: [value] if isinstance(value, dict) else value}, key)
    return take.text(row, key)


class _Texts(Published):
    """Rows with a prompt and replies to it, each in a column of one of several names."""

    questions: ClassVar[Sequence[str]]
    replies: ClassVar[Sequence[Sequence[str]]]
    """The names of each reply's column."""
    verdicts: ClassVar[Sequence[str]] = ()

    def matches(self, row: Row) -> bool:
        """By the names and types of the columns."""
        return all(_has_text(row, names) for names in (self.questions, *self.replies))

    def known_keys(self, row: Row) -> frozenset[str]:
        """The columns that are used."""
        question, *replies = self._columns(row)
        more = _MORE if question == "instruction" else ()
        return frozenset({"history", question, *replies, *more, *self.verdicts}) | beside_keys(self.kind)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The prompt."""
        return _asked(row, one_of(row, self.questions, "prompt"))

    def texts(self, row: Row) -> tuple[Conversation, list[str]]:
        """The prompt, and the replies; those to a transcript without the space before them."""
        question, *keys = self._columns(row)
        trim = is_transcript(take.text(row, question))
        replies = [_reply(row, key) for key in keys]
        return _asked(row, question), [text.strip() for text in replies] if trim else replies

    def _columns(self, row: Row) -> list[str]:
        return [one_of(row, self.questions, "prompt"), *(one_of(row, names, "reply") for names in self.replies)]


class Alpaca(_Texts):
    """An instruction, which may have an input, and its output."""

    name = "alpaca"
    description = "Alpaca, Dolly: instruction, input or context, output; history and system (read only)"
    kind = Chat
    questions = ("instruction",)
    replies = (_ANSWERS,)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        prompt, (answer,) = self.texts(rows[0])
        return Chat(prompt.with_turn(Role.ASSISTANT, answer), **beside(rows[0], Chat))


class QuestionAnswer(Alpaca):
    """A question and its answer."""

    name = "question-answer"
    description = "a question and its answer as texts, as Orca, TRL's prompt and completion (read only)"
    questions = _QUESTIONS


class UnpairedTexts(_Texts):
    """A reply and whether it is a good one."""

    name = "unpaired-texts"
    description = "a prompt, a reply and label, kto_tag or is_safe: BeaverTails, KTO as texts (read only)"
    kind = Rated
    questions = ("instruction", *_QUESTIONS)
    replies = (_ANSWERS,)
    verdicts = ("label", "kto_tag", "is_safe")

    def matches(self, row: Row) -> bool:
        """By the texts and a verdict that is true or false."""
        return super().matches(row) and any(_verdict(row.get(key)) is not None for key in self.verdicts)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        row = rows[0]
        key = one_of(row, self.verdicts, "verdict")
        good = _verdict(row[key])
        if good is None:
            raise RowError(key, "must be true or false")
        prompt, (answer,) = self.texts(row)
        return Rated(prompt, answer, good, **beside(row, Rated))


def _verdict(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.lower())
    return bool(value) if isinstance(value, (bool, int)) and value in (0, 1) else None


class PreferenceTexts(_Texts):
    """A prompt and two replies; the prompt is a text, and in HH's copies a transcript."""

    name = "preference-texts"
    description = "a prompt, chosen and rejected as texts: rm-static, Orca DPO pairs, Argilla (read only)"
    kind = Comparison
    questions = ("instruction", *_QUESTIONS)
    replies = (("chosen", "chosen_response"), ("rejected", "rejected_response"))

    def matches(self, row: Row) -> bool:
        """By the columns, but for rows that trainers read: their ``prompt`` is a plain text, or has the template."""
        if not _has_text(row, self.questions) or not all(any(map(row.get, names)) for names in self.replies):
            return False
        prompt, chosen = row.get("prompt"), row.get("chosen")
        if not isinstance(prompt, str):
            return not isinstance(chosen, list) or _is_reply(cast(object, chosen))
        if "chosen_response" in row:
            return "<extra_id_" not in prompt
        is_whole = isinstance(chosen, str) and is_transcript(chosen)
        return (is_transcript(prompt) and isinstance(chosen, str) and not is_whole) or _is_reply(chosen)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        prompt, (chosen, rejected) = self.texts(rows[0])
        take.different(chosen, rejected, "rejected")
        return Comparison(prompt, chosen, rejected, **beside(rows[0], Comparison))


def _is_reply(value: object) -> bool:
    items: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
    return len(items) == 1 and isinstance(items[0], dict) and cast(Row, items[0]).get("role") == Role.ASSISTANT.value


class ShareGpt(Published):
    """Conversations with the speakers' names of ShareGPT, or under the key ``conversation``."""

    name = "sharegpt"
    description = "ShareGPT, WildChat, LMSYS chat: conversations from human and gpt (read only)"
    kind = Chat
    keys = frozenset({"conversations", "conversation"})

    def matches(self, row: Row) -> bool:
        """By a speaker's name that NeMo's rows do not have."""
        if isinstance(row.get("conversation"), list):
            return True
        turns: object = row.get("conversations")
        if not isinstance(turns, list):
            return False
        items = [cast(Row, item) for item in cast(list[Any], turns) if isinstance(item, dict)]
        return any(item.get("from") not in ("User", "Assistant") for item in items)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The turns."""
        return take.messages(row, one_of(row, ("conversations", "conversation"), "conversation"))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        return Chat(self.asks(rows[0], template), **beside(rows[0], Chat))


class ShareGptPreference(ShareGpt):
    """A ShareGPT conversation that ends with the user, and two replies."""

    name = "sharegpt-preference"
    description = "LLaMA-Factory preferences: conversations, chosen and rejected messages (read only)"
    kind = Comparison
    keys = frozenset({"conversations", "conversation", "chosen", "rejected"})

    def matches(self, row: Row) -> bool:
        """By the two replies."""
        return super().matches(row) and isinstance(row.get("chosen"), dict)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        row = rows[0]
        prompt, (chosen, rejected) = self.asks(row, template), (_reply(row, key) for key in ("chosen", "rejected"))
        if not prompt.turns or prompt.turns[-1].role is not Role.USER:
            raise RowError("conversations", "must end with a user turn, to which the two replies are")
        take.different(chosen, rejected, "rejected")
        return Comparison(prompt, chosen, rejected, **beside(row, Comparison))


class PromptCompletion(Published):
    """A prompt and its completion as messages."""

    name = "trl-prompt-completion"
    description = "TRL prompt and completion as messages (read only)"
    kind = Chat
    keys = frozenset({"prompt", "completion"})

    def matches(self, row: Row) -> bool:
        """By the two lists."""
        return isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The prompt."""
        return take.messages(row, "prompt")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        conversation = take.prompt(rows[0], "prompt").with_turn(Role.ASSISTANT, _reply(rows[0], "completion"))
        return Chat(conversation, **beside(rows[0], Chat))
