# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Sections of the report that need an evaluation or a reward model's scores, by independent computation."""

from __future__ import annotations

import csv
import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_run import Sizes, make_run
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.evaluation.preferences.by_principle import wins_by_principle
from nemo_aligner_cai.evaluation.preferences.compared_rows import read_compared
from nemo_aligner_cai.files import read_jsonl, write_jsonl
from nemo_aligner_cai.report.report import report_html
from nemo_aligner_cai.report.run_folder import RunFolder
from tests.unit.test_evaluation_pairwise import REPLIES, compare, longer
from tests.unit.test_report import Page

FIRST = {one.id for one in load_constitution(packaged()).principles[::2]}
"""Principles by which the judge below prefers the longer reply; by the others, it prefers the first position."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run", Sizes())


def shown(folder: Path) -> Page:
    return Page(report_html(RunFolder(folder)))


def test_principles_that_are_followed_after_training(run: Path, tmp_path: Path) -> None:
    questions = {one.requests["judge"]: one.id for one in load_constitution(packaged()).principles}

    def judge(body: dict[str, Any]) -> float:
        asked = "\n".join(message["content"] for message in body["messages"])
        drawn = next((name for question, name in questions.items() if question in asked), None)
        return longer(body) if drawn is None or drawn in FIRST else 0.9

    output = compare(tmp_path, {name: lambda n, text=text: text for name, text in REPLIES.items()}, judge)
    rows = [row for _, row in read_jsonl(output / "comparisons.jsonl")]
    counted: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        pair = {row["models"]["long"], row["models"]["short"]}
        for name in {one["principle"] for one in row["verdicts"] if set(one["shown"]) == pair}:
            counted[name].append(1.0 if name in FIRST else 0.5)
    rates = wins_by_principle(read_compared(output / "comparisons.jsonl"), "long", "short")
    assert {name: (rate.value, rate.n) for name, rate in rates.items()} == {
        name: (sum(values) / len(values), len(values)) for name, values in counted.items()
    }
    assert {rate.value for rate in rates.values()} == {1.0, 0.5}, "principles of both kinds were drawn"

    folder = Path(shutil.copytree(run, tmp_path / "run"))
    before = " ".join(shown(folder).text.split())
    assert "followed after training was not measured" in before
    shutil.copytree(output, folder / "8_evaluate")
    page = shown(folder)
    text = " ".join(page.text.split())
    assert "followed after training was not measured" not in text
    assert "Followed after training: long against short" in text and "long against middle" in text
    assert "Bradley-Terry ratings on s, harmful" in text
    verdicts = [
        part["rows"]
        for parts in page.chains()
        for part in parts
        if part["label"] == "Verdicts" and len(part["rows"]) > 2
    ]
    assert len(verdicts) == 24
    assert {cell for rows in verdicts for row in rows for cell in row[:1]} >= {"long → short", "short → long"}
    index = page.unpacked("index")
    assert {index["principles"][n] for names in index["principle"] for n in names} >= set(counted)


def test_the_reward_models_calibration(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    assert "Calibration of the reward model" not in shown(folder).text
    margins = [math.sin(n) * 3 for n in range(40)]
    rows = [
        {
            "prompt": str(n),
            "chosen": "c" * (n + 1),
            "rejected": "r" * 20,
            "chosen_score": margin,
            "rejected_score": 0.0,
        }
        for n, margin in enumerate(margins)
    ]
    write_jsonl(folder / "6_ppo" / "reward_scores.jsonl", rows)
    text = " ".join(shown(folder).text.split())
    brier = sum((1 / (1 + math.exp(-margin)) - 1) ** 2 for margin in margins) / 40
    loss = sum(math.log1p(math.exp(-margin)) for margin in margins) / 40
    right = 100 * sum(margin > 0 for margin in margins) / 40
    assert f"Brier score {brier:.3f}, log loss {loss:.3f}, 40 pairs." in text
    assert f"held-out pairs ranked correctly{right:.1f} % (" in text
    for title in ("Reward of the chosen text over the rejected one", "Reward against length"):
        assert title in text
    assert "the longer text has the higher reward" in text


def test_human_labels_and_worst_cases(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    prompts = [{"prompt": f"question {n}", "side": "benign"} for n in range(20)]
    write_jsonl(tmp_path / "set.jsonl", prompts)
    write_jsonl(
        tmp_path / "m.jsonl",
        ({"prompt": row["prompt"], "completion": "Sure." if n % 2 else "I'm sorry."} for n, row in enumerate(prompts)),
    )
    with (tmp_path / "gold.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "prompt", "label"])
        # The grader is wrong once on each side.
        for n, row in enumerate(prompts):
            refused = (n % 2 == 0) != (n < 2)
            writer.writerow(["m", row["prompt"], "full_refusal" if refused else "full_compliance"])
    flags = [f"--set=s={tmp_path / 'set.jsonl'}", "--grader=xstest-strings", f"--gold={tmp_path / 'gold.csv'}"]
    assert main(["evaluate", *flags, f"--model=m={tmp_path / 'm.jsonl'}", f"--output={folder / 'evaluation'}"]) == 0
    text = " ".join(shown(folder).text.split())
    assert "Graders against human labels" in text and "xstest-strings: over-refuses2090.0 % (" in text
    assert "Rates corrected by the human labels" in text
