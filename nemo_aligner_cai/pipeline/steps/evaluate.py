# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The last step of a run: `cai evaluate` of its three models.

Output: in the step's folder, the files of `evaluation.settings.EvaluationFiles`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nemo_aligner_cai.evaluation.inputs import EvaluationInputs
from nemo_aligner_cai.evaluation.results import RESULT_FILE, Evaluation
from nemo_aligner_cai.evaluation.run import EvaluationRun
from nemo_aligner_cai.evaluation.settings import EvaluateConfig, EvaluatedModel, ModelKind
from nemo_aligner_cai.models.base import ClientContext
from nemo_aligner_cai.pipeline.layout import DATA, EVALUATE, MEASURED, SFT
from nemo_aligner_cai.pipeline.sections.evaluate import Evaluate
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.serving.clients import Answering
from nemo_aligner_cai.pipeline.serving.servers import ask
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.pipeline.steps import three_models
from nemo_aligner_cai.pipeline.steps.context import RunContext


def evaluate_step(run: RunContext) -> Step:
    """The step that evaluates the three models of a run."""
    config, section = run.config, run.config.evaluate
    assert section is not None, "only runs with it have the step"
    measured, is_judge = run.layout.file(DATA, MEASURED), section.grader_model == "judge"
    sources = {
        "helpful_only": _source(run, "helpful_only"),
        "sl_cai": run.clients.trained_path(SFT),
        "rl_cai": run.clients.trained_path(run.config.policy_step),
    }
    judge = _source(run, "judge") if is_judge else None

    def work(folder: Path) -> Mapping[str, Any]:
        clients = three_models.clients(run, folder, section.batch_size)
        models = [run_model(name, sources[name], run.layout.folder, client) for name, client in clients.items()]
        settings = section.config(folder, measured, constitution=config.models.constitution, seed=config.seed)
        return evaluate(settings, models, _grader(run, section, folder, judge))

    constitution = (config.models.constitution,) if section.pairwise is not None else ()
    roles: tuple[Answering, ...] = ("helpful_only", "judge") if is_judge else ("helpful_only",)
    return Step(
        EVALUATE,
        "Step 8: evaluation",
        reads=(
            *(one for one in (*sources.values(), judge) if isinstance(one, Path)),
            *section.files(measured),
            *constitution,
        ),
        makes=(RESULT_FILE, "completions.jsonl", "grades.jsonl"),
        settings=run.settings(
            section.model_dump(mode="json", exclude_defaults=True) | run.clients.settings(*roles, "policy")
        ),
        endpoints=lambda: run.clients.endpoint_identities(*roles) | run.clients.grader_identity(),
        work=work,
    )


def _source(run: RunContext, role: Answering) -> Path | EndpointModel:
    return run.clients.path(role) or getattr(run.config.models, role)


def _grader(
    run: RunContext, section: Evaluate, folder: Path, judge: Path | EndpointModel | None
) -> EvaluatedModel | None:
    """The model that grades; `judge` is the run's judge if it is that one."""
    if isinstance(section.grader_model, EndpointModel):
        return run_model("grader", section.grader_model, run.layout.folder, run.clients.grader)
    if judge is None:
        return None
    client = partial(run.clients.of, "judge", folder / "grader.log", section.batch_size)
    return run_model("grader", judge, run.layout.folder, client)


def run_model(name: str, path: Path | EndpointModel, folder: Path, client: ClientContext) -> EvaluatedModel:
    """A model of a run as the evaluation names it.

    Args:
        name: its name in the results.
        path: its file or folder, or the endpoint.
        folder: the run's; paths inside of it are given relative to it, so that two equal runs have equal results.
        client: the context of its client.
    """
    if isinstance(path, EndpointModel):
        return EvaluatedModel(name, "endpoint", f"{path.endpoints_dir or path.endpoint[0]}#{path.model}", client)
    kind: ModelKind = "nemo_file" if path.suffix == ".nemo" else "hf_folder"
    source = path.relative_to(folder) if path.is_relative_to(folder) else path
    return EvaluatedModel(name, kind, source.as_posix(), client)


def evaluate(
    config: EvaluateConfig, models: Sequence[EvaluatedModel], grader: EvaluatedModel | None
) -> dict[str, Any]:
    """Run the evaluation; returns its rates, for the record of the step.

    Raises:
        UsageError: an input is invalid.
        CaiError: too many calls failed; the rest is saved.
    """
    run = EvaluationRun(EvaluationInputs(config, models, grader), ask)
    run.begin()
    evaluation = run.execute()
    run.check()
    return {"rates": _rates(evaluation)}


def _rates(evaluation: Evaluation) -> list[Mapping[str, Any]]:
    return [
        {
            "model": one.model,
            "set": one.set,
            "side": one.side,
            "grader": one.grader,
            "metric": metric.name,
            **metric.rate.model_dump(),
        }
        for one in evaluation.results
        for metric in one.metrics
    ]
