# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai accuracy`: JudgeBench's published figures, and the formats of saved verdicts and scores."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from nemo_aligner_cai.cli import main
from nemo_aligner_cai.errors import CaiError, FormatError
from nemo_aligner_cai.evaluation.known_answers.judge_accuracy import Accuracy
from nemo_aligner_cai.evaluation.known_answers.reward_accuracy import reward_accuracy
from nemo_aligner_cai.evaluation.known_answers.reward_scores import ScoredPair, ScoredReply, read_scored
from nemo_aligner_cai.evaluation.known_answers.saved_verdicts import read_saved
from nemo_aligner_cai.files import write_jsonl

JUDGED = "claude-3-5-sonnet-20240620.judged_by_claude-3-haiku.jsonl"
SCORED = "gpt-4o-2024-05-13.scored_by_Skywork-Reward-Llama-3.1-8B.jsonl"


def judged(*decisions: str | None, label: str = "A>B", **more: Any) -> dict[str, Any]:
    return {
        "question": "1 + 1?",
        "response_A": "two",
        "response_B": "three",
        "label": label,
        "judgments": [{"decision": decision} for decision in decisions],
        **more,
    }


def scored(chosen: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    texts = {"text_chosen": "a good reply", "text_rejected": "a bad one"}
    return {**texts, "scores_chosen": chosen, "scores_rejected": rejected, "subset": "chat", **more}


def figures(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    target = path.with_suffix(".figures.json")
    assert main(["accuracy", str(path), "--json", str(target)]) == 0, capsys.readouterr().err
    return json.loads(target.read_text())


def test_judgebenchs_verdicts_by_three_rules(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    assert main(["accuracy", str(shared_data / "judgebench" / JUDGED), "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    assert (found["kind"], found["asked"]) == ("verdicts", 270)
    percent = {name: round(100 * rate["value"], 2) for name, rate in found["rules"].items()}
    assert percent == {
        "strict": 14.07,
        "judgebench": 32.22,
        "judgebench_ties": 38.52,
        "judgebench_wrong": 29.26,
        "soft": 49.07,
    }
    assert sum(part["asked"] for part in found["categories"].values()) == 270
    shown = capsys.readouterr().out
    assert "14.1 [10.4, 18.7]" in shown and "mmlu-pro-law" in shown


def test_judgebenchs_reward_scores(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    assert main(["accuracy", str(shared_data / "judgebench" / SCORED), "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    assert (found["kind"], found["pairs"], found["ties"]) == ("reward scores", 350, 1)
    assert round(100 * found["accuracy"]["value"], 2) == 62.29
    assert round(100 * found["calibration"]["predicted"], 2) == 93.64
    assert round(found["calibration"]["brier"], 4) == 0.3322
    assert sum(found["scores"]["chosen"]) == sum(found["scores"]["rejected"]) == 350
    assert sum(found["margins"]["chosen"]) == 218
    assert sum(part["n"] for part in found["categories"].values()) == 350
    assert "0.3322" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("decisions", "strict", "rule", "soft"),
    [
        (("A>B", "B>A"), 1, "judgebench", 1.0),
        (("A>B", "A=B"), 0, "judgebench", 0.75),
        (("A>B", None), 0, "judgebench", 0.5),
        (("A>B", "A>B"), 0, "judgebench_ties", 0.5),
        (("A=B", "A=B"), 0, "judgebench_ties", 0.5),
        ((None, None), 0, "judgebench_ties", 0.0),
        (("A=B", "A>B"), 0, "judgebench_wrong", 0.25),
        (("B>A", "A>B"), 0, "judgebench_wrong", 0.0),
        (("A>B",), 1, "judgebench", 1.0),
    ],
)
def test_the_rules_for_each_pair_of_verdicts(
    tmp_path: Path, decisions: tuple[str | None, ...], strict: int, rule: str, soft: float
) -> None:
    path = tmp_path / "judged.jsonl"
    # The second verdict is on swapped replies. With the other label everything is mirrored.
    mirror = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B", None: None}
    write_jsonl(path, [judged(*decisions), judged(*(mirror[one] for one in decisions), label="B>A")])
    accuracy = Accuracy()
    for item in read_saved(path):
        accuracy.add(item)
    rates = {name: rate.value for name, rate in accuracy.rules.rates().items()}
    assert rates["strict"] == strict and rates["soft"] == soft
    others = {"judgebench", "judgebench_ties", "judgebench_wrong"} - {rule}
    assert rates[rule] == 1.0 and all(rates[other] == 0.0 for other in others)
    assert accuracy.rules.unparsed == 2 * decisions.count(None)


def test_rewardbenchs_rows_and_its_table_of_columns_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [scored(1.0, 0.0), scored(0.5, 2.0, subset="math"), scored(3.0, 3.0)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    table = {key: [row[key] for row in rows] for key in rows[0]} | {"model": "a reward model"}
    (tmp_path / "table.json").write_text(json.dumps(table))
    first, second = (figures(tmp_path / name, capsys) for name in ("rows.jsonl", "table.json"))
    assert {**first, "file": ""} == {**second, "file": ""}
    assert first["accuracy"]["value"] == pytest.approx(1 / 3) and first["ties"] == 1
    assert first["categories"]["math"]["value"] == 0.0


def test_rows_of_rlhflow_have_messages(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello you"}]
    row = {"prompt": "hi", "chosen": turns, "rejected": "no", "chosen_score": 1, "rejected_score": -1.5}
    write_jsonl(tmp_path / "rows.jsonl", [row])
    (pair,) = read_scored(tmp_path / "rows.jsonl")
    assert (pair.margin, pair.chosen.length, pair.rejected.length) == (2.5, 9, 2)


def test_the_length_bias_is_found() -> None:
    generator = random.Random(1)
    pairs: list[ScoredPair] = []
    for number in range(400):
        drawn = [generator.randrange(10, 1000) for _ in range(2)]
        pairs.append(ScoredPair(str(number), None, *(ScoredReply(n, n / 100 + generator.gauss(0, 1)) for n in drawn)))
    length = reward_accuracy(pairs).length
    lengths = [reply.length for pair in pairs for reply in (pair.chosen, pair.rejected)]
    scores = [reply.score for pair in pairs for reply in (pair.chosen, pair.rejected)]
    assert length.correlation == pytest.approx(stats.spearmanr(lengths, scores).statistic)
    assert length.longer_preferred is not None and length.longer_preferred.low > 0.85
    assert length.longer_better is not None and length.longer_better.low < 0.5 < length.longer_better.high
    assert length.accuracy_if_longer_better is not None and length.accuracy_if_shorter_better is not None
    assert length.accuracy_if_shorter_better.high < 0.2 < 0.8 < length.accuracy_if_longer_better.low
    assert [one.replies for one in length.bins] == [80] * 10
    assert [one.length for one in length.bins] == sorted(one.length for one in length.bins)


def test_pairs_of_one_prompt_are_not_independent() -> None:
    replies = ScoredReply(1, 1.0), ScoredReply(1, 0.0)
    pairs = [ScoredPair(str(n % 30), None, *(replies if n % 2 else replies[::-1])) for n in range(90)]
    assert reward_accuracy(pairs).accuracy.n == 30
    assert reward_accuracy(pairs).length.correlation is None, "all lengths are equal"
    with pytest.raises(CaiError, match="0"):
        reward_accuracy([])


def test_extreme_margins_are_no_overflow() -> None:
    pairs = [ScoredPair(str(n), None, ScoredReply(1, 1e6 * n), ScoredReply(2, -1e6)) for n in range(2)]
    assert reward_accuracy(pairs).calibration.log_loss == 0.0
    wrong = ScoredPair("a", None, ScoredReply(1, -1e9), ScoredReply(2, 1e9))
    assert reward_accuracy([wrong]).calibration.log_loss == -math.log(1e-12)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (judged("A>B", "better"), "'decision'"),
        (judged("A>B", label="A"), "'label'"),
        (judged("A>B", "A>B", "A>B"), "'judgments'"),
        (judged(), "'judgments'"),
        ({"question": "?"}, "'label'"),
        (scored(1.0, "2.0"), "'scores_rejected'"),
        (scored(1.0, 2.0, scores_rejected=None), "'scores_rejected'"),
        (scored(1.0, 2.0, text_chosen=None), "'text_chosen'"),
        ({**judged("A>B"), "judgments": [{"judgment": {"scores": [1.0]}}]}, "'scores'"),
        ({**scored(1, 2), "scores_chosen": [1.0, 2.0], "scores_rejected": [1.0]}, "1, 2"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], named: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert main(["accuracy", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}:1" in line and named in line


def test_comparisons_without_a_known_answer_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "id": "9f86",
        "prompt": [{"role": "user", "content": "q"}],
        "candidates": [{"key": "response_t=0.01", "text": "yes"}, {"key": "response_t=0.51", "text": "no"}],
        "pairs": [],
        "verdicts": [{"shown": [0, 1], "better": 1, "worse": 0, "probability": None, "raw": "(B)"}],
    }
    write_jsonl(tmp_path / "cai_comparisons.jsonl", [row])
    assert main(["accuracy", str(tmp_path / "cai_comparisons.jsonl")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "cai_comparisons.jsonl:1: " in line and "key 'candidates'" in line and "'correct'" in line


def test_mixed_and_empty_files_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "mixed.jsonl", [scored(1.0, 0.0), judged("A>B", "B>A")])
    (tmp_path / "empty.jsonl").write_text("")
    for name in ("mixed.jsonl", "empty.jsonl"):
        assert main(["accuracy", str(tmp_path / name)]) == 2
    with pytest.raises(FormatError, match=":2"):
        list(read_scored(tmp_path / "mixed.jsonl"))


def test_an_existing_output_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [scored(1.0, 0.0)])
    before = figures(path, capsys)
    target = path.with_suffix(".figures.json")
    assert main(["accuracy", str(path), "--json", str(target)]) == 2
    assert main(["accuracy", str(path), "--json", str(path), "--overwrite"]) == 2
    assert main(["accuracy", str(path), "--json", str(target), "--overwrite"]) == 0
    assert json.loads(target.read_text()) == before
