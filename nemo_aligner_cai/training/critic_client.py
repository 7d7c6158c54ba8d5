# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The PPO actor's critic client, which waits until the critic has trained before it sends the next requests.

Upstream's `PPOTrainer` sends the critic the rollouts to train on and drops the future. If the actor's own step is
faster, the critic then returns values, and saves a checkpoint, from before that training: the run is not reproducible,
and a resumed run starts from another critic. Upstream also ignores a critic that fails to train.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from nemo_aligner.models.nlp.gpt.reward_critic_clients import RemoteGPTRMCriticClient
from nemo_aligner.utils.server_utils import FutureResult

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training import assembly


class OrderedCriticClient(RemoteGPTRMCriticClient):
    """Upstream's client, except that requests for values and checkpoints are sent after the critic has trained.

    Meanwhile the actor trains and generates. Every process calls every method, as upstream's trainer does. Results
    raise CaiError in all processes if the critic failed to train.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.cfg.critic.name
        self.communicator = _OrderedCommunicator(self.communicator, {name.infer, name.save})

    def train(self, ppo_rollout_data: Any) -> Any:
        """Send the critic the rollouts of a step; returns upstream's future on rank 0, None elsewhere."""
        future = super().train(ppo_rollout_data)
        self.communicator.wait_for(future)
        return future

    def infer_rm_critic(self, rollout_batch: Any) -> FutureResult:
        """Request the rewards and values of a batch of rollouts."""
        return _OrderedResult(super().infer_rm_critic(rollout_batch), self.communicator.trained)

    def save(self) -> FutureResult:
        """Request that the critic saves a checkpoint."""
        return _OrderedResult(super().save(), self.communicator.trained)

    def wait(self) -> None:
        """Wait until the critic has trained on everything; raises CaiError if it failed."""
        self.communicator.trained.result()

    def close(self) -> None:
        """Close the connections, after the pending training request is done."""
        self.communicator.close()


class _OrderedCommunicator:
    """Wraps upstream's communicator, and delays requests until the critic has trained.

    Attributes:
        trained: done, in every process, when rank 0 has received the critic's answer to all training requests.
    """

    def __init__(self, communicator: Any, delayed: set[str]) -> None:
        """Wrap a communicator; `delayed` has the names of the requests to delay."""
        self._communicator = communicator
        self._delayed = delayed
        self._executor = ThreadPoolExecutor(max_workers=1)
        # A group of its own: the thread waits in it while the main thread uses the others.
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=assembly.SERVER_TIMEOUT)
        self.trained: Future[None] = Future()
        self.trained.set_result(None)

    def send_data_to_server(self, server_name: str, data: dict[str, Any], batching: bool = True) -> Any:
        if server_name not in self._delayed:
            return self._communicator.send_data_to_server(server_name, data, batching)
        trained = self.trained

        def send() -> Any:
            trained.result()
            return self._communicator.send_data_to_server(server_name, data, batching)

        return _DelayedFuture(self._executor.submit(send))

    def wait_for(self, training: Any) -> None:
        """Delay the following requests until rank 0's future `training` has its result."""
        self.trained = self._executor.submit(self._share_result, training)

    def _share_result(self, training: Any) -> None:
        error: Exception | None = None
        if training is not None:
            try:
                training.result()
            except Exception as failure:
                error = failure
        failed = torch.tensor([error is not None], dtype=torch.uint8)
        torch.distributed.broadcast(failed, 0, group=self._group)
        if failed.item():
            raise CaiError(f"the critic server failed to train, see its log ({error or 'rank 0 received the error'})")

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._communicator.close()


class _DelayedFuture:
    """The future of a request that has not been sent yet."""

    def __init__(self, request: Future[Any]) -> None:
        self._request = request

    def result(self) -> Any:
        return self._request.result().result()


class _OrderedResult(FutureResult):
    """Upstream's result, which processes share in a collective, so that none may start it after a failed training."""

    def __init__(self, result: FutureResult, trained: Future[None]) -> None:
        self._result = result
        self._trained = trained

    def result(self) -> Any:
        self._trained.result()
        return self._result.result()
