# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.data.soft_labels import hard_pairs, rewards


def labels(p: float | None, copies: int) -> list[bool]:
    return [better == "c" for better, _ in hard_pairs("c", "r", p, how="repeat", copies=copies)]


@given(st.floats(0.5, 1.0), st.integers(2, 50))
def test_copies_agree_with_the_judge_in_its_proportion(p: float, copies: int) -> None:
    agreeing = labels(p, copies)
    assert len(agreeing) == copies and abs(sum(agreeing) / copies - p) <= 0.5 / copies + 1e-12
    assert agreeing == labels(p, copies), "nothing is drawn"


def test_the_loss_over_copies_is_the_cross_entropy_with_the_soft_label() -> None:
    loss = {True: -math.log(0.7), False: -math.log(0.3)}  # of a model that is sure of 0.7
    repeated = sum(loss[agrees] for agrees in labels(0.8, 10)) / 10
    assert repeated == pytest.approx(0.8 * loss[True] + 0.2 * loss[False])


def test_without_a_probability_all_copies_agree() -> None:
    assert labels(None, 5) == [True] * 5


def test_threshold_keeps_the_pair_as_it_is() -> None:
    assert list(hard_pairs("c", "r", 0.51, how="threshold", copies=10)) == [("c", "r")]


@given(st.floats(0.5, 1 - 1e-6))
def test_rewards_mean_the_probability_to_the_bradley_terry_model(p: float) -> None:
    chosen, rejected = rewards(p)
    assert chosen is not None and rejected is not None
    assert 1 / (1 + math.exp(rejected - chosen)) == pytest.approx(p)


def test_rewards_are_finite_or_unknown() -> None:
    chosen, _ = rewards(1.0)
    assert chosen is not None and 13 < chosen < 14
    assert rewards(None) == (None, None)
