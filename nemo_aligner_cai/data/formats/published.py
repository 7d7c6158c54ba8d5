# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Read-only formats of published instructions, preferences and labels.

    alpaca                  {"instruction": ..., "input": ..., "output": ..., "history": [[...]], "system": ...}
    question-answer         {"question": ..., "response": ...}, {"prompt": ..., "completion": ...}
    preference-texts        {"question": ..., "chosen": ..., "rejected": ...}; a transcript as the prompt, as rm-static
    sharegpt                {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
    sharegpt-preference     {"messages": [...], "chosen": {"role": "assistant", "content": ...}, "rejected": {...}}
    unpaired-conversations  {"messages": [...], "kto_tag": false}
    unpaired-texts          {"prompt": ..., "response": ..., "is_safe": false}

`data.formats.unread_columns` carries a system message from a separate column for every format.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import Conversation, Message, NemoChatTemplate, Role
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.base import Format, metadata_keys, read_metadata
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.formats.unread_columns import PAIR_KEYS, one_of
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import alternating, is_transcript

_QUESTIONS = ("prompt", "question", "query", "input")
_NO_INPUT = ("", "<noinput>", "<no input>")
"""The texts of an instruction without an input. Self-Instruct uses the last two."""
_INPUTS = ("input", "context")
_ANSWERS = ("output", "response", "completion", "answer")


def _read_question(row: Row, key: str) -> Conversation:
    """The turns of ``history``, then an instruction with its input, a question, or a transcript."""
    prompt = row_values.question(row, key)
    if key == "instruction":
        inputs = [row_values.optional_text(row, name) or "" for name in _INPUTS]
        inputs = [text for text in inputs if text.strip().lower() not in _NO_INPUT]
        prompt = Conversation.of_user("\n\n".join([row_values.text(row, key), *inputs]))
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
                raise RowError("history", "must be a list of pairs [user's text, reply]")
    return tuple(turns)


def _read_reply(row: Row, key: str) -> str:
    """A reply that is a string or one assistant message."""
    value: object = row.get(key)
    if isinstance(value, (dict, list)):
        return row_values.single_reply({key: [value] if isinstance(value, dict) else value}, key)
    return row_values.text(row, key)


class _Texts(Format):
    """Rows with a prompt and its replies. Each is in one column, which has one of several names."""

    read_only = True
    questions: ClassVar[Sequence[str]]
    replies: ClassVar[Sequence[Sequence[str]]]
    """The column names of each reply."""
    verdicts: ClassVar[Sequence[str]] = ()

    def matches(self, row: Row) -> bool:
        return all(any(isinstance(row.get(key), str) for key in names) for names in (self.questions, *self.replies))

    def known_keys(self, row: Row) -> frozenset[str]:
        question, *replies = self._columns(row)
        inputs = _INPUTS if question == "instruction" else ()
        return frozenset({"history", question, *replies, *inputs, *self.verdicts}) | metadata_keys(self.kind)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return _read_question(row, self._question(row))

    def texts(self, row: Row) -> tuple[Conversation, list[str]]:
        """The prompt and the replies. After a transcript, replies are stripped."""
        question, *keys = self._columns(row)
        strip = is_transcript(row_values.text(row, question))
        replies = [_read_reply(row, key) for key in keys]
        return _read_question(row, question), [text.strip() for text in replies] if strip else replies

    def _question(self, row: Row) -> str:
        # An "input" is a prompt only if there is no other prompt: it may belong to an instruction.
        named = [key for key in self.questions if key != "input" and row.get(key) not in (None, "")]
        return one_of(row, named or ("input",), "prompt")

    def _columns(self, row: Row) -> list[str]:
        return [self._question(row), *(one_of(row, names, "reply") for names in self.replies)]


class Alpaca(_Texts):
    """An instruction with an optional input, and its output."""

    name = "alpaca"
    description = "Alpaca, Dolly: instruction, input or context, output; history and system (read only)"
    kind = Chat
    questions = ("instruction",)
    replies = (_ANSWERS,)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        prompt, (answer,) = self.texts(rows[0])
        return Chat(prompt.with_turn(Role.ASSISTANT, answer), **read_metadata(rows[0], Chat))


class QuestionAnswer(Alpaca):
    """A question and its answer."""

    name = "question-answer"
    description = "a question and its answer as texts, as Orca, TRL's prompt and completion (read only)"
    questions = _QUESTIONS


class UnpairedTexts(_Texts):
    """A reply labeled good or bad."""

    name = "unpaired-texts"
    description = "a prompt, a reply and label, kto_tag or is_safe: BeaverTails, KTO as texts (read only)"
    kind = Rated
    questions = ("instruction", *_QUESTIONS)
    replies = (_ANSWERS,)
    verdicts = ("label", "kto_tag", "is_safe")

    def matches(self, row: Row) -> bool:
        return super().matches(row) and any(_verdict(row.get(key)) is not None for key in self.verdicts)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row = rows[0]
        key = one_of(row, self.verdicts, "verdict")
        good = _verdict(row[key])
        if good is None:
            raise RowError(key, "must be true or false")
        prompt, (answer,) = self.texts(row)
        return Rated(prompt, answer, good, **read_metadata(row, Rated))


def _verdict(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.lower())
    return bool(value) if isinstance(value, (bool, int)) and value in (0, 1) else None


class PreferenceTexts(_Texts):
    """A prompt and two replies. The prompt is a string; in copies of HH, it is a transcript."""

    name = "preference-texts"
    description = "a prompt, chosen and rejected as texts: rm-static, Orca DPO pairs, Argilla (read only)"
    kind = Comparison
    questions = ("instruction", *_QUESTIONS)
    replies = (("chosen", "chosen_response"), ("rejected", "rejected_response"))

    def matches(self, row: Row) -> bool:
        if not any(isinstance(row.get(key), str) for key in self.questions):
            return False
        if not all(any(map(row.get, names)) for names in self.replies):
            return False
        # Trainers' own rows with these keys have a plain prompt, or one with template tokens.
        prompt, chosen = row.get("prompt"), row.get("chosen")
        if not isinstance(prompt, str):
            return not isinstance(chosen, list) or _is_reply(cast(object, chosen))
        if "chosen_response" in row:
            return "<extra_id_" not in prompt
        is_whole = isinstance(chosen, str) and is_transcript(chosen)
        return (is_transcript(prompt) and isinstance(chosen, str) and not is_whole) or _is_reply(chosen)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        prompt, (chosen, rejected) = self.texts(rows[0])
        row_values.require_different(chosen, rejected, "rejected")
        return Comparison(prompt, chosen, rejected, **read_metadata(rows[0], Comparison))


def _is_reply(value: object) -> bool:
    items: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
    return len(items) == 1 and isinstance(items[0], dict) and cast(Row, items[0]).get("role") == Role.ASSISTANT.value


_TURNS = ("conversations", "conversation", "data", "items")


def _pair_keys(item: object) -> tuple[str, str] | None:
    return next((keys for keys in PAIR_KEYS if isinstance(item, dict) and item.keys() >= set(keys)), None)


def _read_turns(row: Row, key: str) -> Conversation:
    """A list of messages, of alternating texts of user and assistant (LIMA), or of pairs (Capybara, Firefly)."""
    texts: list[str] = []
    for item in cast(list[Any], row[key]):
        if keys := _pair_keys(item):
            texts += [row_values.text(cast(Row, item), name) for name in keys]
        elif isinstance(item, str):
            texts.append(item)
        else:
            return row_values.messages(row, key)
    return alternating(texts)


class ShareGpt(Format):
    """Conversations with ShareGPT's speaker names, or under a key that NeMo's rows do not have."""

    name = "sharegpt"
    description = "ShareGPT, WildChat, LMSYS chat, LIMA, Capybara: conversations from human and gpt (read only)"
    kind = Chat
    read_only = True
    lists: ClassVar[Sequence[str]] = _TURNS
    keys = frozenset(_TURNS)

    def matches(self, row: Row) -> bool:
        return not {"chosen", "rejected"} <= row.keys() and any(
            key != "conversations" or not _is_nemo(row[key]) for key in self.lists if _has_turns(row.get(key))
        )

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return _read_turns(row, self._list(row))

    def _list(self, row: Row) -> str:
        return one_of(row, [key for key in self.lists if _has_turns(row.get(key))], "conversation")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        return Chat(self.read_prompt(rows[0], template), **read_metadata(rows[0], Chat))


def _has_turns(value: object) -> bool:
    first: object = cast(list[Any], value)[0] if isinstance(value, list) and value else None
    if isinstance(first, dict):
        return not first.keys().isdisjoint(("role", "from")) or _pair_keys(cast(object, first)) is not None
    return isinstance(first, str)


def _is_nemo(turns: list[Any]) -> bool:
    return all(isinstance(turn, dict) and cast(Row, turn).get("from") in ("User", "Assistant") for turn in turns)


class ShareGptPreference(ShareGpt):
    """A conversation that ends with the user, and two replies."""

    name = "sharegpt-preference"
    description = "LLaMA-Factory, Axolotl: conversations or messages, chosen and rejected replies (read only)"
    kind = Comparison
    lists = (*_TURNS, "messages")
    keys = frozenset({*lists, "chosen", "rejected"})

    def matches(self, row: Row) -> bool:
        replies = (row.get("chosen"), row.get("rejected"))
        return any(_has_turns(row.get(key)) for key in self.lists) and all(isinstance(one, dict) for one in replies)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row = rows[0]
        prompt = self.read_prompt(row, template)
        chosen, rejected = (_read_reply(row, key) for key in ("chosen", "rejected"))
        if not prompt.turns or prompt.turns[-1].role is not Role.USER:
            raise RowError(self._list(row), "must end with a user turn that the two replies answer")
        row_values.require_different(chosen, rejected, "rejected")
        return Comparison(prompt, chosen, rejected, **read_metadata(row, Comparison))


class UnpairedConversations(ShareGpt):
    """A conversation whose last reply is labeled good or bad."""

    name = "unpaired-conversations"
    description = "LLaMA-Factory and ms-swift KTO: conversations or messages, kto_tag or label (read only)"
    kind = Rated
    lists = ("conversations", "conversation", "messages")
    verdicts: ClassVar[Sequence[str]] = ("kto_tag", "label")
    keys = frozenset({*lists, *verdicts})

    def matches(self, row: Row) -> bool:
        is_chat = any(_has_turns(row.get(key)) for key in self.lists)
        return is_chat and any(isinstance(row.get(key), bool) for key in self.verdicts)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row = rows[0]
        good = row_values.boolean(row, one_of(row, self.verdicts, "verdict"))
        prompt, reply = row_values.split_reply(self.read_prompt(row, template), self._list(row))
        return Rated(prompt, reply, good, **read_metadata(row, Rated))


class PromptCompletion(Format):
    """A prompt and its completion as messages."""

    name = "trl-prompt-completion"
    description = "TRL prompt and completion as messages (read only)"
    kind = Chat
    read_only = True
    keys = frozenset({"prompt", "completion"})

    def matches(self, row: Row) -> bool:
        return isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return row_values.messages(row, "prompt")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        prompt = row_values.prompt(rows[0], "prompt")
        answer = _read_reply(rows[0], "completion")
        return Chat(prompt.with_turn(Role.ASSISTANT, answer), **read_metadata(rows[0], Chat))
