# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
from configparser import ConfigParser
from pathlib import Path

import pytest

from benchmarks.mutation import MODULES, Module, drawn, score, settings
from nemo_aligner_cai.errors import CaiError


def test_a_mutant_that_no_test_calls_counts_as_one_that_survived() -> None:
    counts, share = score({"a": 1, "b": 0, "c": 33, "d": 24})
    assert counts == {"found": 2, "survived": 1, "no test": 1}
    assert share.value == pytest.approx(0.5) and share.n == 4


def test_mutants_that_were_not_tried_count_for_nothing() -> None:
    share = score({"a": 1, "b": None, "c": 2})[1]
    assert (share.value, share.n) == (1.0, 1)
    with pytest.raises(CaiError, match="there are 0"):
        score({"a": None})


def test_a_sample_is_drawn_anew_only_where_the_mutants_change() -> None:
    names = [f"mutant_{number}" for number in range(50)]
    first = drawn(names, 10)
    assert len(first) == 10 and first == drawn(names[::-1], 10)
    assert drawn(names[:5], 10) == set(names[:5])


@pytest.mark.parametrize("module", MODULES.values(), ids=list(MODULES))
def test_every_pattern_names_files_that_are_there(module: Module, repo_root: Path) -> None:
    for pattern in module.files:
        assert list((repo_root / "nemo_aligner_cai").glob(pattern)), pattern
    for pattern in module.tests:
        assert list((repo_root / "tests" / "unit").glob(pattern)), pattern
    parser = ConfigParser()
    parser.read_string(settings(module))
    tests = parser["mutmut"]["pytest_add_cli_args_test_selection"].split()
    assert tests and all((repo_root / test).is_file() for test in tests)
