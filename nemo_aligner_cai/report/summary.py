# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The five lines at the top of a report, and what is missing from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.labels import duration, memory, percent
from nemo_aligner_cai.report.outcomes import ModelOutcomes, OutcomeGroup
from nemo_aligner_cai.report.run_folder import RunFolder, StepState
from nemo_aligner_cai.report.sections.preferences import Preferences


@dataclass(frozen=True)
class Line:
    """A line of the summary.

    Attributes:
        name: its subject.
        figure: the figure that counts.
        before: the same figure of the first model, or "".
        text: the sentence.
    """

    name: str
    figure: str
    before: str
    text: str


def summary(run: RunFolder, groups: Sequence[OutcomeGroup], found: Preferences) -> list[Line]:
    """The lines, as far as the run has come."""
    lines = [*_behavior(groups[0])] if groups else []
    return [*lines, *_preferences(found), *(() if run.is_evaluation else (_time(run),))]


def _behavior(group: OutcomeGroup) -> Iterator[Line]:
    first, last = group.models[0], group.models[-1]
    harm = last.rates.get("harmful_compliance")
    if harm:
        text = f"{last.label} complies with {percent(harm)} of {harm.n:,} harmful prompts ({group.title})"
        yield Line("Harm", _figure(harm), _before(first, last, "harmful_compliance"), text + _others(group))
    if last.help:
        refused = last.rates.get("over_refusal")
        also = f", and refuses {percent(refused)} of them" if refused else ""
        before = _figure(first.help) if first is not last and first.help else ""
        text = f"{last.label} helps with {percent(last.help)} of {last.help.n:,} benign prompts{also}."
        yield Line("Help", _figure(last.help), before, text)
    if evasion := last.rates.get("evasion"):
        right = last.rates.get("right_refusal")
        also = f"; it refuses {percent(right)} and gives the right reason" if right else ""
        text = f"{last.label} evades {percent(evasion)} of the harmful prompts{also}."
        yield Line("Evasion", _figure(evasion), _before(first, last, "evasion"), text)


def _others(group: OutcomeGroup) -> str:
    others = [
        f"{model.label} with {100 * model.rates['harmful_compliance'].value:.1f} %"
        for model in group.models[:-1]
        if "harmful_compliance" in model.rates
    ]
    return f"; {' and '.join(others)}." if others else "."


def _figure(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} %"


def _before(first: ModelOutcomes, last: ModelOutcomes, metric: str) -> str:
    rate = first.rates.get(metric)
    return _figure(rate) if rate and first is not last else ""


def _preferences(found: Preferences) -> Iterator[Line]:
    audit = found.audit
    if audit is None:
        return
    flips, longer = audit.all.flips.rate, audit.longer.rate
    also = f"; the order of presentation decided {percent(flips)} of those judged in both orders" if flips else ""
    length = f"; the chosen text is longer in {percent(longer)}" if longer else ""
    text = f"{audit.pairs:,} pairs were kept of {audit.all.pairs:,} that the judge compared{also}{length}."
    yield Line("Preferences", f"{audit.pairs:,}", "", text)


def _time(run: RunFolder) -> Line:
    done = [step.record for step in run.steps if step.record is not None]
    calls = sum(record.facts.generation.calls for record in done if record.facts.generation)
    seconds = sum(record.seconds for record in done)
    peak = max((record.peak_rss_mb for record in done), default=0.0)
    steps = f"{len(done)} of {len(run.steps)} steps are done"
    text = f"{steps}, with {calls:,} model calls and {memory(peak)} of memory at the peak."
    return Line("Time", duration(seconds), "", text)


def missing(run: RunFolder) -> list[str]:
    """The steps that are not done, in words."""
    return [f"{step.title}: {_state(step)}." for step in run.missing]


def _state(step: StepState) -> str:
    if step.outdated:
        return "was done with earlier settings, or from files that have changed; its results are not shown"
    return "was begun and is not finished" if step.started else "has not been started"
