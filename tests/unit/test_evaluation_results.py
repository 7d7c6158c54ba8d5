# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The schema of evaluation.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.figures import figure_of
from nemo_aligner_cai.evaluation.results import read_evaluation

RATE = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 100}
EXAMPLE: dict[str, Any] = {
    "schema_version": 1,
    "run": {"seed": 1, "baseline": "base", "sampling": {}, "settings": {}, "version": "0.1.0"},
    "models": [
        {
            "name": name,
            "kind": "completions",
            "source": f"{name}.jsonl",
            "identity": {},
            "completions": 200,
            "empty": 0,
            "failed": 0,
            "cut": 0,
            "saved": {"used": 200, "other_prompts": 0, "other_models": 0},
        }
        for name in ("base", "tuned")
    ],
    "sets": [
        {
            "name": "xstest",
            "file": "xstest_prompts.csv",
            "sha256": "00",
            "format": "xstest",
            "rows": 200,
            "harmful": 100,
            "benign": 100,
            "skipped": {},
        }
    ],
    "graders": [
        {
            "name": "xstest-strings",
            "source": "a repository",
            "license": "CC-BY-4.0",
            "sha256": "00",
            "parser": "strings",
            "classes": ["full_compliance", "full_refusal", "partial_refusal"],
            "complies": ["full_compliance"],
            "refuses": ["full_refusal", "partial_refusal"],
            "evades": [],
            "scored": False,
            "model": None,
            "same_as": None,
            "graded": 400,
            "unscored": 0,
            "failure_rate": 0.0,
            "by_logprobs": 0,
            "by_text": 400,
        }
    ],
    "results": [
        {
            "model": "tuned",
            "set": "xstest",
            "side": "benign",
            "grader": "xstest-strings",
            "replies": 100,
            "unscored": 0,
            "classes": {"full_compliance": 90, "full_refusal": 10, "partial_refusal": 0},
            "metrics": [{"name": "over_refusal", "rate": RATE, "bounds": None}],
        }
    ],
    "differences": [
        {
            "model": "tuned",
            "baseline": "base",
            "set": "xstest",
            "side": "benign",
            "grader": "xstest-strings",
            "metric": "over_refusal",
            "value": -0.1,
            "low": -0.15,
            "high": -0.05,
            "n": 100,
            "p": 0.01,
            "p_holm": 0.01,
            "detectable": 0.08,
        }
    ],
    "pairwise": [],
    "gold": [],
    "files": {
        "completions": "completions.jsonl",
        "grades": "grades.jsonl",
        "comparisons": None,
        "logs": {"base": "logs/base.eval"},
    },
}


@pytest.mark.parametrize(("score", "low", "high"), [(0.0, 0.0, 0.43), (1.0, 0.57, 1.0), (0.5, 0.17, 0.83)])
def test_equal_scores_have_an_interval(score: float, low: float, high: float) -> None:
    figure = figure_of({str(prompt): [score, score] for prompt in range(5)}, is_rate=False)
    assert figure is not None and figure.n == 5
    assert (figure.low, figure.value, figure.high) == pytest.approx((low, score, high), abs=0.01)


@pytest.mark.parametrize("score", [0.1, 0.7, 0.8])  # sums of these are not exact
@pytest.mark.parametrize("prompts", [3, 10, 313])
def test_equal_scores_have_an_interval_whatever_their_sum_is_rounded_to(score: float, prompts: int) -> None:
    figure = figure_of({str(prompt): [score] for prompt in range(prompts)}, is_rate=False)
    assert figure is not None and figure.high - figure.low > 0.01


def test_equal_means_of_prompts_have_an_interval() -> None:
    figure = figure_of({"a": [0.2, 0.8], "b": [0.8, 0.2], "c": [0.2, 0.8]}, is_rate=False)
    assert figure is not None and figure.high - figure.low > 0.5


def written(folder: Path, **changes: Any) -> Path:
    (folder / "evaluation.json").write_text(json.dumps(EXAMPLE | changes))
    return folder


def test_the_file_and_its_folder_are_read(tmp_path: Path) -> None:
    evaluation = read_evaluation(written(tmp_path))
    assert evaluation == read_evaluation(tmp_path / "evaluation.json")
    assert evaluation.results[0].metrics[0].rate.value == 0.1
    assert evaluation.model_dump(mode="json") == EXAMPLE


def test_another_schema_version_and_an_unknown_key_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="schema_version"):
        read_evaluation(written(tmp_path, schema_version=2))
    with pytest.raises(UsageError, match="ratings"):
        read_evaluation(written(tmp_path, ratings=[]))
