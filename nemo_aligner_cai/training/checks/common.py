# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What each stage that trains a model checks first, whatever it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nemo_aligner_cai.training.checks import constraints, model_file, model_kind, model_needs, parallelism, schedule

if TYPE_CHECKING:
    from omegaconf import DictConfig


def common(
    cfg: DictConfig,
    source: str,
    rules: Sequence[constraints.SettingConstraint],
    section: str | None = None,
    *,
    head: bool = False,
    kinds: Sequence[str] = (model_kind.LANGUAGE_MODEL,),
) -> int | None:
    """Check the model that a stage begins with, and its settings.

    Args:
        cfg: the stage's configuration.
        source: the key of the model.
        rules: of the stage, in `settings`.
        section: the part of `trainer` that is upstream's loop; None for the critic, whose actor decides when to stop.
        head: whether the stage trains a reward model or critic, which take no adapters.
        kinds: the kinds of model that it may be, of `model_kind`.

    Returns:
        The tokens that the model takes, as `inputs.model_window`.

    Raises:
        UsageError: of the first thing that is wrong.
    """
    model_file.adapters(cfg, known=not head)
    window = model_file.model_window(cfg, source)
    model_needs.check(cfg, source, head=head, kinds=kinds)
    constraints.check(cfg, rules)
    if section is not None:
        schedule.check(cfg, section)
    parallelism.model_parts(cfg, source)
    return window
