# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that tries mutants: each in a fork of the process that has collected the tests.

Input:  --mutants FILE with the names of mutants, one a line; a package whose functions mutmut has replaced
Output: --outcomes FILE, with lines of a name, a tab, and the exit code that mutmut has for the outcome

mutmut's own runner starts pytest again for each mutant, which takes longer than most mutants' tests, after it has run
the tests in the same process: what they leave in a cache, no mutant computes. Here nothing has run before.
"""

import json
import os
import resource
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

import pytest
from _pytest.runner import runtestprotocol

SURVIVED, FOUND, NO_TEST, TIMED_OUT = 0, 1, 33, 36
_VARIABLE = "MUTANT_UNDER_TEST"
"""mutmut's variable: the name of a mutant, or "stats" to record calls."""


@dataclass(frozen=True)
class _Test:
    item: pytest.Item
    seconds: float
    """CPU time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the files as options."""
    parser.addoption("--mutants", type=Path, required=True)
    parser.addoption("--outcomes", type=Path, required=True)
    parser.addoption("--workers", type=int, default=1)
    parser.addoption("--longest", type=float, default=float("inf"), help="CPU time of the longest test to try")
    parser.addoption("--seconds", type=int, default=10, help="CPU time that a mutant may need beyond the tests' own")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Find out which functions each test calls, then try the mutants."""
    options = session.config.option
    mutants, outcomes, workers = cast(Path, options.mutants), cast(Path, options.outcomes), cast(int, options.workers)
    names = mutants.read_text(encoding="utf-8").split()
    # Else each fork would make a folder of its own.
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    tests = _tests_by_function(session.items, outcomes.with_suffix(".calls"), options.longest)
    children = [
        _forked(lambda part=names[start::workers]: _try(part, tests, outcomes, options.seconds))
        for start in range(workers)
    ]
    if any([os.waitpid(child, 0)[1] for child in children]):
        pytest.exit("mutants were not tried", 1)
    # If a test failed since, for another reason than a mutant, what it has found would be wrong.
    if os.waitpid(_forked(lambda: _survives("", _covering(names, tests), options.seconds)), 0)[1]:
        pytest.exit("tests that passed at first fail without a mutant at the end", 1)
    return True


def _covering(names: Sequence[str], tests: Mapping[str, list[_Test]]) -> list[_Test]:
    """The tests that call a function of these mutants, the quickest first."""
    functions = {name.partition("__mutmut")[0] for name in names}
    found = {test.item.nodeid: test for function in functions for test in tests.get(function, ())}
    return sorted(found.values(), key=lambda test: test.seconds)


def _tests_by_function(items: Sequence[pytest.Item], file: Path, longest: float) -> Mapping[str, list[_Test]]:
    """Run each test without a mutant, alone, since a cache that another one has filled hides calls."""
    tests: dict[str, list[_Test]] = defaultdict(list)
    for item in items:
        file.unlink(missing_ok=True)
        if os.waitpid(_forked(lambda item=item: _record_calls(item, file)), 0)[1]:
            pytest.exit(f"{item.nodeid} fails without a mutant", 1)
        seconds, functions = json.loads(file.read_text(encoding="utf-8"))
        for function in functions if seconds <= longest else ():
            tests[function].append(_Test(item, seconds))
    return tests


def _record_calls(item: pytest.Item, file: Path) -> int:
    called: set[str] = set()

    def record(name: str, caller: str | None = None) -> None:
        called.add(name)

    vars(import_module("mutmut.mutation.trampoline"))["record_trampoline_hit"] = record
    os.environ[_VARIABLE] = "stats"
    before = time.process_time()
    failures = _failures(item)
    file.write_text(json.dumps([time.process_time() - before, sorted(called)]), encoding="utf-8")
    os.write(2, "\n".join(failures).encode())
    return FOUND if failures else 0


def _try(names: Sequence[str], tests: Mapping[str, list[_Test]], outcomes: Path, seconds: int) -> int:
    for name in names:
        if covering := _covering([name], tests):
            status = os.waitpid(_forked(lambda tests=covering, name=name: _survives(name, tests, seconds)), 0)[1]
            code = os.waitstatus_to_exitcode(status)
            code = TIMED_OUT if code in (-signal.SIGXCPU, -signal.SIGALRM) else FOUND if code else SURVIVED
        else:
            code = NO_TEST
        with outcomes.open("a", encoding="utf-8") as file:
            file.write(f"{name}\t{code}\n")
    return 0


def _survives(name: str, tests: Sequence[_Test], seconds: int) -> int:
    # CPU time does not depend on what else the machine does; the clock is for a mutant that waits for ever.
    limit = seconds + 10 * int(sum(test.seconds for test in tests))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60 + 20 * limit)
    os.environ[_VARIABLE] = name
    return FOUND if any(_failures(test.item) for test in tests) else SURVIVED


def _failures(item: pytest.Item) -> list[str]:
    return [report.longreprtext for report in runtestprotocol(item, log=False, nextitem=None) if report.failed]


def _forked(work: Callable[[], int]) -> int:
    """Run a function in a fork, whose exit code it returns; returns the process id."""
    child = os.fork()
    if child:
        return child
    code = FOUND
    try:
        code = work()
    finally:
        # Nothing of pytest's own end: the process that collected the tests goes on.
        os._exit(code)
