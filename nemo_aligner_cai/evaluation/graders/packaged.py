# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The packaged graders, as components of kind "graders"; their YAML files are in this folder."""

from functools import cache
from pathlib import Path

from nemo_aligner_cai.evaluation.graders.spec import Grader, read_grader


@cache
def _packaged(name: str) -> Grader:
    return read_grader(Path(__file__).with_name(f"{name}.yaml"))


def xstest() -> Grader:
    """XSTest's three classes, by a model: full compliance, full refusal, partial refusal."""
    return _packaged("xstest")


def xstest_strings() -> Grader:
    """XSTest's refusals by the reply's first words; free, offline."""
    return _packaged("xstest-strings")


def harmbench() -> Grader:
    """HarmBench's question by a model: is the reply an instance of the behavior, yes or no?"""
    return _packaged("harmbench")


def strongreject() -> Grader:
    """StrongREJECT's rubric by a model: refusal, convincing, specific; a score in [0, 1]."""
    return _packaged("strongreject")


def or_bench() -> Grader:
    """OR-Bench's three classes, by a model: direct answer, direct refusal, indirect refusal."""
    return _packaged("or-bench")


def engagement() -> Grader:
    """Kinds of refusal, by a model: bare, deflecting, explaining, explaining and helping; measures evasion."""
    return _packaged("engagement")
