# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes, tasks and GPUs of each step's job, from the settings of its trainers.

One source for both: a trainer with trainer.num_nodes=2 and trainer.devices=8 gets 2 nodes with 8 tasks each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.layout import DATA, DPO, PPO, REWARD_MODEL, SFT
from nemo_aligner_cai.training.config import compose, select

_DATA_STEPS = (DATA,)
"""Steps that use no model."""


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


def sizes(config: RunConfig, executor: SlurmExecutor, step: str) -> tuple[Size, ...]:
    """The components of a step's job: two for PPO, the critic's and the actor's, and one for any other step.

    Raises:
        UsageError: a trainer's settings are invalid, or leave its number of processes to Lightning.
    """
    trainers = {SFT: [("cai_sft", config.sft.overrides)]}
    if config.reward_model is not None and config.ppo is not None:
        trainers[REWARD_MODEL] = [("cai_reward_model", config.reward_model.overrides)]
        trainers[PPO] = [("cai_ppo_critic", config.ppo.critic), ("cai_ppo_actor", config.ppo.actor)]
    if config.dpo is not None:
        trainers[DPO] = [("cai_dpo", config.dpo.overrides)]
    gpu = executor.gpus is not None
    own = executor.steps.get(step)
    found = [_size(name, overrides, gpu=gpu) for name, overrides in trainers.get(step, ())]
    # The servers of a data step are started by its driver, on the same node.
    found = found or [Size(nodes=1, tasks=1, gpus=int(gpu and step not in _DATA_STEPS))]
    given = own.gpus if own is not None else None
    return tuple(size if given is None else replace(size, gpus=given) for size in found)


def _size(name: str, overrides: Sequence[str], *, gpu: bool) -> Size:
    # This machine may be a login node: the cluster's hardware decides, not its own.
    own = any(override.lstrip("+").startswith("hardware=") for override in overrides)
    cfg = compose(name, overrides if gpu or own else ["hardware=cpu", *overrides])
    nodes, devices = select(cfg, "trainer.num_nodes"), select(cfg, "trainer.devices")
    if not (isinstance(nodes, int) and isinstance(devices, int) and nodes > 0 and devices > 0):
        raise UsageError(
            f"{name}: trainer.num_nodes={nodes} trainer.devices={devices}: a Slurm job needs both as numbers above 0"
        )
    on_gpus = gpu and select(cfg, "trainer.accelerator") != "cpu"
    return Size(nodes=nodes, tasks=devices, gpus=devices if on_gpus else 0)
