# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Terminal output of `cai evaluate`: its requests, the number of its calls, its figures."""

import asyncio
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from rich.console import Console

from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.commands.generate import display
from nemo_aligner_cai.engine.engine import Step
from nemo_aligner_cai.engine.planned_calls import count_calls
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.evaluation.inputs import EvaluationInputs
from nemo_aligner_cai.evaluation.replies.samples import EvalSample
from nemo_aligner_cai.evaluation.results import Bounds, Evaluation
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.evaluation.statistics.bradley_terry import Strength
from nemo_aligner_cai.models import ModelClient, ScriptedClient


def show_preview(inputs: EvaluationInputs, count: int) -> None:
    """Show the requests of the first prompts for the first model, with scripted replies."""
    model = inputs.models[0]

    def steps_for(*clients: ModelClient) -> list[Step[EvalSample]]:
        own = iter(clients)
        answering = next(own) if model.serve is not None else None
        return inputs.pipeline(answering, next(own, None)).steps()

    asked = [model.serve is not None, inputs.grader_model is not None]
    display.show_preview(islice(inputs.records(model), count), steps_for, *(None for one in asked if one))


def show_plan(inputs: EvaluationInputs) -> None:
    """Show for each model and step how many calls are new, and how many are in the journal."""
    rows: list[tuple[str, str, int, int]] = []
    for model in inputs.models:
        steps = inputs.pipeline(_scripted(model), _scripted(inputs.grader_model)).steps()
        if not steps:
            rows.append((model.name, "none", 0, 0))
            continue
        counts = asyncio.run(count_calls(inputs.records(model), steps, inputs.config.run, inputs.journal(model)))
        rows += [(model.name, step.name, counts.calls[step.name], counts.reused[step.name]) for step in steps]
    console = open_console()
    console.print(f"{len(inputs.prompts)} prompts; a call that depends on a new call counts as new")
    console.print(table_of(("model", "step", "to be made", "in the journal"), rows))
    if inputs.judge is not None:
        pairs = len(inputs.models) * (len(inputs.models) - 1) // 2
        console.print(
            f"and up to {2 * pairs * len(inputs.prompts)} comparisons: {pairs} pairs of models, in both orders"
        )


def _scripted(model: EvaluatedModel | None) -> ModelClient | None:
    if model is None or model.serve is None:
        return None
    return ScriptedClient(identity=model.identity, remember=False)


def show(evaluation: Evaluation, summaries: Mapping[str, Summary], written: Path) -> None:
    """Show the figures."""
    console = open_console()
    _show_calls(console, summaries)
    _show_replies(console, evaluation)
    _show_metrics(console, evaluation)
    _show_graders(console, evaluation)
    _show_differences(console, evaluation)
    _show_pairwise(console, evaluation)
    _show_gold(console, evaluation)
    console.print(f"written: {written}", soft_wrap=True)


def _show_calls(console: Console, summaries: Mapping[str, Summary]) -> None:
    rows = [
        (name, one.counts.rows_in, one.calls, one.reused, one.failed, f"{one.seconds:.1f}")
        for name, one in summaries.items()
    ]
    console.print(table_of(("run", "prompts", "calls", "reused", "failed calls", "seconds"), rows))


def _show_replies(console: Console, evaluation: Evaluation) -> None:
    rows = [(one.name, one.completions, one.failed, one.empty, one.cut) for one in evaluation.models]
    console.print(table_of(("model", "replies", "failed", "empty", "cut at the limit"), rows))
    saved = [
        (one.name, one.saved.used, one.saved.other_prompts, one.saved.other_models)
        for one in evaluation.models
        if one.saved is not None
    ]
    if saved:
        console.print(table_of(("saved completions", "used", "of other prompts", "of other models"), saved))


def _show_metrics(console: Console, evaluation: Evaluation) -> None:
    rows = [
        (
            one.set,
            one.side,
            one.grader,
            metric.name,
            one.model,
            metric.rate.rate,
            one.replies,
            _bounds(metric.bounds),
        )
        for one in evaluation.results
        for metric in one.metrics
    ]
    rows.sort(key=lambda row: row[:4])
    names = ("set", "side", "grader", "metric", "model", "% [95 %]", "replies", "worst case, %")
    console.print(table_of(names, rows))


def _show_graders(console: Console, evaluation: Evaluation) -> None:
    rows = [
        (one.name, one.graded, one.unscored, f"{100 * one.failure_rate:.1f}", one.by_logprobs, one.by_text)
        for one in evaluation.graders
    ]
    console.print(table_of(("grader", "graded", "unscored", "unscored, %", "by log-probs", "by text"), rows))
    for grader in evaluation.graders:
        if grader.same_as is not None:
            console.print(f"{grader.name} was graded by {grader.same_as}, one of the models", soft_wrap=True)


def _show_differences(console: Console, evaluation: Evaluation) -> None:
    rows = [
        (
            f"{one.model} - {one.baseline}",
            one.set,
            one.side,
            one.grader,
            one.metric,
            _points(one.value, one.low, one.high),
            _p_value(one.p_holm),
            "-" if one.detectable is None else f"{100 * one.detectable:.1f}",
        )
        for one in evaluation.differences
    ]
    if rows:
        names = ("difference", "set", "side", "grader", "metric", "points [95 %]", "p (Holm)", "detectable")
        console.print(table_of(names, rows))


def _show_pairwise(console: Console, evaluation: Evaluation) -> None:
    for group in evaluation.pairwise:
        rows = [
            (
                f"{one.model} against {one.opponent}",
                "-" if one.win_rate is None else one.win_rate.rate,
                one.wins,
                one.ties,
                one.losses,
                one.unscored,
                one.flips,
            )
            for one in group.matches
        ]
        title = f"{group.set}, {group.side}, by {group.judge}"
        console.print(table_of((title, "wins, % [95 %]", "wins", "ties", "losses", "unscored", "flips"), rows))
        ratings = [(one.model, Strength(one.rating, one.low, one.high)) for one in group.ratings]
        of = f"{group.zero}'s" if group.zero else "the mean's"
        console.print(table_of((f"Bradley-Terry, {of} = 0", "logits [95 %]"), ratings))


def _show_gold(console: Console, evaluation: Evaluation) -> None:
    rows = [
        (
            Path(one.file).name,
            one.grader,
            one.metric,
            one.labels,
            one.agreement.rate,
            "-" if one.kappa is None else f"{one.kappa:.2f}",
            "-" if one.sensitivity is None else one.sensitivity.rate,
            "-" if one.specificity is None else one.specificity.rate,
        )
        for one in evaluation.gold
    ]
    if rows:
        names = ("human labels", "grader", "metric", "labels", "agree, %", "kappa", "sensitivity, %", "specificity, %")
        console.print(table_of(names, rows))


def _bounds(bounds: Bounds | None) -> str:
    return "-" if bounds is None else f"{100 * bounds.low:.1f} to {100 * bounds.high:.1f}"


def _points(value: float, low: float | None, high: float | None) -> str:
    interval = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * value:+.1f}{interval}"


def _p_value(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
