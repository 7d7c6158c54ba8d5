# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Pairwise comparisons in `cai evaluate`: a judge on a socket that prefers the longer reply, or the first position."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.evaluation.results import Pairwise, read_evaluation
from nemo_aligner_cai.files import read_jsonl, write_jsonl
from tests.unit.fake_servers import FakeVllm

OPTIONS = re.compile(r"^\(A\) (.*)\n\(B\) (.*)$", re.MULTILINE)
REPLIES = {"short": "ok", "middle": "okay then", "long": "okay then, all of it"}


def longer(body: dict[str, Any]) -> float:
    *_, asked = (message["content"] for message in body["messages"] if message["role"] == "user")
    found = OPTIONS.search(asked)
    # The question that finds the scoring method has no options on lines of their own.
    return 0.9 if found is None or len(found[1]) > len(found[2]) else 0.1


def compare(folder: Path, replies: dict[str, Callable[[int], str]], judge: Callable[[dict[str, Any]], float]) -> Path:
    """Compare models with these replies on 12 prompts of each side."""
    prompts = [f"question {number}" for number in range(24)]
    rows = [{"prompt": text, "side": "harmful" if n < 12 else "benign"} for n, text in enumerate(prompts)]
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--set", f"s={folder / 'set.jsonl'}", "--grader", "xstest-strings", "--output", str(folder / "out")]
    for name, reply in replies.items():
        saved = [{"instruction": text, "output": reply(number)} for number, text in enumerate(prompts)]
        (folder / f"{name}.json").write_text(json.dumps(saved))
        flags += ["--model", f"{name}={folder / f'{name}.json'}"]
    with FakeVllm(judge) as server:
        flags += ["--judge", "multiple-choice", "--grader-model", f"http://127.0.0.1:{server.port}/v1#judge"]
        assert cli.main(["evaluate", *flags, "--baseline", "short"]) == 0
    return folder / "out"


def wins(group: Pairwise, model: str, opponent: str) -> tuple[int, int, int, int]:
    [match] = [one for one in group.matches if (one.model, one.opponent) == (model, opponent)]
    return match.wins, match.ties, match.losses, match.flips


def test_a_model_that_always_wins_has_a_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = compare(tmp_path, {name: lambda n, text=text: text for name, text in REPLIES.items()}, longer)
    evaluation = read_evaluation(output)
    assert [(one.set, one.side) for one in evaluation.pairwise] == [("s", "harmful"), ("s", "benign")]
    for group in evaluation.pairwise:
        assert wins(group, "long", "short") == (12, 0, 0, 0)
        assert wins(group, "short", "middle") == (0, 0, 12, 0)
        ratings = {one.model: one for one in group.ratings}
        assert ratings["long"].bound == "lower" and ratings["long"].rating is None
    assert len([*read_jsonl(output / "comparisons.jsonl")]) == 24
    assert cli.main(["audit", str(output / "comparisons.jsonl")]) == 0
    assert cli.main(["report", str(output)]) == 0
    rows = [row for _, row in read_jsonl(output / "comparisons.jsonl")]
    for damage in ({"models": {"short": 0}}, {"models": None}, {"candidates": []}, {"id": None}):
        write_jsonl(output / "comparisons.jsonl", [rows[0], rows[1] | damage], overwrite=True)
        capsys.readouterr()
        assert cli.main(["report", str(output)]) == 2
        assert "comparisons.jsonl:2: " in capsys.readouterr().err


def test_a_judge_of_positions_gives_ties_and_flips(tmp_path: Path) -> None:
    output = compare(tmp_path, {name: lambda n, text=text: text for name, text in REPLIES.items()}, lambda body: 0.9)
    for group in read_evaluation(output).pairwise:
        assert wins(group, "long", "short") == (0, 12, 0, 12)
        [match] = [one for one in group.matches if (one.model, one.opponent) == ("long", "short")]
        assert match.win_rate is not None and match.win_rate.value == 0.5
        assert [one.rating for one in group.ratings] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)
        assert group.zero == "short", "the baseline"


def test_equal_replies_are_ties_that_are_not_judged(tmp_path: Path) -> None:
    def half(number: int) -> str:
        return REPLIES["short"] if number % 2 else REPLIES["long"]

    output = compare(tmp_path, {"short": lambda n: REPLIES["short"], "half": half}, longer)
    for group in read_evaluation(output).pairwise:
        assert wins(group, "half", "short") == (6, 6, 0, 0)
    verdicts = [len(row["verdicts"]) for _, row in read_jsonl(output / "comparisons.jsonl")]
    assert sorted(verdicts) == [0] * 12 + [2] * 12
