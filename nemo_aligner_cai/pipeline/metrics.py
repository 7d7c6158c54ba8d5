# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The metrics of a run, and the table of the tiny assistant's behavior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.pipeline.layout import EVALUATE, MEASURE
from nemo_aligner_cai.pipeline.run_record import versions
from nemo_aligner_cai.pipeline.steps.measure import DECODINGS
from nemo_aligner_cai.report.labels import MODELS

_COLUMNS = {
    "harmful_compliance": "complies",
    "right_refusal": "refuses rightly",
    "flawed_refusal": "with a flaw",
    "evasion": "evades",
    "helpfulness": "helps",
    "over_refusal": "over-refuses",
}


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
        for stage, name in MODELS.items():
            found = [Rate(**stages[stage][decoding][column]) for column in _COLUMNS]
            cells = [f"{100 * rate.value:.1f} ({100 * rate.low:.0f}-{100 * rate.high:.0f})" for rate in found]
            shown.add_row(decoding, name, *cells)
        shown.add_section()
    return shown
