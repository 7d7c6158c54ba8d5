# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The step that evaluates a run's models: its inputs, outputs and settings, and the clients of the models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nemo_aligner_cai.evaluation.results import RESULT_FILE
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.pipeline.clients import Clients
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.evaluate import evaluate, run_model
from nemo_aligner_cai.pipeline.layout import DATA, EVALUATE, MEASURED, SFT, Layout
from nemo_aligner_cai.pipeline.step_cache import Step


def evaluate_step(config: RunConfig, clients: Clients, layout: Layout, policy: str) -> Step:
    """Return the step.

    Args:
        config: the run's, with a section `evaluate`.
        clients: make the clients of its models.
        layout: of its folder.
        policy: the step that makes the RL-CAI model.
    """
    section = config.evaluate
    assert section is not None, "only runs with it have the step"
    measured, is_judge = layout.file(DATA, MEASURED), section.grader_model == "judge"
    paths = {
        "helpful_only": clients.path("helpful_only"),
        "sl_cai": clients.trained_path(SFT),
        "rl_cai": clients.trained_path(policy),
        "judge": clients.path("judge") if is_judge else None,
    }

    def work(folder: Path) -> Mapping[str, Any]:
        def client(name: str, step: str | None) -> EvaluatedModel:
            log = folder / f"{name}.log"
            make = partial(clients.trained, step) if step else partial(clients.of, "helpful_only")
            return run_model(name, paths[name], layout.folder, partial(make, log, section.batch_size))

        models = [client("helpful_only", None), client("sl_cai", SFT), client("rl_cai", policy)]
        settings = section.config(folder, measured, constitution=config.models.constitution, seed=config.seed)
        return evaluate(settings, models, _grader(config, clients, layout, folder, paths["judge"]))

    constitution = (config.models.constitution,) if section.pairwise is not None else ()
    return Step(
        EVALUATE,
        "Step 8: evaluation",
        reads=(*(path for path in paths.values() if path is not None), *section.files(measured), *constitution),
        makes=(RESULT_FILE, "completions.jsonl", "grades.jsonl"),
        settings={"seed": config.seed} | section.model_dump(mode="json", exclude_defaults=True),
        endpoints=lambda: (
            clients.endpoint_identities("helpful_only", *(("judge",) if is_judge else ())) | clients.grader_identity()
        ),
        work=work,
    )


def _grader(
    config: RunConfig, clients: Clients, layout: Layout, folder: Path, judge_path: Path | None
) -> EvaluatedModel | None:
    assert config.evaluate is not None, "only runs with it have the step"
    if config.evaluate.grader_model is None:
        return None
    log, size = folder / "grader.log", config.evaluate.batch_size
    if config.evaluate.grader_model == "judge":
        return run_model("grader", judge_path, layout.folder, partial(clients.of, "judge", log, size))
    return run_model("grader", None, layout.folder, clients.grader)
