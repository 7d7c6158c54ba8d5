# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutation import MODULES, Module, Sample, files_of_tests, score


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
    tests = files_of_tests(module)
    assert tests and all((repo_root / test).is_file() for test in tests)


_FAKE_TRAMPOLINE = """
import os
def record_trampoline_hit(name, caller=None): ...
def call(function):
    mutant = os.environ.get("MUTANT_UNDER_TEST", "")
    if mutant == "stats":
        record_trampoline_hit(function)
    return mutant.removeprefix(function)
"""
_TESTS = """
import functools, time
from mutmut.mutation.trampoline import call
@functools.cache
def cached():
    return call("m.x_f")
def test_first():
    assert cached() not in ("__mutmut_1", "__mutmut_3")
def test_second():
    while cached() == "__mutmut_4":
        pass
    assert cached() != "__mutmut_2"
def test_other():
    assert call("m.x_g") != "__mutmut_1"
"""


@pytest.mark.slow
def test_each_mutant_is_tried_by_the_tests_that_call_its_function_with_empty_caches(
    tmp_path: Path, repo_root: Path
) -> None:
    package = tmp_path / "mutmut" / "mutation"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "trampoline.py").write_text(_FAKE_TRAMPOLINE)
    (tmp_path / "test_it.py").write_text(_TESTS)
    functions = [*(f"m.x_f__mutmut_{number}" for number in range(1, 6)), "m.x_g__mutmut_1", "m.x_h__mutmut_1"]
    (tmp_path / "names").write_text("\n".join(functions))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.mutants", "--mutants=names", "--seconds=1"]
    command += ["--outcomes=outcomes", "--workers=2", "--rootdir=."]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(repo_root)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    outcomes = dict(line.split("\t") for line in (tmp_path / "outcomes").read_text().splitlines())
    assert [int(outcomes[name]) for name in functions] == [1, 1, 1, 36, 0, 1, 33], done.stdout
