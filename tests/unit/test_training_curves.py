# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Training curves from rows like those that upstream's trainers log; functional tests read the trainers' own."""

from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.training.curves import Curve, Quantity, Split, read_curves, reward_against_kl
from nemo_aligner_cai.training.metrics.files import METRICS_FILE


def curves(folder: Path, *rows: dict[str, Any]) -> dict[tuple[Quantity, Split], tuple[tuple[int, float], ...]]:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / METRICS_FILE, rows, overwrite=True)
    return {(curve.quantity, curve.split): curve.points for curve in read_curves(folder)}


def test_a_step_counts_from_one_and_a_validation_is_of_the_steps_before_it(tmp_path: Path) -> None:
    found = curves(
        tmp_path, {"step": 0, "train/loss": 2.0}, {"step": 1, "train/loss": 1.5}, {"step": 2, "val/loss": 1.4}
    )
    assert found == {
        (Quantity.LOSS, Split.TRAINING): ((1, 2.0), (2, 1.5)),
        (Quantity.LOSS, Split.VALIDATION): ((2, 1.4),),
    }


def test_a_reward_models_margin_is_the_difference_of_its_mean_rewards(tmp_path: Path) -> None:
    row = {"train/acc": 0.75, "train/rewards_chosen_mean": 1.5, "train/rewards_rejected_mean": -0.5}
    found = curves(tmp_path, {"step": 0, **row}, {"step": 1, "val/rewards_chosen_mean": 1.0})
    assert found == {
        (Quantity.ACCURACY, Split.TRAINING): ((1, 0.75),),
        (Quantity.MARGIN, Split.TRAINING): ((1, 2.0),),
    }


def test_ppo_has_reward_kl_length_and_with_a_bonus_entropy(tmp_path: Path) -> None:
    rows = [
        {
            "step": step,
            "train_rollouts/rewards": 1.0 + step,
            "train_rollouts/init_policy_kl": 0.1 * step,
            "train_rollouts/generation_length": 15.5,
            "train_rollouts/response_lengths": 41.0,
        }
        for step in range(3)
    ]
    optimizer = [{"step": step, "train_optim/scaled_entropy": 0.02} for step in range(3)]
    found = curves(tmp_path, *rows, *optimizer)
    assert {quantity for quantity, _ in found} == {Quantity.REWARD, Quantity.KL, Quantity.LENGTH}
    assert found[Quantity.LENGTH, Split.TRAINING][0] == (1, 15.5)
    (tmp_path / "config.yaml").write_text("model:\n  ppo:\n    entropy_bonus: 0.01\n")
    assert curves(tmp_path, *optimizer)[Quantity.ENTROPY, Split.TRAINING] == ((1, 2.0), (2, 2.0), (3, 2.0))


def test_of_a_repeated_step_the_last_value_counts(tmp_path: Path) -> None:
    curves(tmp_path / "run_0", *({"step": step, "train/loss": 9.0} for step in range(4)))
    found = curves(tmp_path, *({"step": step, "train/loss": 1.0} for step in range(2, 5)))
    assert found[Quantity.LOSS, Split.TRAINING] == ((1, 9.0), (2, 9.0), (3, 1.0), (4, 1.0), (5, 1.0))


def test_values_that_are_no_numbers_and_unfinished_lines_are_missing(tmp_path: Path) -> None:
    found = curves(tmp_path, {"step": 0, "train/loss": None}, {"step": 1, "train/loss": 1.0}, {"step": None})
    assert found == {(Quantity.LOSS, Split.TRAINING): ((2, 1.0),)}
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 2, "train/lo')
    assert len(read_curves(tmp_path)) == 1
    assert read_curves(tmp_path / "nothing yet") == []


def test_reward_against_kl_pairs_the_values_of_a_step() -> None:
    training = Split.TRAINING
    ppo = [
        Curve(Quantity.REWARD, training, ((1, 1.0), (2, 3.0), (3, 2.0))),
        Curve(Quantity.REWARD, Split.VALIDATION, ((3, 9.0),)),
        Curve(Quantity.KL, training, ((1, 0.0), (3, 0.4))),
    ]
    assert reward_against_kl(ppo) == [(0.0, 1.0), (0.4, 2.0)]
    assert reward_against_kl([Curve(Quantity.LOSS, training, ((1, 1.0),))]) == []


def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: [")
    with pytest.raises(UsageError, match=r"config\.yaml"):
        curves(tmp_path, {"step": 0, "train/loss": 1.0})
