# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The checks that all training stages share: the initial model, the settings, the schedule."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import (
    chat_tokens,
    constraints,
    model_file,
    model_kind,
    model_needs,
    parallelism,
    schedule,
)
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def check_stage(
    cfg: DictConfig,
    model_key: str,
    stage_constraints: Sequence[constraints.SettingConstraint],
    section: str | None = None,
    *,
    head: bool = False,
    kinds: Sequence[str] = (model_kind.LANGUAGE_MODEL,),
) -> int | None:
    """Check the initial model of a stage and its settings, and complete the settings that default to the model's.

    Args:
        cfg: the stage's configuration.
        model_key: the key of the initial model's path.
        stage_constraints: the stage's list in `constraints`.
        section: the section of `trainer` with the upstream loop's settings; None for the critic, which has no loop.
        head: the stage trains a reward model or critic, which do not support adapters.
        kinds: the accepted kinds of model, from `model_kind`.

    Returns:
        The context length of the model, from `model_file.context_length`.

    Raises:
        UsageError: the model or a setting is invalid.
    """
    _check_peft(cfg, head)
    length = model_file.context_length(cfg, model_key)
    chat_tokens.complete(cfg, model_key)
    model_needs.check(cfg, model_key, head=head, kinds=kinds)
    constraints.check(cfg, stage_constraints)
    if section is not None:
        schedule.check(cfg, section)
    parallelism.check_model(cfg, model_key)
    return length


def _check_peft(cfg: DictConfig, head: bool) -> None:
    """Raise UsageError for a PEFT scheme that upstream would ignore or fail on."""
    scheme = select(cfg, "model.peft.peft_scheme")
    if scheme not in ((None, "none") if head else (None, "none", "lora", "sdlora")):
        fix = "upstream's reward model and critic do not support adapters; remove it" if head else "use lora or none"
        raise UsageError(f"model.peft.peft_scheme={scheme}: {fix}")
    if scheme not in (None, "none") and (parallel := parallelism.sizes_above_one(cfg)):
        _log.warning(
            "%s is above 1: `cai merge-lora` does not merge the adapters of several model-parallel processes, "
            "which NeMo's scripts/nlp_language_modeling/merge_lora_weights/merge.py does; give 1 if the model fits",
            parallel[0],
        )
