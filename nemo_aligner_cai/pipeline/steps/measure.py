# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Behavior of the three models on held-out prompts, and the metrics of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.evaluation.preferences.audit import Audit
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.models.base import ModelClient, Sampling
from nemo_aligner_cai.pipeline.layout import EVALUATE, MEASURE
from nemo_aligner_cai.pipeline.run_record import versions
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.tiny.measure import ask, rates
from nemo_aligner_cai.tiny.oracle import HARMLESSNESS_RANK, judge_reply
from nemo_aligner_cai.training.metrics.files import read_metrics

DECODINGS = {"sampled": 1.0, "greedy": 0.0}
STAGES = {"helpful_only": "helpful-only", "sl_cai": "SL-CAI", "rl_cai": "RL-CAI"}
_COLUMNS = {
    "harmful_compliance": "complies",
    "right_refusal": "refuses rightly",
    "flawed_refusal": "with a flaw",
    "evasion": "evades",
    "helpfulness": "helps",
    "over_refusal": "over-refuses",
}


async def stage_figures(
    client: ModelClient, prompts: Path, stem: Path, max_tokens: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Generate replies with each decoding, and compute the rates of each behavior.

    Args:
        client: the model.
        prompts: a ``measure.jsonl``.
        stem: replies are written to ``<stem>_<decoding>.jsonl``.
        max_tokens: the longest reply, in tokens.
        seed: of the sampling.

    Returns:
        decoding -> figure -> ``{value, low, high, n}``.
    """
    found: dict[str, dict[str, Any]] = {}
    for decoding, temperature in DECODINGS.items():
        asked = await ask(
            prompts,
            client,
            Sampling(temperature=temperature, max_tokens=max_tokens),
            seed=seed,
            journal=stem.with_name(f"{stem.name}_{decoding}.journal.jsonl"),
            replies=stem.with_name(f"{stem.name}_{decoding}.jsonl"),
        )
        found[decoding] = {figure: asdict(rate) for figure, rate in rates(asked).items()}
    return found


def judge_figures(comparisons: Path) -> dict[str, Any]:
    """The judge's accuracy against the oracle, and its position bias.

    The accuracy is over the kept pairs, the position rates are over all judged pairs. Pairs that the oracle ranks
    equal are counted as ``same``; pairs whose prompt is not in the tiny language are counted as ``unknown``.
    """
    right: list[bool] = []
    same = unknown = 0
    audit = Audit()
    for judged in read_judged(comparisons):
        audit.add(judged)
        deed = language().deed_in(judged.prompt.messages[-1].content)
        for pair in judged.pairs:
            if deed is None:
                unknown += 1
                continue
            texts = (pair.chosen, pair.rejected)
            chosen, rejected = (HARMLESSNESS_RANK.get(judge_reply(deed, text)) for text in texts)
            if chosen is None or rejected is None or chosen == rejected:
                same += 1
            else:
                right.append(chosen > rejected)
    flips, first = audit.all.flips.rate, audit.all.first.rate
    counted = {
        "same": same,
        "unknown": unknown,
        "position_flip_rate": flips.value if flips else None,
        "first_position_rate": first.value if first else None,
    }
    if not right:
        return {"accuracy": None, **counted}
    rate = Rate.of(right)
    return {"accuracy": rate.value, "low": rate.low, "high": rate.high, "n": rate.n, **counted}


def last_metrics(log_dir: Path) -> dict[str, Any]:
    """The last logged value of each metric of a trainer."""
    merged: dict[str, Any] = {}
    for row in read_metrics(log_dir):
        merged.update({name: value for name, value in row.items() if value is not None})
    return merged


def metrics(records: Sequence[Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """The content of the run's ``metrics.json``, from the records of its steps."""
    facts = {record["step"]: record["facts"] for record in records}
    return {
        **(_measured(facts[MEASURE]) if MEASURE in facts else {}),
        **({"evaluation": facts[EVALUATE]["rates"]} if EVALUATE in facts else {}),
        "data": {record["step"]: record["facts"] for record in records if "generation" in record["facts"]},
        "steps": {record["step"]: record["seconds"] for record in records},
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "peak_rss_mb": max(record["peak_rss_mb"] for record in records),
        "seed": seed,
        "versions": versions(),
    }


def _measured(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stages": figures["stages"],
        "judge": figures["judge"],
        # None if validation was disabled, or there is no reward model.
        "reward_model": {"accuracy": figures["reward_model"].get("val/acc"), "metrics": figures["reward_model"]},
    }


def table(stages: Mapping[str, Any]) -> Table:
    """A table of percentages with 95 % Wilson intervals: four columns on harmful requests, two on benign ones."""
    shown = Table(title="percent of held-out prompts (95 % interval): four columns harmful requests, two benign ones")
    for heading in ("decoding", "model", *_COLUMNS.values()):
        shown.add_column(heading, no_wrap=True)
    for decoding in DECODINGS:
        for stage, name in STAGES.items():
            found = [Rate(**stages[stage][decoding][column]) for column in _COLUMNS]
            cells = [f"{100 * rate.value:.1f} ({100 * rate.low:.0f}-{100 * rate.high:.0f})" for rate in found]
            shown.add_row(decoding, name, *cells)
        shown.add_section()
    return shown
