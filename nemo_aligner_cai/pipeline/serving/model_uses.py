# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The models that each step asks.

Input:  a run with `answers`, and its step 7_answers
Output: helpful-only, the policy after 3_sft, and the policy after 6_ppo
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import ANSWERS, EVALUATE, MEASURE, RL_CAI, SFT, SL_CAI


class ModelUse(NamedTuple):
    """A model that a step asks.

    Attributes:
        role: the role whose server or endpoint answers.
        trained_by: the step that has trained it; only the policy has one.
    """

    role: Literal["helpful_only", "policy", "judge"]
    trained_by: str = ""


def models_used(config: RunConfig, step: str) -> tuple[ModelUse, ...]:
    """The models of a run that a step asks, by their roles; none for steps that train or convert, and for step 1."""
    helpful_only, judge, sl_cai = ModelUse("helpful_only"), ModelUse("judge"), ModelUse("policy", SFT)
    three = (helpful_only, sl_cai, ModelUse("policy", config.policy_step))
    grades = config.evaluate is not None and config.evaluate.grader_model == "judge"
    by_step = {
        SL_CAI: (helpful_only,),
        RL_CAI: (sl_cai, judge),
        ANSWERS: three,
        MEASURE: three,
        EVALUATE: (*three, judge) if grades else three,
    }
    return by_step.get(step, ())
