# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The section `plan` of a run's configuration: what `cai plan` assumes about models, data and hardware.

All other figures of a plan come from the other sections; see `planning/recipe.py`. All keys without a default are
required; an example is examples/nlp/cai/mistral_7b.yaml.
"""

from pydantic import Field

from nemo_aligner_cai.sections import Section


class Model(Section):
    """The architecture of the model that is trained, and of the helpful-only model."""

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
    training_utilization: float = Field(gt=0, le=1)
    generation_utilization: float = Field(gt=0, le=1)


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
    """Rows of each input; shares kept and bytes per token are assumptions."""

    red_team: int = Field(gt=1)  # prompts, of which SL-CAI gets data.sl_share
    helpful_dialogues: int = Field(ge=0)
    helpful_pairs: int = Field(ge=0)
    revisions_kept: float = Field(gt=0, le=1)
    pairs_kept: float = Field(ge=0)  # for each RL prompt
    bytes_per_token: float = Field(gt=0)
    tokens: Tokens


class Assumptions(Section):
    """The section `plan`.

    Attributes:
        model: the architecture.
        hardware: the GPUs.
        data: rows and lengths.
        checkpoints: of each trainer, on disk at the same time; the critic keeps one.
        judge_parameters: active parameters per token of a judge that the run serves; null for the model's.
    """

    model: Model
    hardware: Hardware
    data: PlanData
    checkpoints: int = Field(default=2, ge=0)
    judge_parameters: int | None = Field(default=None, gt=0)
