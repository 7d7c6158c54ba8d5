# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The state of torch's random numbers, kept in a stage's checkpoints.

Upstream keeps none: a PPO run that goes on from a checkpoint draws the random numbers of its first rollouts again.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback


class RandomState(Callback):
    """Has a resumed run draw what the uninterrupted one would have drawn.

    Rank 0's state is every rank's: upstream seeds all alike. TensorRT-LLM draws from a generator of its own.
    """

    def state_dict(self) -> dict[str, Any]:
        """The states to keep, as byte tensors: of the CPU, and of the CUDA device where there is one."""
        state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the kept states; one made on another kind of machine gives what it has."""
        torch.set_rng_state(state_dict["cpu"].cpu())
        if "cuda" in state_dict and torch.cuda.is_available():
            torch.cuda.set_rng_state(state_dict["cuda"].cpu())
