# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Read-only formats of published rankings, pairs in columns, prompt columns and message trees.

ranked-answers    {"prompt": ..., "answers": [{"answer": ..., "rank": 1.0}, ...]}      Nectar
{"instruction": ..., "completions": [{"response": ..., "overall_score": 8.0}, ...]}
shp               {"history": ..., "human_ref_A": ..., "human_ref_B": ..., "labels": 1}
pku-saferlhf      {"prompt": ..., "response_0": ..., "response_1": ..., "safer_response_id": 0, ...}
prompt-columns    {"Behavior": ..., "ContextString": ...}, {"goal": ...}, {"question": ...}
oasst             rows of a message tree: only the first prompt can be read
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.base import Format, metadata_keys, read_metadata
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.formats.unread_columns import one_of, plain_name
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, PromptOnly, Record
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import TranscriptError


class RankedAnswers(Format):
    """A prompt and several answers with ranks (lowest is best) or scores (highest is best)."""

    name = "ranked-answers"
    description = "Nectar, UltraFeedback: a prompt and ranked or scored answers (read only)"
    kind = Judged
    read_only = True
    _questions: ClassVar[Sequence[str]] = ("prompt", "instruction")
    _shapes: ClassVar[dict[str, tuple[str, str, int]]] = {
        "answers": ("answer", "rank", -1),
        "completions": ("response", "overall_score", 1),
    }
    """Key of the list -> the keys of a text and of its rank or score, and the sign of a better one."""

    def matches(self, row: Row) -> bool:
        return any(isinstance(row.get(key), str) for key in self._questions) and self._list_key(row) is not None

    def _list_key(self, row: Row) -> str | None:
        for key, (text, order, _) in self._shapes.items():
            items: object = row.get(key)
            first = cast(list[Any], items)[0] if isinstance(items, list) and items else None
            if isinstance(first, dict) and text in first and order in first:
                return key
        return None

    def known_keys(self, row: Row) -> frozenset[str]:
        return frozenset({one_of(row, self._questions, "prompt"), *self._shapes}) | metadata_keys(self.kind)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return row_values.question(row, one_of(row, self._questions, "prompt"))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row, key = rows[0], self._list_key(rows[0])
        if key is None:
            raise RowError("answers", "is missing; a list of answers with ranks or scores is needed")
        text, order, sign = self._shapes[key]
        ranked: list[tuple[float, str]] = []
        for item in row_values.objects(row, key):
            rank = row_values.optional_number(item, order)
            if rank is None:
                raise RowError(order, f"of one of the {key} is missing; remove the row")
            ranked.append((sign * rank, row_values.text(item, text)))
        prompt = self.read_prompt(row, template)
        pairs = tuple(
            Comparison(prompt, better, worse)
            for best, better in ranked
            for least, worse in ranked
            if best > least and better != worse
        )
        return Judged(prompt, pairs, **read_metadata(row, Judged))


class _PairInColumns(Format):
    """A prompt, two replies in columns of their own, and the index of the preferred reply."""

    kind = Comparison
    read_only = True
    question: ClassVar[str]
    replies: ClassVar[tuple[str, str]]

    @abstractmethod
    def preferred(self, row: Row) -> int:
        """The index of the preferred reply in `replies`."""

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        return row_values.question(row, self.question)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row, index = rows[0], self.preferred(rows[0])
        texts = [row_values.text(row, key) for key in self.replies]
        row_values.require_different(texts[0], texts[1], self.replies[1])
        prompt = self.read_prompt(row, template)
        return Comparison(prompt, texts[index], texts[1 - index], **read_metadata(row, Comparison))


def _index(row: Row, key: str) -> int:
    value: object = row.get(key)
    number = int(value) if isinstance(value, str) and value in ("0", "1") else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in (0, 1):
        raise RowError(key, "must be 0 or 1")
    return number


class Shp(_PairInColumns):
    """Two replies to a post. The label is 1 if people preferred A."""

    name = "shp"
    description = "Stanford Human Preferences: history, human_ref_A, human_ref_B, labels (read only)"
    question = "history"
    replies = ("human_ref_B", "human_ref_A")
    required_keys = frozenset({question, *replies})
    keys = required_keys | {"labels"}

    def preferred(self, row: Row) -> int:
        return _index(row, "labels")


class PkuSafeRlhf(_PairInColumns):
    """Two replies. One is safer and one is more helpful; a row is a comparison if both are the same reply."""

    name = "pku-saferlhf"
    description = "PKU-SafeRLHF: response_0 and response_1, the safer and the better one (read only)"
    lenient = True
    question = "prompt"
    replies = ("response_0", "response_1")
    _choices: ClassVar[Sequence[str]] = ("safer_response_id", "better_response_id")
    keys = frozenset({question, *replies, *_choices})

    def matches(self, row: Row) -> bool:
        return {*self.replies} <= row.keys() and any(key in row for key in self._choices)

    def preferred(self, row: Row) -> int:
        chosen = {_index(row, key) for key in self._choices if key in row}
        if not chosen:
            raise RowError("safer_response_id", "is missing, and so is 'better_response_id'")
        if len(chosen) > 1:
            raise RowError(
                "safer_response_id",
                "is another reply than 'better_response_id'; --ignore-columns of one of the two chooses the other",
            )
        return chosen.pop()


_PROMPTS = ("prompt", "behavior", "goal", "forbiddenprompt", "question", "query", "instruction", "userinput")
_REPLIES = ("chosen", "rejected", "output", "response", "completion", "answer", "chosenresponse", "rejectedresponse")


class PromptColumns(Format):
    """Prompts under the column names of HarmBench, AdvBench, StrongREJECT, Do-Not-Answer and ToxicChat, in any case.

    Rows with replies have formats of their own.
    """

    name = "prompt-columns"
    description = "prompts in a column Behavior, goal, forbidden_prompt, question, query, user_input ... (read only)"
    kind = PromptOnly
    read_only = True

    def matches(self, row: Row) -> bool:
        return bool(self._prompts(row)) and not any(plain_name(key) in _REPLIES for key in row)

    def _prompts(self, row: Row) -> list[str]:
        return [key for key in row if plain_name(key) in _PROMPTS]

    def _contexts(self, row: Row) -> list[str]:
        names = ("contextstring", "input") if self._prompts(row) else ()
        return [key for key in row if plain_name(key) in names]

    def known_keys(self, row: Row) -> frozenset[str]:
        return frozenset((*self._prompts(row), *self._contexts(row))) | metadata_keys(self.kind)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        keys = self._prompts(row)
        if keys and all(row[key] in (None, "") for key in keys):
            raise TranscriptError("empty prompt")
        key = one_of(row, keys, "prompt")
        contexts = [text for name in self._contexts(row) if (text := row_values.optional_text(row, name))]
        if not contexts:
            return row_values.question(row, key)
        if plain_name(key) == "instruction":
            return Conversation.of_user("\n\n".join([row_values.text(row, key), *contexts]))
        # HarmBench's own code joins a context and a behavior like this.
        return Conversation.of_user("\n\n---\n\n".join([*contexts, row_values.text(row, key)]))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        try:
            prompt = self.read_prompt(rows[0], template)
        except TranscriptError as error:
            raise RowError(self._prompts(rows[0])[0], str(error)) from error
        return PromptOnly(prompt, **read_metadata(rows[0], PromptOnly))


class Oasst(Format):
    """Open Assistant's trees and messages, for red-team prompts only: a row is not one conversation."""

    name = "oasst"
    description = "Open Assistant trees and messages: as red-team prompts only (read only)"
    kind = Chat
    read_only = True
    required_keys = frozenset({"message_id", "parent_id", "text", "role"})
    keys = required_keys | {"prompt"}

    def matches(self, row: Row) -> bool:
        is_tree = isinstance(row.get("prompt"), dict) and ("message_tree_id" in row or "replies" in row["prompt"])
        return is_tree or super().matches(row)

    def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
        if isinstance(row.get("prompt"), dict):
            return row_values.question(row["prompt"], "text")
        if row["parent_id"] is not None:
            raise TranscriptError("not the first message of its tree")
        return row_values.question(row, "text")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        raise RowError(
            "prompt" if "prompt" in rows[0] else "parent_id",
            "belongs to a tree of messages, which is not one conversation; write each path through the tree as a row "
            'of {"messages": [...]}',
        )
