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
"""The PPO actor's client of its critic: what it asks comes after what the critic has learnt.

Upstream's `PPOTrainer` sends the critic the rollouts to train on and drops the future. A critic that is slower to get
them than the actor is to take its step then gives values, and saves a checkpoint, from before that training: a run
cannot be repeated, and one that is resumed goes on from another critic. And a critic that fails to train goes unseen.
"""

from __future__ import annotations

from typing import Any

import torch
from nemo_aligner.models.nlp.gpt.reward_critic_clients import RemoteGPTRMCriticClient

from nemo_aligner_cai.errors import CaiError


class OrderedCriticClient(RemoteGPTRMCriticClient):
    """Upstream's client, which asks for values and for checkpoints once the critic has trained on what was sent.

    Nothing is lost by it: the critic does one thing at a time, and the actor trains and generates meanwhile.
    Every process calls every method, as upstream's trainer does; rank 0 alone has the critic's answers.
    """

    _sent = False
    _training: Any = None

    def train(self, ppo_rollout_data: Any) -> Any:
        """Send the critic the rollouts of a step; returns upstream's future on rank 0, None elsewhere."""
        self._training = super().train(ppo_rollout_data)
        self._sent = True
        return self._training

    def infer_rm_critic(self, rollout_batch: Any) -> Any:
        """Ask for the rewards and values of a batch of rollouts; raises CaiError like `wait`."""
        self.wait()
        return super().infer_rm_critic(rollout_batch)

    def save(self) -> Any:
        """Have the critic save a checkpoint; raises CaiError like `wait`."""
        self.wait()
        return super().save()

    def wait(self) -> None:
        """Return when the critic has trained on all it was sent; raises CaiError where it could not."""
        if not self._sent:
            return
        self._sent = False
        if self._training is not None:
            try:
                self._training.result()
            except Exception as error:
                raise CaiError(f"the critic server failed to train; its log says why ({error})") from error
        torch.distributed.barrier()
