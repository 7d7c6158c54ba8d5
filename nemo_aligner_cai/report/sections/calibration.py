# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of the judge, by its own second order, and of the reward model, by held-out pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nemo_aligner_cai.evaluation.known_answers.reward_accuracy import LengthBias, RewardAccuracy, reward_accuracy
from nemo_aligner_cai.evaluation.known_answers.reward_scores import SCORES_FILE, read_scored
from nemo_aligner_cai.evaluation.statistics.calibration import Bin, Calibration
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.charts.bars import histogram
from nemo_aligner_cai.report.charts.curves import Series, curves
from nemo_aligner_cai.report.charts.points import reliability
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.labels import percent
from nemo_aligner_cai.report.run_folder import Measured, RunFolder
from nemo_aligner_cai.report.sections.preferences import Preferences
from nemo_aligner_cai.report.sections.section import Section, Table


def calibration(run: RunFolder, found: Preferences) -> Section:
    """The section on the judge's probabilities and on the reward model's."""
    lead = (
        "Judge: the probability that it gives to a candidate in the first order, against the share of cases in which "
        "the second order prefers the same candidate. Reward model: the probability that the text with the higher "
        "reward is the chosen one, 1 / (1 + exp(-difference)), against how often it is, on held-out pairs. Points "
        "below the diagonal are confidence that is not borne out."
    )
    path = run.find(SCORES_FILE)
    rewards = reward_accuracy(list(read_scored(path))) if path else None
    charts = [_judge(found.consistency)] if found.consistency else []
    charts += _reward_charts(rewards) if rewards else ()
    facts = [*_known_answers(run.measured, rewards), *(_length_facts(rewards.length) if rewards else ())]
    tables = [Table("Against known answers", ("figure", "value"), facts, words=True)] if facts else []
    missing = "" if charts or tables else "The judge gave no probabilities in both orders, and no pair has a reward."
    return Section("calibration", "Calibration of judge and reward model", lead, charts, tables, missing=missing)


def _judge(consistency: Calibration) -> Chart:
    axes = "probability in the first order", "preferred in the second order"
    return _reliability("Consistency of the judge", consistency, *axes, "preferred again")


def _reliability(title: str, found: Calibration, x_title: str, y_title: str, share: str) -> Chart:
    caption = (
        f"Expected calibration error {100 * found.ece:.1f} points, Brier score {found.brier:.3f}, "
        f"log loss {found.log_loss:.3f}, {found.n:,} pairs."
    )
    svg, head = reliability(found.bins, x_title, y_title), ("mean probability", share, "pairs")
    return Chart(title, caption, svg, head, list(map(_bin, found.bins)))


def _bin(one: Bin) -> tuple[str, ...]:
    return f"{100 * one.predicted:.1f} %", percent(one.observed), f"{one.observed.n:,}"


def _reward_charts(rewards: RewardAccuracy) -> Iterator[Chart]:
    axes = "probability of the higher reward", "it is the chosen text"
    yield _reliability("Calibration of the reward model", rewards.calibration, *axes, "chosen")
    edges = rewards.margins.edges
    sums = (one + other for one, other in zip(rewards.margins.chosen, rewards.margins.rejected, strict=True))
    counts = list(zip(edges[:-1], edges[1:], sums, strict=True))
    title, axis = "Reward of the chosen text over the rejected one", "difference of the rewards"
    rows = [(f"{low:.3g} to {high:.3g}", f"{count:,}") for low, high, count in counts]
    caption = "Left of the line the reward model prefers the rejected text."
    yield Chart(title, caption, histogram(counts, axis, middle=0.0), (axis, "pairs"), rows)
    yield _against_length(rewards.length)


def _against_length(length: LengthBias) -> Chart:
    points = [(one.length, one.score) for one in length.bins]
    rows = [(f"{one.length:.0f}", f"{one.score:.3g}", f"{one.replies:,}") for one in length.bins]
    correlation = "-" if length.correlation is None else f"{length.correlation:.2f}"
    caption = f"Means of equal numbers of texts. Rank correlation of length and reward: {correlation}."
    svg = curves([Series("texts of the pairs", points, "s1")], "reward", x_title="characters")
    return Chart("Reward against length", caption, svg, ("characters", "reward", "texts"), rows)


def _known_answers(measured: Measured, rewards: RewardAccuracy | None) -> Iterator[tuple[str, str]]:
    judge, logged = measured.judge, measured.reward_model.accuracy
    if judge.accuracy is not None:
        rate = Rate(judge.accuracy, judge.low, judge.high, judge.n)
        yield "judge: kept pairs that agree with the oracle", f"{percent(rate)}, {rate.n:,} pairs"
    if rewards is not None:
        yield "reward model: held-out pairs ranked correctly", f"{percent(rewards.accuracy)}, {rewards.pairs:,} pairs"
        yield "reward model: pairs with equal rewards", f"{rewards.ties:,}"
    elif logged is not None:
        yield "reward model: held-out pairs ranked correctly", f"{100 * logged:.1f} %"


def _length_facts(length: LengthBias) -> Sequence[tuple[str, str]]:
    rates = {
        "the longer text has the higher reward": length.longer_preferred,
        "the longer text is the chosen one": length.longer_better,
        "ranked correctly if the longer one is chosen": length.accuracy_if_longer_better,
        "ranked correctly if the shorter one is chosen": length.accuracy_if_shorter_better,
    }
    return [(f"reward model: {name}", percent(rate)) for name, rate in rates.items()]
