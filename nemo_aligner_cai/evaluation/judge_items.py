# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Items with a known answer that measure a judge: the paper's evaluation items as inputs of the judges.

Input, one of:
    {"prompt": "... Please choose the response that is ... Options:\n (A) [[[...]]]\n (B) [[[...]]]\n\nThe answer is:",
     "corrects": [" (B)"], "incorrects": [" (A)"], "text_correct": "\n\nHuman: ...\n\nAssistant: ...",
     "text_incorrect": ...}                              two replies to one conversation, for any judge
    {"prompt": "... What description ... Options:\n (A) Theft\n (B) ...\nThe answer is:", "corrects": [" (D)"],
     "incorrects": [" (A)", " (B)", ...]}                a question with several answers, for `options_judge.py`
Output: JudgeItem(prompt, candidates=(Candidate("incorrect", ...), Candidate("correct", ...)), question, category)

The candidates are in the item's own order, in which the correct answer is about equally often in every position.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, content_hash, read_jsonl, require_file
from nemo_aligner_cai.files.compact_sets import CompactSet
from nemo_aligner_cai.judges.preference_sample import Candidate, PreferenceSample
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.prompts.transcript import TranscriptError, parse_transcript
from nemo_aligner_cai.stages.comparisons import judged_row

CORRECT = "correct"
"""The key of the correct candidate; the keys of the others begin with "incorrect"."""
_PRINTED = re.compile(
    r"(?P<before>.*)\n\n(?P<question>[^\n]+) Options:\n(?P<options>.*?)\s*The answer is:\s*", re.DOTALL
)
_OPTION = re.compile(r"^ \(([A-Z])\) ", re.MULTILINE)


@dataclass(frozen=True)
class JudgeItem(PreferenceSample):
    """A sample with a known answer.

    Attributes:
        question: asks for the better candidate.
        category: the category of the item, None without one.
        is_comparison: True if the candidates are replies to the prompt, False if they are answers to the question at
            the prompt's end.
    """

    question: str = ""
    category: str | None = None
    is_comparison: bool = True


def read_items(path: PathLike, *, counts: RowCounts, limit: int | None = None) -> Iterator[JudgeItem]:
    """Read items in file order; duplicates are skipped.

    Args:
        path: a .jsonl or .json file.
        counts: receives the rows read and the skipped rows by reason.
        limit: maximum number of items.

    Raises:
        UsageError: the file cannot be read (at the call).
        FormatError: a row has neither of the two shapes, or not the shape of the rows before it.
    """
    return islice(_items(require_file(path), counts), limit)


def _items(path: Path, counts: RowCounts) -> Iterator[JudgeItem]:
    seen = CompactSet()
    is_comparison: bool | None = None
    for line, row in read_jsonl(path):
        counts.rows_in += 1
        try:
            item = _item(row)
        except (UsageError, TranscriptError) as error:
            raise FormatError.at(path, line, str(error)) from error
        if is_comparison not in (None, item.is_comparison):
            raise FormatError.at(
                path, line, "this item is of another kind than those before it; use one file per kind"
            )
        is_comparison = item.is_comparison
        if not seen.add(int(item.id, 16)):
            counts.skip("duplicate item")
            continue
        counts.written += 1
        yield item


def _item(row: Row) -> JudgeItem:
    printed = _PRINTED.fullmatch(row_values.text(row, "prompt"))
    if printed is None:
        raise UsageError("the key 'prompt' must end with a question, ' Options:', the options and 'The answer is:'")
    options = _options(printed["options"])
    right = _labels(row, "corrects")
    if len(right) != 1 or sorted([*right, *_labels(row, "incorrects")]) != sorted(options) or len(options) < 2:
        raise UsageError("'corrects' and 'incorrects' must name all options, each once, and one of them as correct")
    category = row_values.optional_text(row, "category")
    if "text_correct" in row or "text_incorrect" in row:
        conversation, replies = _replies(row)
        if len(options) != 2:
            raise UsageError(f"'text_correct' and 'text_incorrect' belong to two options, there are {len(options)}")
        texts = {label: replies[label not in right] for label in options}
        return _of(conversation, texts, right[0], printed["question"], category, is_comparison=True)
    conversation = Conversation.of_user(f"{printed['before'].strip()}\n\n{printed['question']}")
    # The correct option is the kind of harm that the item is about.
    return _of(
        conversation, options, right[0], printed["question"], category or options[right[0]], is_comparison=False
    )


def _of(
    conversation: Conversation,
    texts: dict[str, str],
    right: str,
    question: str,
    category: str | None,
    *,
    is_comparison: bool,
) -> JudgeItem:
    wrong = [label for label in texts if label != right]
    keys = {right: CORRECT} | {label: f"incorrect {label}" if len(wrong) > 1 else "incorrect" for label in wrong}
    # Items may share a conversation, so the answers are part of the id.
    prompt = Prompt(content_hash([conversation.to_messages(), question, list(texts.values())]), conversation)
    candidates = tuple(Candidate(keys[label], text) for label, text in texts.items())
    return JudgeItem(prompt, candidates, question=question, category=category, is_comparison=is_comparison)


def _replies(row: Row) -> tuple[Conversation, tuple[str, str]]:
    """Return the conversation without its last reply, and the correct and the incorrect reply."""
    whole = [parse_transcript(row_values.text(row, key)) for key in ("text_correct", "text_incorrect")]
    prompts = [conversation.without_last() for conversation in whole]
    last = [conversation.messages[-1] for conversation in whole]
    if prompts[0] != prompts[1] or any(message.role is not Role.ASSISTANT for message in last):
        raise UsageError(
            "'text_correct' and 'text_incorrect' must be the same conversation with different last replies"
        )
    return prompts[0], (last[0].content, last[1].content)


def _options(text: str) -> dict[str, str]:
    """Return the options by letter, without the brackets that the paper puts around replies."""
    _, *parts = _OPTION.split(text)
    return {
        label: option.strip().removeprefix("[[[").removesuffix("]]]").strip()
        for label, option in zip(parts[::2], parts[1::2], strict=True)
    }


def _labels(row: Row, key: str) -> list[str]:
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in cast(list[Any], value)):
        raise UsageError(f'the key {key!r} must be a list of options such as " (A)"')
    return [label.strip().strip("()") for label in cast(list[str], value)]


@dataclass(frozen=True)
class JudgedItem:
    """A judged row with its category and the judge's answer: a candidate's key, or None without a decision."""

    row: JudgedRow
    category: str | None
    answer: str | None

    @classmethod
    def of(cls, item: JudgeItem) -> "JudgedItem":
        """Return the row of an item, whether it has been judged or not."""
        preferences = item.judgement.preferences if item.judgement else ()
        answer = item.candidates[preferences[0].chosen].key if preferences else None
        return cls(judged_row(item), item.category, answer)

    @classmethod
    def from_row(cls, row: Row) -> "JudgedItem":
        """Read a row written by `to_row`."""
        category, answer = (row_values.optional_text(row, key) for key in ("category", "answer"))
        return cls(JudgedRow.from_row(row), category, answer)

    def to_row(self) -> Row:
        """Return the judged row with the two additional keys."""
        return self.row.to_row() | {"category": self.category, "answer": self.answer}
