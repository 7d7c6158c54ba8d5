# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Published rankings, pairs in columns, prompt columns and message trees, which are read and not written.

ranked-answers    {"prompt": ..., "answers": [{"answer": ..., "rank": 1.0}, ...]}      Nectar
{"instruction": ..., "completions": [{"response": ..., "overall_score": 8.0}, ...]}
shp               {"history": ..., "human_ref_A": ..., "human_ref_B": ..., "labels": 1}
pku-saferlhf      {"prompt": ..., "response_0": ..., "response_1": ..., "safer_response_id": 0, ...}
prompt-columns    {"Behavior": ..., "ContextString": ...}, {"goal": ...}, {"question": ...}
oasst             rows of a message tree: only the first prompt can be read
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.base import beside, beside_keys
from nemo_aligner_cai.data.formats.columns import one_of, plain_name
from nemo_aligner_cai.data.formats.published import Published
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, PromptOnly, Record
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import TranscriptError


class RankedAnswers(Published):
    """A prompt and several answers with ranks (the lowest is best) or scores (the highest is best)."""

    name = "ranked-answers"
    description = "Nectar, UltraFeedback: a prompt and ranked or scored answers (read only)"
    kind = Judged
    _questions: ClassVar[Sequence[str]] = ("prompt", "instruction")
    _shapes: ClassVar[dict[str, tuple[str, str, int]]] = {
        "answers": ("answer", "rank", -1),
        "completions": ("response", "overall_score", 1),
    }
    """Key of the list -> the keys of a text and of its rank or score, and the sign of a better one."""

    def matches(self, row: Row) -> bool:
        """By a prompt that is a text, and a list of answers of one of the shapes."""
        return any(isinstance(row.get(key), str) for key in self._questions) and self._list_key(row) is not None

    def _list_key(self, row: Row) -> str | None:
        for key, (text, order, _) in self._shapes.items():
            items: object = row.get(key)
            first = cast(list[Any], items)[0] if isinstance(items, list) and items else None
            if isinstance(first, dict) and text in first and order in first:
                return key
        return None

    def known_keys(self, row: Row) -> frozenset[str]:
        """The prompt and the answers."""
        return frozenset({one_of(row, self._questions, "prompt"), *self._shapes}) | beside_keys(self.kind)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The prompt."""
        return take.question(row, one_of(row, self._questions, "prompt"))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row: every pair of answers of which one is better."""
        row, key = rows[0], self._list_key(rows[0])
        if key is None:
            raise RowError("answers", "is missing; a list of answers with ranks or scores is needed")
        text, order, sign = self._shapes[key]
        ranked: list[tuple[float, str]] = []
        for item in take.objects(row, key):
            rank = take.optional_number(item, order)
            if rank is None:
                raise RowError(order, f"of one of the {key} is missing; remove the row")
            ranked.append((sign * rank, take.text(item, text)))
        prompt = self.asks(row, template)
        pairs = tuple(
            Comparison(prompt, better, worse)
            for best, better in ranked
            for least, worse in ranked
            if best > least and better != worse
        )
        return Judged(prompt, pairs, **beside(row, Judged))


class Shp(Published):
    """Two replies to a post, and which of them people preferred."""

    name = "shp"
    description = "Stanford Human Preferences: history, human_ref_A, human_ref_B, labels (read only)"
    kind = Comparison
    keys = frozenset({"history", "human_ref_A", "human_ref_B", "labels"})

    def matches(self, row: Row) -> bool:
        """By its keys."""
        return {"history", "human_ref_A", "human_ref_B"} <= row.keys()

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The post."""
        return take.question(row, "history")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row; the label is 1 where A is preferred."""
        row = rows[0]
        texts = [take.text(row, key) for key in ("human_ref_B", "human_ref_A")]
        preferred = _index(row, "labels")
        take.different(texts[0], texts[1], "human_ref_B")
        return Comparison(self.asks(row, template), texts[preferred], texts[1 - preferred], **beside(row, Comparison))


def _index(row: Row, key: str) -> int:
    value: object = row.get(key)
    number = int(value) if isinstance(value, str) and value in ("0", "1") else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in (0, 1):
        raise RowError(key, "must be 0 or 1")
    return number


class PkuSafeRlhf(Published):
    """Two replies, of which one is safer and one is more helpful; a comparison where both are the same one."""

    name = "pku-saferlhf"
    description = "PKU-SafeRLHF: response_0 and response_1, the safer and the better one (read only)"
    kind = Comparison
    lenient = True
    _choices: ClassVar[Sequence[str]] = ("safer_response_id", "better_response_id")
    keys = frozenset({"prompt", "response_0", "response_1", *_choices})

    def matches(self, row: Row) -> bool:
        """By its keys."""
        return {"response_0", "response_1"} <= row.keys() and any(key in row for key in self._choices)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The prompt."""
        return take.question(row, "prompt")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        row = rows[0]
        chosen = {_index(row, key) for key in self._choices if key in row}
        if not chosen:
            raise RowError("safer_response_id", "is missing, and so is 'better_response_id'")
        if len(chosen) > 1:
            raise RowError(
                "safer_response_id",
                "is another reply than 'better_response_id'; --ignore-columns of one of the two chooses the other",
            )
        texts, (preferred,) = [take.text(row, f"response_{index}") for index in (0, 1)], chosen
        take.different(texts[0], texts[1], "response_1")
        return Comparison(self.asks(row, template), texts[preferred], texts[1 - preferred], **beside(row, Comparison))


_PROMPTS = ("prompt", "behavior", "goal", "forbiddenprompt", "question", "query", "instruction", "userinput")
_REPLIES = ("chosen", "rejected", "output", "response", "completion", "answer", "chosenresponse", "rejectedresponse")


class PromptColumns(Published):
    """Prompts under the column names of HarmBench, AdvBench, StrongREJECT, Do-Not-Answer, ToxicChat, in any case."""

    name = "prompt-columns"
    description = "prompts in a column Behavior, goal, forbidden_prompt, question, query, user_input ... (read only)"
    kind = PromptOnly

    def matches(self, row: Row) -> bool:
        """By the column's name; rows with replies have formats of their own."""
        return bool(self._prompts(row)) and not any(plain_name(key) in _REPLIES for key in row)

    def _prompts(self, row: Row) -> list[str]:
        return [key for key in row if plain_name(key) in _PROMPTS]

    def _more(self, row: Row) -> list[str]:
        names = ("contextstring", "input") if self._prompts(row) else ()
        return [key for key in row if plain_name(key) in names]

    def known_keys(self, row: Row) -> frozenset[str]:
        """The prompt, and what it is about."""
        return frozenset((*self._prompts(row), *self._more(row))) | beside_keys(self.kind)

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The prompt, below what it is about."""
        keys = self._prompts(row)
        if keys and all(row[key] in (None, "") for key in keys):
            raise TranscriptError("empty prompt")
        key = one_of(row, keys, "prompt")
        more = [text for name in self._more(row) if (text := take.optional_text(row, name))]
        if not more:
            return take.question(row, key)
        if plain_name(key) == "instruction":
            return Conversation.of_user("\n\n".join([take.text(row, key), *more]))
        # As HarmBench's own code puts a context and a behavior together.
        return Conversation.of_user("\n\n---\n\n".join([*more, take.text(row, key)]))

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """One row."""
        try:
            prompt = self.asks(rows[0], template)
        except TranscriptError as error:
            raise RowError(self._prompts(rows[0])[0], str(error)) from error
        return PromptOnly(prompt, **beside(rows[0], PromptOnly))


class Oasst(Published):
    """Open Assistant's trees and messages: a row holds many conversations, or one message of one."""

    name = "oasst"
    description = "Open Assistant trees and messages: as red-team prompts only (read only)"
    kind = Chat
    keys = frozenset({"message_id", "parent_id", "text", "role", "prompt"})

    def matches(self, row: Row) -> bool:
        """By the keys of a tree, or of a message."""
        is_tree = isinstance(row.get("prompt"), dict) and ("message_tree_id" in row or "replies" in row["prompt"])
        return is_tree or {"message_id", "parent_id", "text", "role"} <= row.keys()

    def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
        """The first message of a tree."""
        if isinstance(row.get("prompt"), dict):
            return take.question(row["prompt"], "text")
        if row["parent_id"] is not None:
            raise TranscriptError("not the first message of its tree")
        return take.question(row, "text")

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        """Raises RowError."""
        raise RowError(
            "prompt" if "prompt" in rows[0] else "parent_id",
            "belongs to a tree of messages, which is not one conversation; write each path through the tree as a row "
            'of {"messages": [...]}',
        )
