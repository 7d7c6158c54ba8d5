# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Items with a known answer: a question to a judge, its possible answers, and which of them is correct.

Output: JudgeItem(prompt, candidates=(Candidate("incorrect", ...), Candidate("correct", ...)), question, category)
"""

from dataclasses import dataclass

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.judged_row import Candidate
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.judges.steps import PreferenceSample
from nemo_aligner_cai.prompts import Prompt

CORRECT = "correct"
"""The key of the correct candidate; the keys of the others begin with "incorrect"."""


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


def judge_item(
    conversation: Conversation,
    texts: dict[str, str],
    right: str,
    question: str,
    category: str | None,
    *,
    is_comparison: bool,
) -> JudgeItem:
    """Return an item.

    Args:
        conversation: the prompt.
        texts: label of an option -> its text, in the item's order.
        right: the label of the correct option.
        question: asks for the better option.
        category: the category, None without one.
        is_comparison: True if the options are replies to the prompt.
    """
    wrong = [label for label in texts if label != right]
    keys = {right: CORRECT} | {label: f"incorrect {label}" if len(wrong) > 1 else "incorrect" for label in wrong}
    # Items may share a conversation, so the answers are part of the id.
    prompt = Prompt(content_hash([conversation.to_messages(), question, list(texts.values())]), conversation)
    candidates = tuple(Candidate(keys[label], text) for label, text in texts.items())
    return JudgeItem(prompt, candidates, question=question, category=category, is_comparison=is_comparison)


def reply_pair(
    conversation: Conversation, correct: str, incorrect: str, question: str, category: str | None
) -> JudgeItem:
    """Return an item of a correct and an incorrect reply whose data set has no order of its own.

    The order is drawn by the item's content, so that the correct reply comes first in about half of the items.
    """
    digest = content_hash([conversation.to_messages(), correct, incorrect])
    texts = {"A": correct, "B": incorrect} if int(digest, 16) % 2 else {"A": incorrect, "B": correct}
    right = "A" if texts["A"] is correct else "B"
    return judge_item(conversation, texts, right, question, category, is_comparison=True)
