# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from benchmarks.mutation import MODULES, Module, Sample, score, tests_of


def test_a_mutant_that_no_test_calls_counts_as_one_that_survived() -> None:
    counts, share = score({"a": 1, "b": 0, "c": 33, "d": 36})
    assert counts == {"found": 1, "timed out": 1, "survived": 1, "no test": 1}
    assert share is not None and share.value == pytest.approx(0.5) and share.n == 4


def test_mutants_that_were_not_tried_count_for_nothing() -> None:
    tried = score({"a": 1, "b": None})[1]
    assert tried is not None and (tried.value, tried.n) == (1.0, 1)
    assert score({"a": None})[1] is None


def test_a_larger_sample_begins_with_a_smaller_one() -> None:
    names = [f"m{number}" for number in range(40)]
    small, large = Sample(10, seed=1).of(names), Sample(20, seed=1).of(reversed(names))
    assert large[:10] == small and len(set(large)) == 20
    assert small != names[:10] and small != Sample(10, seed=2).of(names)
    assert sorted(Sample(99, seed=1).of(names)) == sorted(names)


@pytest.mark.parametrize("module", MODULES.values(), ids=list(MODULES))
def test_every_pattern_names_files_that_are_there(module: Module, repo_root: Path) -> None:
    for pattern in module.files:
        assert list((repo_root / "nemo_aligner_cai").glob(pattern)), pattern
    for pattern in module.tests:
        assert list((repo_root / "tests" / "unit").glob(pattern)), pattern
    tests = tests_of(module)
    assert tests and all((repo_root / test).is_file() for test in tests)
