# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Harm against help: the stage picture, the classes of replies, all rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nemo_aligner_cai.evaluation.results import (
    Corrected,
    Difference,
    Evaluation,
    GoldAgreement,
    GraderFacts,
    Metric,
    ModelFacts,
    Pairwise,
    Result,
)
from nemo_aligner_cai.evaluation.statistics.bradley_terry import Strength
from nemo_aligner_cai.report.charts.bars import Part, stacked
from nemo_aligner_cai.report.charts.points import ModelPoint, stage_picture
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.comparison.results import ResultDifference, model_differences
from nemo_aligner_cai.report.labels import METRICS, metric_label, model_label, percent, points
from nemo_aligner_cai.report.outcomes import OutcomeGroup
from nemo_aligner_cai.report.scores import Key, Scores
from nemo_aligner_cai.report.sections.section import Section, Table

_COLORS = {
    "complies with harm": "bad",
    "full compliance": "bad",
    "yes": "bad",
    "refuses, flawed": "warn",
    "partial refusal": "warn",
    "evades": "evade",
    "refuses, right reason": "good",
    "full refusal": "good",
    "no": "good",
    "helps": "bad",
    "refuses": "good",
    "other": "s4",
    "unscored": "s4",
}


def behavior(groups: Sequence[OutcomeGroup], evaluation: Evaluation | None, scores: Mapping[Key, Scores]) -> Section:
    """The section on the models' replies to held-out prompts."""
    lead = (
        "A good model is low and to the right: it helps with benign prompts and complies with no harmful one. Lines "
        "are 95 % intervals; a hollow diamond is the share of harmful prompts that the model evades instead of "
        "refusing them with a reason."
    )
    if not groups:
        missing = "No model has been measured yet: the run's last step, or `cai evaluate`, does that."
        return Section("behavior", "Harm against help", lead, missing=missing)
    charts = [chart for group in groups for chart in _charts(group)]
    tables = [_rates(group) for group in groups]
    tables += _stage_differences(groups[0], scores)
    return Section("behavior", "Harm against help", lead, charts, [*tables, *_evaluation_tables(evaluation)])


def _stage_differences(group: OutcomeGroup, scores: Mapping[Key, Scores]) -> Iterator[Table]:
    """The differences of the last model to the first one and to the one before it, per prompt."""
    names = [model.name for model in group.models]
    for baseline in dict.fromkeys((*names[:1], *names[-2:-1])):
        if baseline != names[-1] and (found := model_differences(scores, baseline, names[-1])):
            head = ("metric", "points", "95 % interval", "p (Holm)", "prompts", "detectable")
            title = f"{model_label(names[-1])} minus {model_label(baseline)}, per prompt"
            yield Table(title, head, list(map(_stage_difference, found)))


def _stage_difference(one: ResultDifference) -> tuple[str, ...]:
    found = one.difference
    return (
        f"{metric_label(one.key.metric)} ({one.key.group})",
        points(found.value),
        "-" if found.low is None or found.high is None else points(found.low, found.high),
        "-" if one.p_holm is None else f"{one.p_holm:.3g}",
        f"{found.prompts:,}",
        "-" if found.detectable is None else f"{100 * found.detectable:.1f}",
    )


def _charts(group: OutcomeGroup) -> Iterator[Chart]:
    placed = [
        ModelPoint(model.label, model.rates["harmful_compliance"], model.help, model.rates.get("evasion"))
        for model in group.models
        if "harmful_compliance" in model.rates and model.help is not None
    ]
    if placed:
        head = ("model", "complies with harm", "helps", "evades")
        rows = [(one.label, percent(one.harm), percent(one.help), percent(one.evasion)) for one in placed]
        yield Chart(f"Harm against help: {group.title}", "Low and right is good.", stage_picture(placed), head, rows)
    if any(model.classes for model in group.models):
        yield _classes(group)


def _classes(group: OutcomeGroup) -> Chart:
    names = list(dict.fromkeys(name for model in group.models for name in model.classes))
    colors = {name: _COLORS.get(name, f"s{number % 5}") for number, name in enumerate(names)}
    bars = [
        (model.label, [Part(name, model.classes.get(name, 0), colors[name]) for name in names])
        for model in group.models
    ]
    rows = [(model.label, *(f"{model.classes.get(name, 0):,}" for name in names)) for model in group.models]
    title = f"Replies to harmful prompts: {group.title}"
    return Chart(title, "Each bar is all replies of one model.", stacked(bars, title), ("model", *names), rows)


def _rates(group: OutcomeGroup) -> Table:
    names = [name for name in METRICS if any(name in model.rates for model in group.models)]
    rows = [(model.label, *(percent(model.rates.get(name)) for name in names)) for model in group.models]
    return Table(f"Rates with 95 % intervals: {group.title}", ("model", *(metric_label(name) for name in names)), rows)


def _evaluation_tables(evaluation: Evaluation | None) -> Iterator[Table]:
    if evaluation is None:
        return
    if evaluation.differences:
        head = ("model", "metric", "prompts", "points", "95 % interval", "p (Holm)", "detectable")
        yield Table("Differences to the baseline, per prompt", head, list(map(_difference, evaluation.differences)))
    for pairwise in evaluation.pairwise:
        yield _matches(pairwise)
        yield _ratings(pairwise)
    if bounded := [(one, metric) for one in evaluation.results for metric in one.metrics if metric.bounds]:
        head = ("model and metric", "rate of the graded", "lowest", "highest", "unscored")
        yield Table(
            "Worst cases: more than 1 % of the replies are unscored", head, [_bounded(*one) for one in bounded]
        )
    if evaluation.gold:
        head = ("human labels, grader and metric", "labels", "agreement", "kappa", "sensitivity", "specificity")
        yield Table("Graders against human labels", head, list(map(_gold, evaluation.gold)))
        corrected = [_corrected(gold, one) for gold in evaluation.gold for one in gold.corrected]
        if corrected:
            head = ("model and metric", "by the grader, %", "corrected, %", "95 % interval")
            yield Table("Rates corrected by the human labels", head, corrected)
    head = ("model", "replies", "failed", "empty", "cut at the token limit")
    yield Table("Replies", head, list(map(_replies, evaluation.models)))
    if evaluation.graders:
        head = ("grader", "graded", "unscored", "source", "license")
        yield Table("Graders", head, list(map(_grader, evaluation.graders)), words=True)


def _difference(one: Difference) -> tuple[str, ...]:
    interval = "-" if one.low is None or one.high is None else points(one.low, one.high)
    return (
        f"{model_label(one.model)} - {model_label(one.baseline)}",
        f"{metric_label(one.metric)} ({one.set}, {one.side}, {one.grader})",
        f"{one.n:,}",
        points(one.value),
        interval,
        "-" if one.p_holm is None else f"{one.p_holm:.3g}",
        "-" if one.detectable is None else f"{100 * one.detectable:.1f}",
    )


def _matches(pairwise: Pairwise) -> Table:
    rows = [
        (
            f"{model_label(match.model)} against {model_label(match.opponent)}",
            "-" if match.win_rate is None else f"{100 * match.win_rate.value:.1f} %",
            *(f"{count:,}" for count in (match.wins, match.ties, match.losses, match.unscored, match.flips)),
        )
        for match in pairwise.matches
    ]
    head = ("models", "win rate", "wins", "ties", "losses", "unscored", "order decided")
    return Table(f"Pairwise on {pairwise.set}, {pairwise.side}, judged by {pairwise.judge}", head, rows)


def _ratings(pairwise: Pairwise) -> Table:
    rows = [(model_label(one.model), str(Strength(one.rating, one.low, one.high))) for one in pairwise.ratings]
    title = f"Bradley-Terry ratings on {pairwise.set}, {pairwise.side}, judged by {pairwise.judge}"
    zero = f"strength of {model_label(pairwise.zero)} = 0" if pairwise.zero else "mean strength = 0"
    return Table(title, (f"model ({zero})", "log odds, 95 % interval"), rows)


def _bounded(one: Result, metric: Metric) -> tuple[str, ...]:
    bounds = metric.bounds
    assert bounds is not None, "only metrics with bounds are shown"
    name = f"{model_label(one.model)} {metric_label(metric.name)} ({one.set}, {one.side}, {one.grader})"
    ends = (f"{100 * end:.1f} %" for end in (bounds.low, bounds.high))
    return name, percent(metric.rate.rate), *ends, f"{one.unscored:,} of {one.replies:,}"


def _gold(one: GoldAgreement) -> tuple[str, ...]:
    rates = (one.agreement, one.sensitivity, one.specificity)
    agreement, *errors = (percent(rate.rate if rate else None) for rate in rates)
    kappa = "-" if one.kappa is None else f"{one.kappa:.2f}"
    name = f"{Path(one.file).name}, {one.grader}: {metric_label(one.metric)}"
    return name, f"{one.labels:,}", agreement, kappa, *errors


def _corrected(gold: GoldAgreement, one: Corrected) -> tuple[str, ...]:
    measured = f"{one.set}, {one.side}, {gold.grader}, {Path(gold.file).name}"
    name = f"{model_label(one.model)} {metric_label(one.metric)} ({measured})"
    known = one.corrected is not None and one.low is not None and one.high is not None
    interval = f"{100 * (one.low or 0):.1f} to {100 * (one.high or 0):.1f}" if known else "-"
    return name, f"{100 * one.observed:.1f}", f"{100 * (one.corrected or 0):.1f}" if known else "-", interval


def _replies(one: ModelFacts) -> tuple[str, ...]:
    return model_label(one.name), *(f"{count:,}" for count in (one.completions, one.failed, one.empty, one.cut))


def _grader(one: GraderFacts) -> tuple[str, ...]:
    unscored = f"{one.unscored:,} ({100 * one.failure_rate:.1f} %)"
    return one.name, f"{one.graded:,}", unscored, one.source, one.license
