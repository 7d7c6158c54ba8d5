# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes, tasks and GPUs of each step's job, from the settings of its trainers and servers.

A trainer with trainer.num_nodes=2 and trainer.devices=8 gets 2 nodes with 8 tasks and 8 GPUs each, and a step with
servers gets one node with their GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.layout import DATA
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.sections.serve import NemoServer, Server
from nemo_aligner_cai.pipeline.serving.model_uses import ModelUse, models_used
from nemo_aligner_cai.training.config import chooses_hardware, compose, select


@dataclass(frozen=True)
class Size:
    """The size of one component of a job.

    Attributes:
        nodes: the number of nodes.
        tasks: processes on each node.
        gpus: GPUs of each node.
    """

    nodes: int
    tasks: int
    gpus: int


MERGE = Size(nodes=1, tasks=1, gpus=0)
"""Of a job that merges shards, without a server."""


def sizes(config: RunConfig, executor: SlurmExecutor, step: str) -> tuple[Size, ...]:
    """The components of a step's job: two for PPO, the critic's and the actor's, and one for any other step.

    Raises:
        UsageError: a trainer's settings are invalid, or leave its number of processes to Lightning.
    """
    gpu = executor.gpus is not None
    own = executor.steps.get(step)
    found = [_size(one.config, one.overrides, gpu=gpu) for one in config.trainers.values() if one.step == step]
    # The process of a job starts its servers on its own node.
    found = found or [Size(nodes=1, tasks=1, gpus=_server_gpus(config, step) if gpu else 0)]
    given = own.gpus if own is not None else None
    return tuple(size if given is None else replace(size, gpus=given) for size in found)


def _size(name: str, overrides: Sequence[str], *, gpu: bool) -> Size:
    # This machine may be a login node: the cluster's hardware decides, not its own.
    cfg = compose(name, overrides if gpu or chooses_hardware(overrides) else ["hardware=cpu", *overrides])
    nodes, devices = select(cfg, "trainer.num_nodes"), select(cfg, "trainer.devices")
    if not (isinstance(nodes, int) and isinstance(devices, int) and nodes > 0 and devices > 0):
        raise UsageError(
            f"{name}: trainer.num_nodes={nodes} trainer.devices={devices}: a Slurm job needs both as numbers above 0"
        )
    on_gpus = gpu and select(cfg, "trainer.accelerator") != "cpu"
    return Size(nodes=nodes, tasks=devices, gpus=devices if on_gpus else 0)


def _server_gpus(config: RunConfig, step: str) -> int:
    """The GPUs of a step's servers. They share the node's GPUs, unless the configuration gives each its own."""
    uses = models_used(config, step)
    if not uses and step != DATA:
        return 1  # It converts a model.
    return max((_gpus(getattr(config.serve, one.role)) for one in uses if _is_served(config, one)), default=0)


def _is_served(config: RunConfig, use: ModelUse) -> bool:
    return use.role == "policy" or not isinstance(getattr(config.models, use.role), EndpointModel)


def _gpus(server: Server) -> int:
    if server.gpus:
        return max(server.gpus) + 1
    if isinstance(server, NemoServer):
        return _size("cai_inference", server.overrides, gpu=True).gpus
    return server.replicas * server.tensor_parallel
