# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The PPO actor's client of its critic: what it asks comes after what the critic has learnt.

Upstream's `PPOTrainer` sends the critic the rollouts to train on and drops the future. A critic that is slower to get
them than the actor is to take its step then gives values, and saves a checkpoint, from before that training: a run
cannot be repeated, and one that is resumed goes on from another critic. And a critic that fails to train goes unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from nemo_aligner.models.nlp.gpt.reward_critic_clients import RemoteGPTRMCriticClient
from nemo_aligner.utils.server_utils import FutureResult

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training import assembly


class OrderedCriticClient(RemoteGPTRMCriticClient):
    """Upstream's client, whose requests for values and checkpoints are sent once the critic has trained.

    Meanwhile the actor trains and generates. Every process calls every method, as upstream's trainer does. Answers
    raise CaiError in all of them where the critic could not train.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.cfg.critic.name
        self.communicator = _InOrder(self.communicator, {name.infer, name.save})

    def train(self, ppo_rollout_data: Any) -> Any:
        """Send the critic the rollouts of a step; returns upstream's future on rank 0, None elsewhere."""
        future = super().train(ppo_rollout_data)
        self.communicator.hold(future)
        return future

    def infer_rm_critic(self, rollout_batch: Any) -> FutureResult:
        """Ask for the rewards and values of a batch of rollouts."""
        return _Answer(super().infer_rm_critic(rollout_batch), self.communicator.trained)

    def save(self) -> FutureResult:
        """Have the critic save a checkpoint."""
        return _Answer(super().save(), self.communicator.trained)

    def wait(self) -> None:
        """Return when the critic has trained on all it was sent; raises CaiError where it could not."""
        self.communicator.trained.result()

    def close(self) -> None:
        """Leave the servers, once the critic has done what it was asked for."""
        self.communicator.close()


class _InOrder:
    """Upstream's communicator with the servers, which holds requests back until the critic has trained.

    Attributes:
        trained: done, in every process, when rank 0 has heard that the critic has trained on all it was sent.
    """

    def __init__(self, communicator: Any, held: set[str]) -> None:
        """Wrap upstream's; `held` are the names of what is asked of the critic."""
        self._communicator = communicator
        self._held = held
        self._sender = ThreadPoolExecutor(max_workers=1)
        # One of its own: the thread waits in it, beside whatever the main one does.
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=assembly.PATIENCE)
        self.trained: Future[None] = Future()
        self.trained.set_result(None)

    def send_data_to_server(self, server_name: str, data: dict[str, Any], batching: bool = True) -> Any:
        send = partial(self._communicator.send_data_to_server, server_name, data, batching)
        return _Later(self._sender.submit(_after, self.trained, send)) if server_name in self._held else send()

    def hold(self, training: Any) -> None:
        """Hold back what is asked from now on until rank 0's `training` has its result."""
        self.trained = self._sender.submit(self._hear, training)

    def _hear(self, training: Any) -> None:
        error: Exception | None = None
        if training is not None:
            try:
                training.result()
            except Exception as failure:
                error = failure
        failed = torch.tensor([error is not None], dtype=torch.uint8)
        torch.distributed.broadcast(failed, 0, group=self._group)
        if failed.item():
            raise CaiError(f"the critic server failed to train; its log says why ({error or 'rank 0 was told so'})")

    def close(self) -> None:
        self._sender.shutdown(cancel_futures=True)
        self._communicator.close()


def _after(trained: Future[None], send: Callable[[], Any]) -> Any:
    trained.result()
    return send()


class _Later:
    """The future of a request that is sent later."""

    def __init__(self, request: Future[Any]) -> None:
        self._request = request

    def result(self) -> Any:
        return self._request.result().result()


class _Answer(FutureResult):
    """Upstream's answer, which processes share in a collective: each hears before it whether there will be one."""

    def __init__(self, answer: FutureResult, trained: Future[None]) -> None:
        self._answer = answer
        self._trained = trained

    def result(self) -> Any:
        self._trained.result()
        return self._answer.result()
