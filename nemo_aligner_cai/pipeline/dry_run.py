# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of a run, to paste into a shell; nothing is executed.

Output: # Step 3: fine-tuning on the revisions (SFT)
        #   CUDA_VISIBLE_DEVICES=0,1 python -m nemo_aligner_cai.training.sft model.restore_from_path=...
        cai run mistral_7b.yaml --output /results --step 3_sft

Each command runs one step, or nothing if the step is done. The comments above it are what it starts: servers,
trainers and converters, with their settings. Servers and the critic get free ports; here they have fixed ones.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_aligner_cai import extras
from nemo_aligner_cai.pipeline import layout
from nemo_aligner_cai.pipeline.check import Checks
from nemo_aligner_cai.pipeline.run import Pipeline
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.sections.serve import NemoServer, Server
from nemo_aligner_cai.pipeline.serving import vllm
from nemo_aligner_cai.pipeline.serving.model_uses import ModelUse, models_used
from nemo_aligner_cai.pipeline.serving.servers import HOST
from nemo_aligner_cai.pipeline.steps import trainers
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.pipeline.steps.trainers import Trainer
from nemo_aligner_cai.training.launch import jobs

_PORTS = {"helpful_only": 5656, "policy": 5657, "judge": 5658}
_CRITIC_PORT = 5567


def dry_run_checks() -> Checks:
    """The checks of a dry run, which needs neither torch nor NeMo."""
    checks = Checks(dry_run=True)
    with checks.of("trainers, converters and NeMo's server"):
        extras.require("cai run")
    return checks


def not_checked(checks: Checks) -> str:
    """The checks that could not be made, as comments of a shell; empty if there are none."""
    if not checks.not_made:
        return ""
    lines = [f"#   {what}: {', '.join(dict.fromkeys(names))}" for what, names in checks.not_made.items()]
    return "\n".join(
        ["# Not on this machine, so not checked here; a run checks it before its first step:", *lines, ""]
    )


def commands(pipeline: Pipeline, program: Sequence[str], *, only: str | None = None, first: str | None = None) -> str:
    """The commands of the steps, in order.

    Args:
        pipeline: the run.
        program: the command line of the run, to which `--step NAME` is added.
        only: this step; None for all steps.
        first: this step and all later ones.

    Raises:
        UsageError: the run has no step of that name.
    """
    names = pipeline.names_from(only or first or pipeline.steps()[0].name)
    chosen = names[:1] if only else names
    lines: list[str] = []
    for step in pipeline.steps():
        if step.name not in chosen:
            continue
        lines += [f"# {step.title}", *(f"#   {line}" for line in _started(pipeline.context, step.name))]
        lines += [shlex.join([*program, "--step", step.name]), ""]
    return "\n".join(lines)


def _started(run: RunContext, step: str) -> Iterator[str]:
    """The commands that a step starts."""
    if (conversion := run.files.conversions.get(step)) is not None:
        target = run.layout.file(step, conversion.makes)
        yield shlex.join([conversion.program, *conversion.command(target)])
    elif step == layout.SFT:
        yield from _trainer(run, trainers.sft(run), step, run.files.nemo("base"))
    elif step == layout.REWARD_MODEL:
        yield from _trainer(run, trainers.reward_model(run), step, run.sl_cai_model)
    elif step == layout.DPO:
        yield from _trainer(run, trainers.dpo(run), step, run.sl_cai_model)
    elif step == layout.PPO:
        yield _module(trainers.critic(run, host=HOST, port=_CRITIC_PORT))
        yield from _trainer(run, trainers.actor(run, host=HOST, port=_CRITIC_PORT), step, run.sl_cai_model)
    for use in models_used(run.config, step):
        yield _model(run, use)
    grader = run.config.evaluate.grader_model if run.config.evaluate else None
    if step == layout.EVALUATE and isinstance(grader, EndpointModel):
        yield _endpoint(grader)


def _trainer(run: RunContext, trainer: Trainer, step: str, base: Path) -> Iterator[str]:
    yield _module(trainer)
    if trainer.adds_adapters:
        yield _module(
            trainers.merge(base, run.layout.file(step, layout.ADAPTERS), run.layout.file(step, layout.MODEL))
        )


def _module(trainer: Trainer) -> str:
    return _on_gpus(trainer.gpus, ["python", "-m", trainer.path, *trainer.overrides])


def _model(run: RunContext, use: ModelUse) -> str:
    role = use.role
    if role == "policy":
        return _server(run.config.serve.policy, run.clients.trained_path(use.trained_by), role)
    model, path = getattr(run.config.models, role), run.clients.path(role)
    if isinstance(model, EndpointModel) or path is None:
        return _endpoint(model)
    return _server(getattr(run.config.serve, role), path, role)


def _endpoint(model: EndpointModel) -> str:
    return f"asks {model.model} at {' '.join(model.endpoint) or model.endpoints_dir}"


def _server(server: Server, path: Path, role: str) -> str:
    port = _PORTS[role]
    if isinstance(server, NemoServer):
        return _on_gpus(server.gpus, ["cai", "serve", str(path), "--port", str(port), *server.overrides])
    each = vllm.command(path, server, role, port)
    copies = f"  # and {server.replicas - 1} more" if server.replicas > 1 else ""
    return _on_gpus(server.gpus[: server.tensor_parallel], each) + copies


def _on_gpus(numbers: Sequence[int], command: Sequence[str]) -> str:
    env = [f"{name}={value}" for name, value in jobs.visible_gpus(numbers).items()]
    return " ".join([*env, shlex.join(command)])
