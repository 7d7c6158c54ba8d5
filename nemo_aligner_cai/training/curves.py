# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Training curves: the metrics of any trainer as typed series.

Input:  metrics.jsonl in the log directory of a trainer, finished or not
Output: [Curve(Quantity.LOSS, Split.TRAINING, ((1, 0.185), (2, 0.214), ...)), ...]

    SFT and pretraining: loss. Reward model: loss, accuracy, margin. DPO: loss, accuracy, margin.
    PPO actor: reward, KL, length, entropy. PPO critic: loss.

Without Lightning, so that a report is made where no trainer is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from nemo_aligner_cai.files.yaml_text import read_yaml
from nemo_aligner_cai.training.metrics.files import read_metrics

Point = tuple[int, float]
"""The number of finished steps, and a value."""


class Quantity(str, Enum):
    """The meaning of a curve's values."""

    LOSS = "loss"
    """Of the trainer, in its own unit: nats per token for SFT, nats per pair for reward models and DPO."""
    ACCURACY = "accuracy"
    """Share of the pairs whose chosen reply has the higher reward."""
    MARGIN = "margin"
    """Mean reward of the chosen minus that of the rejected replies."""
    REWARD = "reward"
    """Mean reward of the rollouts by the reward model, without the KL penalty."""
    KL = "KL"
    """Mean divergence from the initial policy in nats per token of the reply, as estimated from the rollouts."""
    LENGTH = "length"
    """Mean length of the replies in tokens."""
    ENTROPY = "entropy"
    """Mean entropy of the policy in nats per token; only logged with an entropy bonus."""


class Split(str, Enum):
    """The data of a curve."""

    TRAINING = "training"
    VALIDATION = "validation"


@dataclass(frozen=True)
class Curve:
    """One series, by increasing step. Steps whose value is not a finite number are missing."""

    quantity: Quantity
    split: Split
    points: tuple[Point, ...]


_KEYS: dict[str, tuple[Quantity, Split]] = {
    "train/loss": (Quantity.LOSS, Split.TRAINING),
    "val/loss": (Quantity.LOSS, Split.VALIDATION),
    "reduced_train_loss": (Quantity.LOSS, Split.TRAINING),
    "val_loss": (Quantity.LOSS, Split.VALIDATION),
    "train/acc": (Quantity.ACCURACY, Split.TRAINING),
    "val/acc": (Quantity.ACCURACY, Split.VALIDATION),
    "train_rollouts/rewards": (Quantity.REWARD, Split.TRAINING),
    "val_rollouts/rewards": (Quantity.REWARD, Split.VALIDATION),
    "train_rollouts/init_policy_kl": (Quantity.KL, Split.TRAINING),
    "train_rollouts/generation_length": (Quantity.LENGTH, Split.TRAINING),
    "val_rollouts/generation_length": (Quantity.LENGTH, Split.VALIDATION),
}
"""Keys of upstream's trainers."""
_SPLITS = {"train": Split.TRAINING, "val": Split.VALIDATION}
_ENTROPY = "train_optim/scaled_entropy"
_CONFIG = "config.yaml"


def read_curves(directory: Path) -> list[Curve]:
    """Read the curves of a trainer; empty if it has not logged a step.

    Of a step that was repeated after a resumption, the last value counts.

    Raises:
        UsageError: the trainer's config.yaml is not YAML.
    """
    bonus = _entropy_bonus(directory)
    found: dict[tuple[Quantity, Split], dict[int, float]] = {}
    for row in read_metrics(directory):
        step = row.get("step")
        if step is None:
            continue
        for (quantity, split), value in _values(row, bonus):
            # Upstream numbers training steps from 0, and validations by the number of steps before them.
            done = step + 1 if split is Split.TRAINING else step
            found.setdefault((quantity, split), {})[done] = value
    return [Curve(*kind, tuple(sorted(points.items()))) for kind, points in found.items()]


def reward_against_kl(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Return (KL, reward) of each step of PPO, in the order of training; empty for other trainers.

    A KL that rises while the reward does not is over-optimization (Gao et al. 2022, arXiv:2210.10760).
    """
    training = {curve.quantity: dict(curve.points) for curve in curves if curve.split is Split.TRAINING}
    rewards, divergences = training.get(Quantity.REWARD, {}), training.get(Quantity.KL, {})
    return [(divergences[step], reward) for step, reward in rewards.items() if step in divergences]


def _values(row: Mapping[str, Any], bonus: float) -> list[tuple[tuple[Quantity, Split], float]]:
    """Return the values of one row of metrics by their meaning."""
    found = [(kind, row[key]) for key, kind in _KEYS.items() if row.get(key) is not None]
    for prefix, split in _SPLITS.items():
        chosen, rejected = (row.get(f"{prefix}/rewards_{side}_mean") for side in ("chosen", "rejected"))
        if chosen is not None and rejected is not None:
            found.append(((Quantity.MARGIN, split), chosen - rejected))
    if bonus and row.get(_ENTROPY) is not None:
        # Upstream logs the entropy times the bonus, which is 0 by default.
        found.append(((Quantity.ENTROPY, Split.TRAINING), row[_ENTROPY] / bonus))
    return found


def _entropy_bonus(directory: Path) -> float:
    """Return the factor of the entropy in PPO's loss; 0 for other trainers."""
    path = directory / _CONFIG
    if not path.is_file():
        return 0.0
    settings: Any = read_yaml(path)
    for key in ("model", "ppo", "entropy_bonus"):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return float(settings or 0.0)
