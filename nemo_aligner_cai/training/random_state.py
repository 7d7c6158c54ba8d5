# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Saves the state of the random number generators in a stage's checkpoints.

Upstream does not: a resumed PPO run would draw the random numbers of its first rollouts again.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from megatron.core import parallel_state


class RandomState(Callback):
    """Makes a resumed run sample what the uninterrupted run would have sampled.

    A checkpoint has the states of all ranks. A run that resumes with another parallel layout uses rank 0's states on
    all ranks, because ranks that share a model must agree. Megatron's own states, for dropout in tensor-parallel
    layers, are not saved.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states of all ranks: byte tensors by name."""
        states: list[Any] = [None] * trainer.world_size
        rank_states = {name: generator.get_state() for name, generator in _generators(pl_module).items()}
        torch.distributed.all_gather_object(states, rank_states)
        # Under Lightning's key, because NeMo accepts only known keys in a checkpoint.
        checkpoint["callbacks"][self.state_key] = {"layout": _layout(), "ranks": states}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore this rank's states, if the checkpoint has any: upstream's scripts save none."""
        if saved := checkpoint["callbacks"].get(self.state_key):
            rank_states = saved["ranks"][trainer.global_rank if saved["layout"] == _layout() else 0]
            for name, generator in _generators(pl_module).items():
                if name in rank_states:
                    generator.set_state(rank_states[name].cpu())


def _layout() -> list[int]:
    return [
        torch.distributed.get_world_size(),
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_context_parallel_world_size(),
    ]


def _generators(pl_module: LightningModule) -> dict[str, torch.Generator]:
    """Torch's generators, and the one that seeds TensorRT-LLM in PPO."""
    found = {"cpu": torch.default_generator}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
    if (trt_llm := getattr(pl_module, "trtllm_generate", None)) is not None:
        found["trt_llm"] = trt_llm.rng_generator
    return found
