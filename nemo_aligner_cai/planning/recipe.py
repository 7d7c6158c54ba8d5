# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a plan that follow from a run's configuration: GPUs, parallel layout, batches, calls.

Input:  a RunConfig with the section `plan`
Output: Recipe(generation=Generation(gpus=8, ...), sft=Trainer(gpus=8, tensor_parallel=2, ...), ...)

Trainers are described by the configurations that they are started with, so that a plan and a run cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.settings import JudgeConfig, JudgeOptions
from nemo_aligner_cai.pipeline.config import RunConfig, TrainerSettings, shared_settings
from nemo_aligner_cai.pipeline.sections.models import EndpointModel, ModelSource
from nemo_aligner_cai.pipeline.sections.serve import Server, VllmServer
from nemo_aligner_cai.planning.config import Assumptions
from nemo_aligner_cai.training.config import adds_adapters, compose, select

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Trainer:
    """One training job.

    Attributes:
        max_steps: optimizer steps, and for PPO's actor steps of rollouts; None for whole epochs.
        texts: of a row of a micro batch: a comparison has two.
        adapters: only LoRA adapters are trained.
    """

    gpus: int
    tensor_parallel: int
    pipeline_parallel: int
    micro_batch: int
    global_batch: int
    seq_length: int
    epochs: float
    recompute: Literal["none", "full"]
    checkpoints: int
    max_steps: int | None = None
    texts: int = 1
    adapters: bool = False

    @property
    def data_parallel(self) -> int:
        """Copies of the model."""
        return self.gpus // (self.tensor_parallel * self.pipeline_parallel)

    def rows_read(self, rows: float, batch: int) -> float:
        """Rows that it reads of a training set, in all epochs; its steps of `batch` rows may end it before."""
        read = rows * self.epochs
        return read if self.max_steps is None else min(read, self.max_steps * batch)


@dataclass(frozen=True)
class RateLimits:
    """The rate limits of an endpoint; None for no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def hours(self, calls: float, tokens: float) -> float:
        """The time that the limits cause; 0 without limits, since the speed of an endpoint is not known."""
        limits = ((calls, self.requests_per_minute), (tokens, self.tokens_per_minute))
        return max(count / limit / 60 if limit else 0.0 for count, limit in limits)


@dataclass(frozen=True)
class Generation:
    """Servers of a model: `copies` of it, each on `gpus` and with `batch_size` sequences at a time.

    An endpoint uses no GPUs of the run (`gpus` 0), and has rate limits.
    """

    gpus: int
    batch_size: int
    copies: int = 1
    limits: RateLimits = RateLimits()


@dataclass(frozen=True)
class Judge:
    """The judge and its servers; `parameters` are those of its model."""

    config: JudgeConfig
    parameters: int
    server: Generation


@dataclass(frozen=True)
class Ppo:
    """The two jobs of PPO; `shared` if they use the same GPUs."""

    rollouts: int
    rollout_batch: int
    actor: Trainer
    critic: Trainer
    shared: bool


@dataclass(frozen=True)
class Recipe:
    """The input of a plan; either `reward_model` and `ppo`, or `dpo`."""

    plan: Assumptions
    sl_prompts: int
    rl_prompts: int
    train_share: float
    revisions: int
    critique: bool
    candidates: int
    helpful_only: Generation
    policy: Generation
    judge: Judge
    sft: Trainer
    reward_model: Trainer | None
    ppo: Ppo | None
    dpo: Trainer | None


def recipe(config: RunConfig) -> Recipe:
    """Read a run's configuration.

    Raises:
        UsageError: it has no section `plan`, or settings of a trainer are invalid or do not fit together.
    """
    plan = config.plan
    if plan is None:
        raise UsageError("plan: the configuration has no such section; examples/nlp/cai/mistral_7b.yaml has one")
    trainers = {key: _trainer(one, plan) for key, one in config.trainers.items()}
    sl_prompts = round(plan.data.red_team * config.data.sl_share)
    return Recipe(
        plan=plan,
        sl_prompts=sl_prompts,
        rl_prompts=plan.data.red_team - sl_prompts,
        train_share=1 - config.rl_cai.test_share,
        revisions=config.sl_cai.num_revisions,
        critique=config.sl_cai.critique,
        candidates=len(config.rl_cai.candidate_temperatures),
        helpful_only=_answering(config.models.helpful_only, config.serve.helpful_only, config.sl_cai.batch_size),
        policy=_generation(config.serve.policy, config.rl_cai.batch_size),
        judge=_judge(config, plan),
        sft=trainers["sft"],
        reward_model=trainers.get("reward_model"),
        ppo=_ppo(config, trainers) if config.ppo else None,
        dpo=trainers.get("dpo"),
    )


def _answering(model: ModelSource, server: Server, batch_size: int) -> Generation:
    """The servers of a model, or the endpoint that it is."""
    if isinstance(model, EndpointModel):
        return Generation(0, model.concurrency, limits=RateLimits(model.requests_per_minute, model.tokens_per_minute))
    return _generation(server, batch_size)


def _generation(server: Server, batch_size: int) -> Generation:
    if isinstance(server, VllmServer):
        # Each replica has a copy of the weights and its part of the requests.
        return Generation(server.tensor_parallel, -(-server.concurrency // server.replicas), server.replicas)
    composed = compose("cai_inference", server.overrides)
    gpus = composed.tensor_model_parallel_size * composed.pipeline_model_parallel_size
    return Generation(gpus, batch_size)


def _judge(config: RunConfig, plan: Assumptions) -> Judge:
    strategy = JudgeConfig(strategy=config.rl_cai.judge, **shared_settings(config.rl_cai, JudgeOptions))
    server = _answering(config.models.judge, config.serve.judge, config.rl_cai.batch_size)
    return Judge(strategy, plan.judge_parameters or plan.model.parameters, server)


def _ppo(config: RunConfig, trainers: Mapping[str, Trainer]) -> Ppo:
    section = config.ppo
    assert section is not None, "checked by the caller"
    composed = compose("cai_ppo_actor", config.trainers["ppo.actor"].overrides)
    separate = bool(section.actor_gpus and section.critic_gpus) and not set(section.actor_gpus) & set(
        section.critic_gpus
    )
    return Ppo(
        rollouts=int(_number(composed, "model.ppo.num_rollout_samples")),
        rollout_batch=int(_number(composed, "model.ppo.rollout_micro_batch_size")),
        actor=trainers["ppo.actor"],
        critic=trainers["ppo.critic"],
        # In a Slurm job each has its own nodes.
        shared=not separate and config.executor.kind == "local",
    )


def _trainer(settings: TrainerSettings, plan: Assumptions) -> Trainer:
    config_name, composed = settings.config, compose(settings.config, settings.overrides)
    section = {"cai_sft": "sft", "cai_reward_model": "rm", "cai_dpo": "dpo"}.get(config_name, "ppo")
    batches = "model.data.train_ds" if config_name == "cai_sft" else "model"
    epochs, steps = (select(composed, f"trainer.{section}.max_{unit}") for unit in ("epochs", "steps"))
    trainer = Trainer(
        gpus=int(_number(composed, "trainer.devices") * _number(composed, "trainer.num_nodes")),
        tensor_parallel=int(_number(composed, "model.tensor_model_parallel_size")),
        pipeline_parallel=int(_number(composed, "model.pipeline_model_parallel_size")),
        micro_batch=int(_number(composed, f"{batches}.micro_batch_size")),
        global_batch=int(_number(composed, f"{batches}.global_batch_size")),
        seq_length=settings.seq_length,
        epochs=float(epochs) if epochs else 1.0,
        recompute="full" if select(composed, "model.activations_checkpoint_granularity") == "full" else "none",
        checkpoints=1 if settings.key == "ppo.critic" else plan.checkpoints,
        max_steps=int(steps) if steps and steps > 0 else None,
        texts=2 if config_name in ("cai_reward_model", "cai_dpo") else 1,
        adapters=adds_adapters(composed),
    )
    _check(settings.key, trainer)
    return trainer


def _number(composed: DictConfig, key: str) -> float:
    value: Any = select(composed, key)
    if not isinstance(value, int | float):
        raise UsageError(f"{key}={value}: a plan needs a number")
    return value


def _check(name: str, trainer: Trainer) -> None:
    parallel = trainer.tensor_parallel * trainer.pipeline_parallel
    if trainer.gpus % parallel:
        raise UsageError(f"{name}: {trainer.gpus} GPUs are not a multiple of tensor x pipeline parallel, {parallel}")
    if trainer.global_batch % (trainer.micro_batch * trainer.data_parallel):
        raise UsageError(
            f"{name}: the global batch size, {trainer.global_batch}, is not a multiple of the micro batch size times "
            f"{trainer.data_parallel} copies of the model"
        )
