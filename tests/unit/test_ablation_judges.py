# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Two judges with a known fault: a bias for the first position, and labels that are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from benchmarks.ablations.judges import BIAS, FirstPositionStrategy
from nemo_aligner_cai import registry
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.judges import base as j
from nemo_aligner_cai.judges.base import Judge, Judgment
from nemo_aligner_cai.judges.multiple_choice import MultipleChoiceStrategy, multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Completion, Request
from tests.unit.judging import CASE, PRINCIPLES, by_worth, decide, scored

_STRONGER, _WEAKER = (1 / (1 + math.exp(-odds)) for odds in (BIAS + 1, BIAS - 1))


def settings(**given: Any) -> JudgeSettings:
    options: dict[str, Any] = {"seed": 1, "pairs": "all"}
    return JudgeSettings(constitution=PRINCIPLES, **options | given)


def judge_of(name: str, **given: Any) -> Judge:
    return registry.load("judges", f"benchmarks.ablations.judges:{name}")(settings(**given))


def chosen(judgment: Judgment) -> set[tuple[int, int]]:
    return {(one.chosen, one.rejected) for one in judgment.preferences}


@pytest.mark.parametrize(
    ("both_orders", "p", "expected"),
    [
        # Candidates 0, 1, 2 are good, bad, middling.
        (True, _STRONGER, {(0, 1), (0, 2), (2, 1)}),
        (True, _WEAKER, set[tuple[int, int]]()),
        (False, _STRONGER, {(0, 1), (0, 2), (2, 1)}),
        (False, _WEAKER, {(0, 1), (0, 2), (1, 2)}),
    ],
)
def test_a_bias_for_the_first_position_decides_what_the_judge_is_less_sure_of(
    both_orders: bool, p: float, expected: set[tuple[int, int]]
) -> None:
    judgment = decide(judge_of("position_biased", both_orders=both_orders), partial(by_worth, p=p))
    assert chosen(judgment) == expected
    assert judgment.counts[j.FLIPS] == (3 if both_orders and p == _WEAKER else 0)


def test_the_bias_is_added_to_the_log_odds() -> None:
    strategy = FirstPositionStrategy(MultipleChoiceStrategy(settings()), bias=math.log(4))
    verdict = strategy.verdict((1, 0), "p0", [[scored(0.5)]])
    assert (verdict.shown, verdict.better, verdict.probability) == ((1, 0), 1, pytest.approx(0.8))


def test_votes_have_no_log_probabilities_to_bias() -> None:
    def votes(request: Request) -> Completion:
        return Completion("(B)", "stop")

    both = (judge_of("position_biased", logprobs=False), multiple_choice(settings(logprobs=False)))
    biased, plain = (decide(judge, votes) for judge in both)
    assert biased == plain


@pytest.mark.parametrize("name", ["position_biased", "shuffled_labels"])
def test_the_questions_are_those_of_multiple_choice(name: str) -> None:
    judge, plain = judge_of(name), multiple_choice(settings())
    assert judge.questions(CASE) == plain.questions(CASE)
    assert judge.max_turns(3) == plain.max_turns(3)


def _unordered(judgment: Judgment) -> list[tuple[frozenset[int], float | None]]:
    return [(frozenset((one.chosen, one.rejected)), one.probability) for one in judgment.preferences]


def test_shuffled_labels_keep_pairs_probabilities_and_verdicts_but_not_what_the_judge_prefers() -> None:
    judge, plain = judge_of("shuffled_labels"), multiple_choice(settings())
    same = total = 0
    for number in range(300):
        case = replace(CASE, id=f"id{number}")
        drawn, judged = (decide(one, by_worth, case) for one in (judge, plain))
        assert (drawn.verdicts, drawn.counts) == (judged.verdicts, judged.counts)
        assert _unordered(drawn) == _unordered(judged)
        same += len(chosen(drawn) & chosen(judged))
        total += len(chosen(judged))
    rate = Rate.of_share(same / total, total)
    assert total == 900 and rate.low <= 0.5 <= rate.high


def test_the_seed_and_the_pair_determine_a_shuffled_label() -> None:
    def labels(seed: int, answer: Callable[[Request], Completion]) -> list[set[tuple[int, int]]]:
        judge = judge_of("shuffled_labels", seed=seed)
        return [chosen(decide(judge, answer, replace(CASE, id=f"id{number}"))) for number in range(40)]

    # Not even a judge that prefers the opposite changes them.
    assert labels(1, by_worth) == labels(1, partial(by_worth, p=0.1))
    assert labels(1, by_worth) != labels(2, by_worth)
