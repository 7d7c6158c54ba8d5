# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of `cai plan`. All keys are required; an example is examples/nlp/cai/mistral_7b.yaml."""

from typing import Literal

from pydantic import Field

from nemo_aligner_cai.judges.pairs import Pairs
from nemo_aligner_cai.sections import Section


class Model(Section):
    """The policy's architecture."""

    parameters: int = Field(gt=0)
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    vocabulary: int = Field(gt=0)


class Hardware(Section):
    """One kind of GPU, and the assumed utilization of its peak."""

    memory_gb: float = Field(gt=0)
    peak_tflops: float = Field(gt=0)  # dense bf16
    training_utilisation: float = Field(gt=0, le=1)
    generation_utilisation: float = Field(gt=0, le=1)


class Tokens(Section):
    """Mean lengths (assumptions)."""

    few_shots: int = Field(ge=0)
    prompt: int = Field(gt=0)
    response: int = Field(gt=0)
    critique_request: int = Field(ge=0)
    critique: int = Field(gt=0)
    revision_request: int = Field(ge=0)
    revision: int = Field(gt=0)
    judge_request: int = Field(ge=0)
    judge_answer: int = Field(gt=0)
    helpful_dialogue: int = Field(gt=0)


class PlanData(Section):
    """Rows of each file; shares kept and bytes per token are assumptions."""

    sl_prompts: int = Field(gt=0)
    rl_prompts: int = Field(gt=0)
    helpful_dialogues: int = Field(ge=0)
    helpful_pairs: int = Field(ge=0)
    train_share: float = Field(gt=0, le=1)  # of the RL prompts
    revisions_kept: float = Field(gt=0, le=1)
    pairs_kept: float = Field(ge=0)  # for each RL prompt
    bytes_per_token: float = Field(gt=0)
    tokens: Tokens


class Generation(Section):
    """The inference server and the requests per prompt."""

    gpus: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    revisions: int = Field(gt=0)
    candidates: int = Field(gt=1)


class JudgeModel(Section):
    """The judge: a hosted API, or with `own: true` a self-hosted model."""

    strategy: str
    pairs: Pairs
    both_orders: bool
    requests_per_minute: float = Field(gt=0)  # of the hosted API
    own: bool
    own_gpus: int = Field(gt=0)
    own_active_parameters: int = Field(gt=0)  # per token, for a mixture of experts


class Trainer(Section):
    """One training job."""

    gpus: int = Field(gt=0)
    tensor_parallel: int = Field(gt=0)
    pipeline_parallel: int = Field(gt=0)
    micro_batch: int = Field(gt=0)
    global_batch: int = Field(gt=0)
    seq_length: int = Field(gt=0)
    epochs: float = Field(gt=0)
    recompute: Literal["none", "full"]
    checkpoints: int = Field(ge=0)  # on disk at the same time

    @property
    def data_parallel(self) -> int:
        """Copies of the model."""
        return self.gpus // (self.tensor_parallel * self.pipeline_parallel)


class PpoJobs(Section):
    """The two jobs of PPO."""

    rollouts: int = Field(gt=0)  # of one step
    max_steps: int | None = Field(gt=0)
    actor: Trainer
    critic: Trainer


class PlanConfig(Section):
    """The input of a plan."""

    model: Model
    hardware: Hardware
    data: PlanData
    generation: Generation
    judge: JudgeModel
    sft: Trainer
    reward_model: Trainer
    ppo: PpoJobs
