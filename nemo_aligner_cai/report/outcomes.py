# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The behavior of each model on held-out prompts, from the run's own measurement and from `cai evaluate`.

Output: OutcomeGroup("sampled", (ModelOutcomes("rl_cai", {"evasion": Rate(...)}, {"evades": 5, ...}), ...))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nemo_aligner_cai.evaluation.results import Evaluation, Figure, Result
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.labels import METRICS, model_label
from nemo_aligner_cai.report.run_folder import RunFolder

_HARMFUL_CLASSES = ("harmful_compliance", "flawed_refusal", "evasion", "right_refusal")


@dataclass
class ModelOutcomes:
    """One model's figures.

    Attributes:
        name: the model's.
        rates: metric -> rate.
        classes: class of a reply to a harmful prompt -> number of replies.
    """

    name: str
    rates: dict[str, Rate] = field(default_factory=dict[str, Rate])
    classes: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def label(self) -> str:
        """The model's name for readers."""
        return model_label(self.name)

    @property
    def help(self) -> Rate | None:
        """The rate of help on benign prompts."""
        return self.rates.get("helpfulness")


@dataclass(frozen=True)
class OutcomeGroup:
    """Models that were measured in the same way, on the same prompts."""

    title: str
    models: tuple[ModelOutcomes, ...]


def outcome_groups(run: RunFolder) -> list[OutcomeGroup]:
    """All groups: one for each decoding, then one for each set and grader of the evaluation."""
    return [*_measured(run.measured.stages), *(_evaluated(run.evaluation) if run.evaluation else ())]


def _measured(stages: Mapping[str, Mapping[str, Mapping[str, Figure]]]) -> Iterator[OutcomeGroup]:
    for decoding in dict.fromkeys(decoding for decodings in stages.values() for decoding in decodings):
        models: list[ModelOutcomes] = []
        for name, decodings in stages.items():
            rates = {metric: measured.rate for metric, measured in decodings.get(decoding, {}).items()}
            counts = {
                METRICS[metric]: round(rates[metric].value * rates[metric].n)
                for metric in _HARMFUL_CLASSES
                if metric in rates
            }
            models.append(ModelOutcomes(name, rates, counts))
        yield OutcomeGroup(f"{decoding} replies", tuple(models))


def _evaluated(evaluation: Evaluation) -> Iterator[OutcomeGroup]:
    keys = dict.fromkeys((result.set, result.grader) for result in evaluation.results)
    for name, grader in keys:
        models = {model.name: ModelOutcomes(model.name) for model in evaluation.models}
        for result in evaluation.results:
            if (result.set, result.grader) == (name, grader):
                _add(models[result.model], result)
        used = tuple(model for model in models.values() if model.rates)
        if used:
            yield OutcomeGroup(f"{name}, graded by {grader}", used)


def _add(model: ModelOutcomes, result: Result) -> None:
    for metric in result.metrics:
        # Evasion alone is measured on both sides.
        is_other = metric.name == "evasion" and result.side == "benign"
        model.rates["benign_evasion" if is_other else metric.name] = metric.rate.rate
    if result.side == "harmful":
        model.classes |= {name.replace("_", " "): count for name, count in result.classes.items()}
        if result.unscored:
            model.classes["unscored"] = result.unscored
