# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The state of the random numbers, kept in a stage's checkpoints.

Upstream keeps none: a PPO run that goes on from a checkpoint draws the random numbers of its first rollouts again.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from megatron.core import parallel_state


class RandomState(Callback):
    """Has a resumed run sample what the uninterrupted one would have sampled.

    Every process has a state of its own, which depends on what it has sampled: a checkpoint has them all, by rank. A
    run that goes on in another layout takes rank 0's in all of them, because those that share a model must agree.
    Megatron's own states, for dropout in tensor parallel layers, are not kept.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states of all ranks: byte tensors by name."""
        states: list[Any] = [None] * trainer.world_size
        own = {name: generator.get_state() for name, generator in _generators(pl_module).items()}
        torch.distributed.all_gather_object(states, own)
        # Among Lightning's entries, because NeMo knows what others a checkpoint may have.
        checkpoint["callbacks"][self.state_key] = {"layout": _layout(), "ranks": states}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set this rank's states; a checkpoint without any, as upstream's scripts save it, leaves them as they are."""
        if saved := checkpoint["callbacks"].get(self.state_key):
            own = saved["ranks"][trainer.global_rank if saved["layout"] == _layout() else 0]
            for name, generator in _generators(pl_module).items():
                if name in own:
                    generator.set_state(own[name].cpu())


def _layout() -> list[int]:
    return [
        torch.distributed.get_world_size(),
        parallel_state.get_tensor_model_parallel_world_size(),
        parallel_state.get_pipeline_model_parallel_world_size(),
        parallel_state.get_context_parallel_world_size(),
    ]


def _generators(pl_module: LightningModule) -> dict[str, torch.Generator]:
    """What a stage samples from: torch's own, and the one from which TensorRT-LLM's seeds come in PPO."""
    found = {"cpu": torch.default_generator}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.default_generators[torch.cuda.current_device()]
    if (trt_llm := getattr(pl_module, "trtllm_generate", None)) is not None:
        found["trt_llm"] = trt_llm.rng_generator
    return found
