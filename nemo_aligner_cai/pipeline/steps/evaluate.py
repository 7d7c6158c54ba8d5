# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The step that evaluates a run's models: its inputs, outputs and settings, and the clients of the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nemo_aligner_cai.evaluation.results import RESULT_FILE
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import DATA, EVALUATE, MEASURED, SFT, Layout
from nemo_aligner_cai.pipeline.sections.evaluate import Evaluate, evaluate, run_model
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.serving.clients import Answering, Clients
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
    sources = {
        "helpful_only": _source(config, clients, "helpful_only"),
        "sl_cai": clients.trained_path(SFT),
        "rl_cai": clients.trained_path(policy),
    }
    graders = [_source(config, clients, "judge")] if is_judge else []

    def work(folder: Path) -> Mapping[str, Any]:
        def client(name: str, step: str | None) -> EvaluatedModel:
            log = folder / f"{name}.log"
            make = partial(clients.trained, step) if step else partial(clients.of, "helpful_only")
            return run_model(name, sources[name], layout.folder, partial(make, log, section.batch_size))

        models = [client("helpful_only", None), client("sl_cai", SFT), client("rl_cai", policy)]
        settings = section.config(folder, measured, constitution=config.models.constitution, seed=config.seed)
        return evaluate(settings, models, _grader(section, clients, layout, folder, graders))

    constitution = (config.models.constitution,) if section.pairwise is not None else ()
    return Step(
        EVALUATE,
        "Step 8: evaluation",
        reads=(
            *(one for one in (*sources.values(), *graders) if isinstance(one, Path)),
            *section.files(measured),
            *constitution,
        ),
        makes=(RESULT_FILE, "completions.jsonl", "grades.jsonl"),
        settings={"seed": config.seed} | section.model_dump(mode="json", exclude_defaults=True),
        endpoints=lambda: (
            clients.endpoint_identities("helpful_only", *(("judge",) if is_judge else ())) | clients.grader_identity()
        ),
        work=work,
    )


def _source(config: RunConfig, clients: Clients, role: Answering) -> Path | EndpointModel:
    model, path = getattr(config.models, role), clients.path(role)
    return model if path is None else path


def _grader(
    section: Evaluate, clients: Clients, layout: Layout, folder: Path, judge: Sequence[Path | EndpointModel]
) -> EvaluatedModel | None:
    """Return the model that grades; `judge` is the run's judge if it is that one."""
    if isinstance(section.grader_model, EndpointModel):
        return run_model("grader", section.grader_model, layout.folder, clients.grader)
    client = partial(clients.of, "judge", folder / "grader.log", section.batch_size)
    return run_model("grader", judge[0], layout.folder, client) if judge else None
