# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Published shapes of instructions, preferences and labels, which are read and which no trainer here reads.

    alpaca                  {"instruction": ..., "input": ..., "output": ..., "history": [[...]], "system": ...}
    question-answer         {"question": ..., "response": ...}, {"prompt": ..., "completion": ...}
    preference-texts        {"question": ..., "chosen": ..., "rejected": ...}; a transcript as the prompt, as rm-static
    sharegpt                {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    sharegpt-preference     {"messages": [...], "chosen": {"role": "assistant", "content": ...}, "rejected": {...}}
    unpaired-conversations  {"messages": [...], "kto_tag": false}
    unpaired-texts          {"prompt": ..., "response": ..., "is_safe": false}

A system message stands in a column of its own, which `data.columns` carries for every format.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import Conversation, Message, NemoChatTemplate, Role
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.base import Format, beside, beside_keys
from nemo_aligner_cai.data.formats.columns import one_of
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import alternating, is_transcript

_QUESTIONS = ("prompt", "question", "query", "input")
_NO_INPUT = ("<noinput>", "<no input>")
"""Self-Instruct's texts for an instruction without an input."""
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
        more = [text for name in _MORE if (text := take.optional_text(row, name)) and _is_input(text)]
        prompt = Conversation.of_user("\n\n".join([take.text(row, key), *more]))
    return Conversation((*_history(row), *prompt.messages))


def _is_input(text: str) -> bool:
    return bool(text.strip()) and text.strip().lower() not in _NO_INPUT


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
        return _asked(row, self._question(row))

    def texts(self, row: Row) -> tuple[Conversation, list[str]]:
        """The prompt, and the replies; those to a transcript without the space before them."""
        question, *keys = self._columns(row)
        trim = is_transcript(take.text(row, question))
        replies = [_reply(row, key) for key in keys]
        return _asked(row, question), [text.strip() for text in replies] if trim else replies

    def _question(self, row: Row) -> str:
        # An "input" is a prompt of its own only where nothing else is one: it belongs to an instruction.
        named = [key for key in self.questions if key != "input" and row.get(key) not in (None, "")]
        return one_of(row, named or ("input",), "prompt")

    def _columns(self, row: Row) -> list[str]:
        return [self._question(row), *(one_of(row, names, "reply") for names in self.replies)]


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


_TURNS = ("conversations", "conversation", "data", "items")
_PAIRS = (("input", "output"), ("human", "assistant"))
"""The keys of a user's text and of the reply to it, in lists that hold both in one object."""


def _pair(item: object) -> tuple[str, str] | None:
    return next((keys for keys in _PAIRS if isinstance(item, dict) and item.keys() >= set(keys)), None)


def _spoken(row: Row, key: str) -> Conversation:
    """A list of messages, of texts of the user and the assistant in turn (LIMA), or of pairs (Capybara, Firefly)."""
    items: object = row.get(key)
    if not isinstance(items, list) or not items:
        return take.messages(row, key)
    texts: list[str] = []
    for item in cast(list[Any], items):
        if keys := _pair(item):
            texts += [take.text(cast(Row, item), name) for name in keys]
        elif isinstance(item, str):
            texts.append(item)
        else:
            return take.messages(row, key)
    return alternating(texts)


class ShareGpt(Published):
    """Conversations with the speakers' names of ShareGPT, or under a key that NeMo's rows do not have."""

    name = "sharegpt"
    description = "ShareGPT, WildChat, LMSYS chat, LIMA, Capybara: conversations from human and gpt (read only)"
    kind = Chat
    lists: ClassVar[Sequence[str]] = _TURNS
    keys = frozenset(_TURNS)

    def matches(self, row: Row) -> bool:
        """By a list of turns that are not NeMo's: another key, other speakers, or no speakers; and no two replies."""
        return not {"chosen", "rejected"} <= row.keys() and any(
            key != "conversations" or not _is_nemo(row[key]) for key in self.lists if _has_turns(row.get(key))
        )

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The turns."""
        return _spoken(row, self._list(row))

    def _list(self, row: Row) -> str:
        return one_of(row, [key for key in self.lists if _has_turns(row.get(key))], "conversation")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        return Chat(self.asks(rows[0], template), **beside(rows[0], Chat))


def _has_turns(value: object) -> bool:
    first: object = cast(list[Any], value)[0] if isinstance(value, list) and value else None
    if isinstance(first, dict):
        return not first.keys().isdisjoint(("role", "from")) or _pair(cast(object, first)) is not None
    return isinstance(first, str)


def _is_nemo(turns: list[Any]) -> bool:
    named = [cast(Row, turn) for turn in turns if isinstance(turn, dict)]
    return len(named) == len(turns) and all(turn.get("from") in ("User", "Assistant") for turn in named)


class ShareGptPreference(ShareGpt):
    """A conversation that ends with the user, and two replies."""

    name = "sharegpt-preference"
    description = "LLaMA-Factory, Axolotl: conversations or messages, chosen and rejected replies (read only)"
    kind = Comparison
    lists = (*_TURNS, "messages")
    keys = frozenset({*lists, "chosen", "rejected"})

    def matches(self, row: Row) -> bool:
        """By the two replies."""
        replies = (row.get("chosen"), row.get("rejected"))
        return any(_has_turns(row.get(key)) for key in self.lists) and all(isinstance(one, dict) for one in replies)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        row = rows[0]
        prompt, (chosen, rejected) = self.asks(row, template), (_reply(row, key) for key in ("chosen", "rejected"))
        if not prompt.turns or prompt.turns[-1].role is not Role.USER:
            raise RowError(self._list(row), "must end with a user turn, to which the two replies are")
        take.different(chosen, rejected, "rejected")
        return Comparison(prompt, chosen, rejected, **beside(row, Comparison))


class UnpairedConversations(ShareGpt):
    """A conversation and whether its last reply is a good one."""

    name = "unpaired-conversations"
    description = "LLaMA-Factory and ms-swift KTO: conversations or messages, kto_tag or label (read only)"
    kind = Rated
    lists = ("conversations", "conversation", "messages")
    verdicts: ClassVar[Sequence[str]] = ("kto_tag", "label")
    keys = frozenset({*lists, *verdicts})

    def matches(self, row: Row) -> bool:
        """By a verdict that is true or false."""
        is_chat = any(_has_turns(row.get(key)) for key in self.lists)
        return is_chat and any(isinstance(row.get(key), bool) for key in self.verdicts)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        row = rows[0]
        good = take.truth(row, one_of(row, self.verdicts, "verdict"))
        prompt, reply = take.split_reply(self.asks(row, template), self._list(row))
        return Rated(prompt, reply, good, **beside(row, Rated))


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
