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

from nemo_aligner_cai.pipeline.layout import (
    ADAPTERS,
    ANSWERS,
    DPO,
    MEASURE,
    MODEL,
    PPO,
    REWARD_MODEL,
    RL_CAI,
    SFT,
    SL_CAI,
)
from nemo_aligner_cai.pipeline.run import Pipeline
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.sections.serve import NemoServer, Server
from nemo_aligner_cai.pipeline.serving import vllm
from nemo_aligner_cai.pipeline.serving.clients import Answering
from nemo_aligner_cai.pipeline.serving.servers import HOST
from nemo_aligner_cai.pipeline.steps import trainers
from nemo_aligner_cai.pipeline.steps.trainers import Trainer
from nemo_aligner_cai.training.launch import jobs

_PORTS = {"helpful_only": 5656, "policy": 5657, "judge": 5658}
_CRITIC_PORT = 5567


def commands(pipeline: Pipeline, program: Sequence[str]) -> str:
    """The commands of all steps, in order.

    Args:
        pipeline: the run.
        program: the command line of the run, to which `--step NAME` is added.
    """
    lines: list[str] = []
    for step in pipeline.steps():
        lines += [f"# {step.title}", *(f"#   {line}" for line in _started(pipeline, step.name))]
        lines += [shlex.join([*program, "--step", step.name]), ""]
    return "\n".join(lines)


def _started(pipeline: Pipeline, step: str) -> Iterator[str]:
    """The commands that a step starts."""
    config, layout = pipeline.config, pipeline.layout
    if (conversion := pipeline.files.conversions.get(step)) is not None:
        target = layout.file(step, conversion.makes)
        yield shlex.join([conversion.program, *conversion.command(target)])
    elif step == SL_CAI:
        yield _role(pipeline, "helpful_only")
    elif step == RL_CAI:
        yield _server(config.serve.policy, pipeline.clients.trained_path(SFT), "policy")
        yield _role(pipeline, "judge")
    elif step == SFT:
        base = pipeline.files.nemo("base")
        yield from _trainer(trainers.sft(config, layout, base), step, pipeline, base)
    elif step == REWARD_MODEL:
        yield from _trainer(trainers.reward_model(config, layout), step, pipeline, None)
    elif step == DPO:
        yield from _trainer(trainers.dpo(config, layout), step, pipeline, layout.file(SFT, MODEL))
    elif step == PPO:
        yield _module(trainers.critic(config, layout, host=HOST, port=_CRITIC_PORT))
        actor = trainers.actor(config, layout, host=HOST, port=_CRITIC_PORT)
        yield from _trainer(actor, step, pipeline, layout.file(SFT, MODEL))
    elif step in (MEASURE, ANSWERS):
        yield _role(pipeline, "helpful_only")
        for trained in (SFT, PPO if config.ppo else DPO):
            yield _server(config.serve.policy, pipeline.clients.trained_path(trained), "policy")


def _trainer(trainer: Trainer, step: str, pipeline: Pipeline, base: Path | None) -> Iterator[str]:
    yield _module(trainer)
    if base is not None and trainers.adds_adapters(trainer.config, trainer.overrides):
        file = pipeline.layout.file
        yield _module(trainers.merge(base, file(step, ADAPTERS), file(step, MODEL)))


def _module(trainer: Trainer) -> str:
    command = ["python", "-m", f"nemo_aligner_cai.training.{trainer.module}", *trainer.overrides]
    return _on_gpus(trainer.gpus, command)


def _role(pipeline: Pipeline, role: Answering) -> str:
    model = getattr(pipeline.config.models, role)
    path = pipeline.clients.path(role)
    if isinstance(model, EndpointModel) or path is None:
        return f"asks {model.model} at {' '.join(model.endpoint)}"
    return _server(getattr(pipeline.config.serve, role), path, role)


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
