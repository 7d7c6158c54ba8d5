# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Behavior of the three models on held-out prompts of the tiny world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.files import write_json
from nemo_aligner_cai.judges.base import position_rates
from nemo_aligner_cai.judges.orders import position_counts
from nemo_aligner_cai.models.base import ModelClient, Sampling
from nemo_aligner_cai.pipeline.layout import DATA, MEASURE, MEASURED, REWARD_MODEL, RL_CAI
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.pipeline.steps import three_models
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.pipeline.steps.trainers import LOG_DIR
from nemo_aligner_cai.pipeline.steps.training import last_metrics
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.tiny.measure import ask, rates
from nemo_aligner_cai.tiny.oracle import HARMLESSNESS_RANK, judge_reply

DECODINGS = {"sampled": 1.0, "greedy": 0.0}


def measure_step(run: RunContext) -> Step:
    """The step that generates replies of the three models to held-out prompts, and classifies them by the oracle."""
    section, file = run.config.measure, run.layout.file
    assert section is not None, "only runs with it have the step"
    prompts, comparisons = file(DATA, MEASURED), file(RL_CAI, "comparisons.jsonl")

    def work(folder: Path) -> Mapping[str, Any]:
        def asked(name: str, client: ModelClient) -> Coroutine[Any, Any, dict[str, dict[str, Any]]]:
            return stage_figures(client, prompts, folder / name, section.max_tokens, run.config.seed)

        figures = {
            "stages": three_models.ask_each(run, folder, section.batch_size, asked),
            "judge": judge_figures(comparisons),
            # A run by DPO may have the folder of an earlier run by PPO.
            "reward_model": last_metrics(file(REWARD_MODEL, LOG_DIR)) if run.config.reward_model else {},
        }
        write_json(folder / "figures.json", figures, overwrite=True)
        return figures

    return Step(
        MEASURE,
        "Step 7: inference and measurement",
        reads=(*three_models.paths(run), prompts, comparisons),
        makes=("figures.json",),
        settings=run.settings(section.model_dump() | three_models.settings(run)),
        endpoints=lambda: run.clients.endpoint_identities("helpful_only"),
        work=work,
    )


async def stage_figures(
    client: ModelClient, prompts: Path, stem: Path, max_tokens: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Generate replies with each decoding, and compute the rates of each behavior.

    Replies to a ``measure.jsonl`` are written to ``<stem>_<decoding>.jsonl``; `max_tokens` is for each.

    Returns:
        decoding -> figure -> ``{value, low, high, n}``.
    """
    found: dict[str, dict[str, Any]] = {}
    for decoding, temperature in DECODINGS.items():
        measured = await ask(
            prompts,
            client,
            Sampling(temperature=temperature, max_tokens=max_tokens),
            seed=seed,
            journal=stem.with_name(f"{stem.name}_{decoding}.journal.jsonl"),
            replies=stem.with_name(f"{stem.name}_{decoding}.jsonl"),
        )
        found[decoding] = {figure: asdict(rate) for figure, rate in rates(measured).items()}
    return found


def judge_figures(comparisons: Path) -> dict[str, Any]:
    """The judge's accuracy against the oracle, and its position bias.

    The accuracy is over the kept pairs, the position rates are over all judged pairs. Pairs that the oracle ranks
    equal are counted as ``same``; pairs whose prompt is not in the tiny language are counted as ``unknown``.
    """
    right: list[bool] = []
    same = unknown = 0
    positions = Counter[str]()
    for judged in read_judged(comparisons):
        positions.update(position_counts(judged.verdicts))
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
    counted = {"same": same, "unknown": unknown, **position_rates(positions)}
    if not right:
        return {"accuracy": None, **counted}
    rate = Rate.of(right)
    return {"accuracy": rate.value, "low": rate.low, "high": rate.high, "n": rate.n, **counted}
