# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Strengths, win rates and Elo ratings, against evalica's golden files, evalica itself and choix."""

import csv
import math
import random
from collections import defaultdict
from pathlib import Path

import pytest

pytest.importorskip("choix", reason="choix and evalica come with the extra dev")
import choix
import evalica

from benchmarks.coverage import coverage
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.bradley_terry import Strength, bradley_terry
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.evaluation.statistics.win_rates import PairResult, average_win_rates, elo, win_rates

SCORES = {"left": 1.0, "tie": 0.5, "right": 0.0}
WINNERS = {1.0: evalica.Winner.X, 0.5: evalica.Winner.Draw, 0.0: evalica.Winner.Y}


def drawn(seed: int, strengths: dict[str, float], prompts: int) -> list[PairResult]:
    """Every pair of models on every prompt, with ties."""
    generator = random.Random(seed)
    names = list(strengths)
    results: list[PairResult] = []
    for number in range(prompts):
        for index, first in enumerate(names):
            for second in names[index + 1 :]:
                p = 1 / (1 + math.exp(strengths[second] - strengths[first]))
                score = 0.5 if generator.random() < 0.2 else float(generator.random() < p)
                results.append(PairResult(str(number), first, second, score))
    return results


def shares(results: list[PairResult]) -> dict[str, float]:
    """Exponentials of the strengths, with a sum of 1, as evalica gives them."""
    odds = {name: math.exp(one.value or 0.0) for name, one in bradley_terry(results).strengths.items()}
    return {name: value / sum(odds.values()) for name, value in odds.items()}


@pytest.mark.parametrize(("name", "models"), [("simple", 5), ("food", 5), ("llmfao", 59)])
def test_evalicas_golden_files(shared_data: Path, name: str, models: int) -> None:
    with (shared_data / "evalica" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        results = [
            PairResult(row.get("prompt", str(number)), row["left"], row["right"], SCORES[row["winner"]])
            for number, row in enumerate(csv.DictReader(file))
        ]
    golden: defaultdict[str, dict[str, float]] = defaultdict(dict)
    with (shared_data / "evalica" / f"{name}-golden.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            golden[row["algorithm"]][row["item"]] = float(row["score"])
    assert len(golden["bradley_terry"]) == models
    assert shares(results) == pytest.approx(golden["bradley_terry"], abs=1e-9)
    assert elo(results) == pytest.approx(golden["elo"], abs=1e-9)
    assert average_win_rates(win_rates(results)) == pytest.approx(golden["average_win_rate"], abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_evalica_and_choix_agree_on_drawn_results(seed: int) -> None:
    strengths = {"a": 0.0, "b": 1.1, "c": -0.7, "d": 0.4}
    results = drawn(seed, strengths, 60)
    names = list(strengths)
    first, second = [one.first for one in results], [one.second for one in results]
    winners = [WINNERS[one.score] for one in results]
    by_evalica = evalica.bradley_terry(first, second, winners, tolerance=1e-12, limit=10_000).scores
    assert shares(results) == pytest.approx({name: by_evalica[name] / by_evalica.sum() for name in names}, abs=1e-6)
    assert elo(results) == pytest.approx(dict(evalica.elo(first, second, winners).scores), abs=1e-6)
    decided = [one for one in results if one.score != 0.5]
    pairs = [(names.index(one.first), names.index(one.second)) for one in decided]
    wins = [pair if one.score == 1.0 else pair[::-1] for pair, one in zip(pairs, decided, strict=True)]
    by_choix = choix.opt_pairwise(len(names), wins, alpha=0.0, tol=1e-12)
    found = bradley_terry(decided).strengths
    assert [found[name].value for name in names] == pytest.approx(list(by_choix - by_choix.mean()), abs=1e-6)


def test_strengths_are_relative_to_the_baseline() -> None:
    results = drawn(1, {"a": 0.0, "b": 1.0, "c": 0.5}, 80)
    free, anchored = bradley_terry(results), bradley_terry(results, baseline="a")
    assert (free.zero, anchored.zero, anchored.prompts) == (None, "a", 80)
    a, b = (free.strengths[name].value for name in "ab")
    assert a is not None and b is not None
    assert anchored.strengths["b"].value == pytest.approx(b - a)
    assert anchored.strengths["a"].low == anchored.strengths["a"].high == anchored.strengths["a"].value == 0.0


def test_the_interval_of_two_models_by_hand() -> None:
    # 30 wins in 40: a log likelihood with the second derivative 40 p (1 - p). The squared residuals add up to as much,
    # and z^2 prompts that deviate by half a win are added.
    results = [PairResult(str(number), "a", "b", float(number < 30)) for number in range(40)]
    found = bradley_terry(results, baseline="b").strengths["a"]
    information = 40 * 0.75 * 0.25
    error = math.sqrt(40 / 39 * (information + 1.959964**2 / 4)) / information
    ends = (math.log(3) - 2.0226909 * error, math.log(3) + 2.0226909 * error)  # Student's t with 39 degrees
    assert (found.value, found.low, found.high) == (pytest.approx(math.log(3)), *map(pytest.approx, ends))


def test_two_prompts_are_enough_for_an_interval() -> None:
    found = bradley_terry([PairResult("1", "a", "b", 1.0), PairResult("2", "a", "b", 0.0)], baseline="b").strengths[
        "a"
    ]
    error = math.sqrt(2 * (0.5 + 1.959964**2 / 4)) / 0.5
    assert (found.value, found.high) == (0.0, pytest.approx(12.7062047 * error))  # Student's t with one degree


def test_which_model_is_shown_first_does_not_matter() -> None:
    results = drawn(6, {"a": 0.0, "b": 0.8, "c": -0.4}, 40)[:-7]  # not as many for each pair
    turned = [
        PairResult(one.prompt, one.second, one.first, 1 - one.score) if number % 2 else one
        for number, one in enumerate(results)
    ]
    by_order = [bradley_terry(some, baseline="a").strengths for some in (results, turned)]
    for name, strength in by_order[0].items():
        other = by_order[1][name]
        assert (strength.value, strength.low, strength.high) == pytest.approx((other.value, other.low, other.high))


def test_repeated_orders_of_a_prompt_do_not_narrow_the_interval() -> None:
    # The second order of each prompt says the same: twice the comparisons, and no further information.
    once = drawn(2, {"a": 0.0, "b": 0.8}, 150)
    twice = [result for result in once for _ in range(2)]
    one, two = (bradley_terry(results, baseline="a").strengths["b"] for results in (once, twice))
    assert two.value == pytest.approx(one.value)
    assert two.low == pytest.approx(one.low) and two.high == pytest.approx(one.high)


def test_a_judge_that_only_ties_leaves_an_interval() -> None:
    results = [PairResult(str(number), "a", "b", 0.5) for number in range(100)]
    found = bradley_terry(results, baseline="a").strengths["b"]
    assert found.value == 0.0 and found.low is not None and found.high is not None
    # 0 of 100 prompts deviate, each by half a win: the derivative of the logit at 1/2 is 4.
    assert found.high == -found.low == pytest.approx(4 * 0.5 * Rate.of_share(0.0, 100).high, rel=0.1)


def test_a_model_that_never_loses_has_a_lower_bound() -> None:
    results = drawn(3, {"a": 0.0, "b": 0.3}, 50)
    results += [PairResult(str(number), "best", "b", 1.0) for number in range(50)]
    results += [PairResult(str(number), "a", "worst", 1.0) for number in range(50)]
    found = bradley_terry(results, baseline="a")
    best, worst, b = (found.strengths[name] for name in ("best", "worst", "b"))
    assert best.value is best.high is None and worst.value is worst.low is None
    assert b.value is not None and best.low is not None and worst.high is not None
    # 50 wins in 50: the likelihood ratio allows p = exp(-z^2 / 100) and more.
    assert 1 / (1 + math.exp(b.value - best.low)) == pytest.approx(math.exp(-(1.959964**2) / 100), abs=1e-6)
    assert 1 / (1 + math.exp(worst.high - 0.0)) == pytest.approx(math.exp(-(1.959964**2) / 100), abs=1e-6)


def test_a_bound_against_several_opponents_is_compatible_with_chance() -> None:
    results = drawn(7, {"a": 0.0, "b": 2.0}, 60)
    results += [PairResult(str(number), "best", other, 1.0) for number in range(30) for other in "ab"]
    found = bradley_terry(results, baseline="a").strengths
    best, b = found["best"].low, found["b"].value
    assert best is not None and b is not None
    # Each of 30 prompts counts as one win, half of it against each: the likelihood ratio of all is z^2.
    log_likelihood = sum(30 / 2 * -math.log1p(math.exp(strength - best)) for strength in (0.0, b))
    assert -2 * log_likelihood == pytest.approx(1.959964**2, rel=1e-6)


def test_the_bound_of_a_model_that_never_wins_mirrors_that_of_one_that_never_loses() -> None:
    known = drawn(7, {"a": 0.0, "b": 2.0}, 60)
    won = [PairResult(str(number), "new", other, 1.0) for number in range(30) for other in "ab"]
    best = bradley_terry(known + won, baseline="a").strengths["new"].low
    turned = [PairResult(one.prompt, one.first, one.second, 1.0 - one.score) for one in known + won]
    worst = bradley_terry(turned, baseline="a").strengths["new"].high
    assert best is not None and worst == pytest.approx(-best)


def test_a_bound_counts_prompts_and_not_comparisons() -> None:
    once = [PairResult(str(number), "a", "b", 1.0) for number in range(20)]
    twice = [result for result in once for _ in range(2)]
    lows = [bradley_terry(results, baseline="b").strengths["a"].low for results in (once, twice)]
    assert lows[0] == pytest.approx(lows[1])


def test_models_that_share_no_opponent_are_not_placed() -> None:
    results = drawn(4, {"a": 0.0, "b": 0.3, "c": 0.1}, 20) + drawn(5, {"x": 0.0, "y": 0.3}, 20)
    found = bradley_terry(results, baseline="a")
    assert found.strengths["x"].value is found.strengths["x"].low is found.strengths["x"].high is None
    assert found.strengths["c"].value is not None


def test_the_estimates_are_those_of_the_largest_set_then_the_baselines_then_the_most_compared() -> None:
    def both_ways(*pairs: tuple[str, str], prompts: int = 2) -> list[PairResult]:
        return [PairResult(str(n), *pair, float(n % 2)) for pair in pairs for n in range(prompts)]

    small, often, large = both_ways(("a", "b")), both_ways(("x", "y"), prompts=4), both_ways(("p", "q"), ("q", "r"))

    def estimated(results: list[PairResult], baseline: str | None = None) -> tuple[set[str], str | None, int]:
        found = bradley_terry(results, baseline=baseline)
        return {name for name, one in found.strengths.items() if one.value is not None}, found.zero, found.prompts

    assert estimated(small + often + large, "a") == ({"p", "q", "r"}, None, 2)
    assert estimated(small + often, "a") == ({"a", "b"}, "a", 2)
    assert estimated(small + often) == estimated(often + small) == ({"x", "y"}, None, 4)


def test_a_strength_is_shown_with_what_is_known_of_it() -> None:
    known = [(0.5, -1.25, 2.0), (0.5, None, None), (None, 1.0, None), (None, None, 1.0), (None, None, None)]
    assert [str(Strength(*one)) for one in known] == ["0.50 [-1.25, 2.00]", "0.50", "> 1.00", "< 1.00", "-"]


def test_one_prompt_gives_estimates_without_intervals() -> None:
    results = [PairResult("p", "a", "b", score) for score in (1.0, 0.5)]
    found = bradley_terry(results, baseline="b").strengths["a"]
    assert found.value == pytest.approx(math.log(3)) and found.low is found.high is None


def test_results_that_are_none_are_errors() -> None:
    with pytest.raises(CaiError, match="0"):
        bradley_terry([])
    with pytest.raises(CaiError, match="baseline z"):
        bradley_terry(drawn(1, {"a": 0.0, "b": 0.3}, 3), baseline="z")
    with pytest.raises(CaiError, match="itself"):
        PairResult("p", "a", "a", 1.0)
    for wrong in (1.1, -0.5, math.nan):
        with pytest.raises(CaiError, match=r"\[0, 1\]"):
            PairResult("p", "a", "b", wrong)


def test_win_rates_count_prompts() -> None:
    results = [PairResult(str(n), "a", "b", score) for n in range(50) for score in (1.0, float(n % 2))]
    rates = win_rates(results)
    assert rates["a", "b"].value == 0.75 and rates["b", "a"].value == 0.25
    assert rates["a", "b"].n <= 100
    same = win_rates([PairResult(str(n % 50), "a", "b", float(n % 2)) for n in range(100)])
    assert same["a", "b"].n == 50, "two equal results of a prompt are one independent value"


def test_every_opponent_has_the_same_weight_in_an_average_win_rate() -> None:
    results = [PairResult(str(n), "a", "b", 1.0) for n in range(9)] + [PairResult("9", "c", "a", 0.5)]
    assert average_win_rates(win_rates(results)) == {"a": 0.75, "b": 0.0, "c": 0.5}


@pytest.mark.parametrize("models", [3, 6])
def test_the_intervals_cover(models: int) -> None:
    # 200 simulations: with a true coverage of 95 %, fewer than 178 have a probability below 0.1 % for each model.
    # `benchmarks/coverage.py` measures it with 1,000.
    found = coverage(models, simulations=200, prompts=40)
    assert len(found) == models - 1
    assert min(found.values()) >= 178 / 200, found
