# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio
import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.evaluate import audit as command
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.data.judged_row import JudgedRow, read_judged
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.preferences.agreement import Agreement, Preferences
from nemo_aligner_cai.evaluation.preferences.audit import WHOLE, Audit
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.judges.base import FIRST, FLIPS, KEPT
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Sampling, ScriptedClient
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.comparisons import ComparisonPipeline, generate_comparisons

Said = tuple[tuple[int, ...], int | None, int | None]
"""A verdict: the candidates in the order shown, the better and the worse one."""


def row(
    number: int,
    texts: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    verdicts: Sequence[Said],
    *,
    principle: str | None = "p",
) -> dict[str, Any]:
    """A row of cai_comparisons.jsonl."""
    return {
        "id": f"id{number}",
        "prompt": [{"role": "user", "content": f"question {number}"}],
        "candidates": [{"key": f"response_{place}", "text": text} for place, text in enumerate(texts)],
        "pairs": [
            {
                "chosen": texts[won],
                "rejected": texts[lost],
                "chosen_key": f"response_{won}",
                "rejected_key": f"response_{lost}",
                "probability": 0.9,
                "principle": principle,
                "explanation": "",
            }
            for won, lost in pairs
        ],
        "verdicts": [
            {
                "shown": list(shown),
                "principle": principle,
                "better": better,
                "worse": worse,
                "probability": None,
                "raw": "",
            }
            for shown, better, worse in verdicts
        ],
    }


def audit_of(*rows: dict[str, Any]) -> Audit:
    audit = Audit()
    for one in rows:
        audit.add(JudgedRow.from_row(one))
    return audit


def both_orders(better: int, worse: int) -> list[Said]:
    return [((0, 1), better, worse), ((1, 0), better, worse)]


ALWAYS_A: list[Said] = [((0, 1), 0, 1), ((1, 0), 1, 0)]


def test_a_judge_that_prefers_the_longer_text_is_found_out():
    rows = [row(n, ["long " * (n + 2), "short"], [(0, 1)], both_orders(0, 1)) for n in range(30)]
    audit = audit_of(*rows)
    assert audit.longer.rate is not None and (audit.longer.rate.value, audit.longer.rate.n) == (1.0, 30)
    ratios = [len("long ") * (n + 2) / len("short") for n in range(30)]
    assert audit.length_ratio is not None
    assert audit.length_ratio[0] == pytest.approx(math.exp(sum(map(math.log, ratios)) / 30))
    assert audit.length_ratio[1] is not None and audit.length_ratio[1][0] > 1
    assert audit.wins["response_0"].mean == 1.0 and audit.wins["response_1"].mean == 0.0


def test_lengths_without_influence_have_the_ratio_one():
    rows = [row(2 * n, ["ab", "abcd"], [(0, 1)], []) for n in range(20)]
    rows += [row(2 * n + 1, ["ab", "abcd"], [(1, 0)], []) for n in range(20)]
    audit = audit_of(*rows, row(99, ["same", "size"], [(0, 1)], []))
    assert audit.length_ratio is not None and audit.length_ratio[0] == pytest.approx(1.0)
    assert audit.longer.mean == 0.5 and audit.longer.count == 40, "equal lengths say nothing"


def test_a_judge_that_always_says_a_has_all_of_the_position_bias_and_keeps_nothing():
    audit = audit_of(*(row(n, ["x", "yy"], [], ALWAYS_A) for n in range(10)))
    assert (audit.rows, audit.rows_without_pair, audit.pairs) == (10, 10, 0)
    assert audit.all.first.mean == audit.all.flips.mean == 1.0
    assert audit.all.first_by_chance.mean == 0.5
    assert (audit.all.pairs, audit.all.decided, audit.all.kept) == (10, 0, 0)
    assert audit.longer.rate is audit.length_ratio is None


def test_a_fair_judge_has_none():
    audit = audit_of(*(row(n, ["x", "yy"], [(n % 2, 1 - n % 2)], both_orders(n % 2, 1 - n % 2)) for n in range(10)))
    assert (audit.all.first.mean, audit.all.flips.mean, audit.longer.mean) == (0.5, 0.0, 0.5)
    assert (audit.all.decided, audit.all.kept) == (10, 10)


def test_principles_are_told_apart():
    bad = [row(n, ["x", "yyy"], [(1, 0)], both_orders(1, 0), principle="long-winded") for n in range(4)]
    good = [row(10 + n, ["x", "yyy"], [(0, 1)], both_orders(0, 1), principle="terse") for n in range(3)]
    mute = [row(20, ["x", "yyy"], [], [((0, 1), 0, 1), ((1, 0), None, None)], principle="terse")]
    audit = audit_of(*bad, *good, *mute)
    long_winded, terse = audit.principles["long-winded"], audit.principles["terse"]
    assert (long_winded.pairs, long_winded.decided, long_winded.kept, long_winded.longer.mean) == (4, 4, 4, 1.0)
    assert (terse.pairs, terse.unparsed, terse.decided, terse.kept, terse.longer.mean) == (4, 1, 3, 3, 0.0)
    assert terse.flips.count == 3, "a pair with a verdict in one order alone is no witness of flips"


def test_a_tie_is_parsed_and_not_decided():
    tied = row(1, ["x", "y"], [], [((0, 1), None, None)])
    tied["verdicts"][0]["probability"] = 0.5
    figures = audit_of(tied).all
    assert (figures.pairs, figures.unparsed, figures.decided) == (1, 0, 0)


def test_a_pair_that_is_decided_and_not_extreme_is_not_kept():
    verdicts: list[Said] = [((0, 1), 0, 1), ((0, 2), 0, 2), ((1, 2), 1, 2)]
    figures = audit_of(row(1, ["a", "b", "c"], [(0, 2)], verdicts)).principles["p"]
    assert (figures.pairs, figures.decided, figures.kept) == (3, 3, 1)


def test_best_and_worst_of_four_is_by_chance_the_first_one_in_a_quarter():
    order = (2, 0, 3, 1)
    one = row(1, ["a", "bb", "ccc", "dddd"], [(2, 1)], [(order, 2, 1), (order[::-1], 2, 1)], principle=None)
    audit = audit_of(one)
    assert audit.all.first_by_chance.mean == 0.25
    assert audit.all.first.mean == 0.5 and audit.all.flips.mean == 0.0
    assert audit.principles[WHOLE].longer.mean == 1.0


def test_verdicts_that_name_no_worse_one_still_flip():
    answers: list[Said] = [((0, 1, 2), 0, None), ((2, 1, 0), 2, None)]
    figures = audit_of(row(1, ["a", "b", "c"], [], answers)).all
    assert (figures.flips.mean, figures.first.mean, figures.decided) == (1.0, 1.0, 0)


def agreement_of(*runs: Sequence[dict[str, Any]]) -> Agreement:
    preferences = Preferences()
    for rows in runs:
        preferences.start_run()
        for one in rows:
            preferences.add(JudgedRow.from_row(one))
    return preferences.agreement(0, 1)


def test_agreement_is_over_common_pairs_whatever_the_order_of_candidates():
    one = [row(n, ["x", "y"], [(0, 1)], []) for n in range(20)]
    same = [row(n, ["y", "x"], [(1, 0)], []) for n in range(5, 25)]
    found = agreement_of(one, same)
    assert (found.common, found.only_first, found.only_second) == (15, 5, 5)
    assert found.rate is not None and found.rate.value == 1.0 and found.rate.n == 15
    opposite = agreement_of(one, [row(n, ["x", "y"], [(1, 0)], []) for n in range(20)])
    assert opposite.rate is not None and opposite.rate.value == 0.0
    assert opposite.kappa is not None and opposite.kappa < -0.5
    strangers = agreement_of(one, [row(n, ["x", "z"], [(0, 1)], []) for n in range(20)])
    assert (strangers.common, strangers.rate, strangers.kappa) == (0, None, None)


def test_kappa_is_cohens():
    def run(wins: Sequence[bool]) -> list[dict[str, Any]]:
        return [
            row(n, ["always the same refusal", f"y{n}"], [(0, 1) if won else (1, 0)], []) for n, won in enumerate(wins)
        ]

    first = [n % 2 == 0 for n in range(400)]
    assert agreement_of(run(first), run(first)).kappa == pytest.approx(1.0)
    half_the_time = [won if n % 4 < 2 else not won for n, won in enumerate(first)]
    assert agreement_of(run(first), run(half_the_time)).kappa == pytest.approx(0.0, abs=0.05)
    nine_in_ten = [won if n % 10 else not won for n, won in enumerate(first)]
    assert agreement_of(run(first), run(nine_in_ten)).kappa == pytest.approx(0.8, abs=0.03)
    assert agreement_of(run([True]), run([True])).kappa is None, "one pair tells nothing about chance"


def test_a_pair_that_comes_twice_counts_once():
    again = JudgedRow.from_row(row(1, ["x", "y"], [(0, 1)], []))
    preferences = Preferences()
    preferences.start_run()
    assert [preferences.add(again), preferences.add(again)] == [0, 1]
    preferences.start_run()
    assert preferences.add(again) == 0
    assert preferences.agreement(0, 1).common == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdicts": None}, "key 'verdicts'"),
        (
            {"pairs": [{"chosen": "x", "rejected": "y", "chosen_key": "response_7", "rejected_key": "response_0"}]},
            "'response_7'",
        ),
        ({"candidates": []}, "'pairs'"),
    ],
)
def test_a_row_of_another_kind_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], message: str):
    path = tmp_path / "rows.jsonl"
    good = row(1, ["x", "y"], [(0, 1)], both_orders(0, 1))
    write_jsonl(path, [good, {**good, **change}])
    with pytest.raises(FormatError, match=f"{path}:2: .*{message}"):
        list(read_judged(path))
    good["verdicts"][0]["shown"] = [0, 5]
    write_jsonl(path, [good], overwrite=True)
    with pytest.raises(FormatError, match=r"'verdicts': .* 5, there are 2"):
        list(read_judged(path))


def test_the_rows_of_a_run_are_audited_as_they_are(tmp_path: Path):
    path = tmp_path / "cai_comparisons.jsonl"
    judge = multiple_choice(JudgeSettings(constitution=load_constitution(packaged()), pairs="all"))
    summary = asyncio.run(
        generate_comparisons(
            (Prompt.of(Conversation.of_user(f"question {number}")) for number in range(12)),
            ComparisonPipeline(
                ScriptedClient(), ScriptedClient(name="judge"), judge, Sampling(), (0.5, 1.0, 1.5), seed=1234
            ),
            out_path=path,
            journal_path=tmp_path / "journal",
            run=RunSettings(),
        )
    )
    audit = Audit()
    for judged in read_judged(path):
        audit.add(judged)
    counts = summary.facts
    assert audit.rows == 12
    assert (audit.all.pairs, audit.pairs, audit.all.kept) == (36, counts[KEPT], counts[KEPT])
    assert audit.all.flips.total == counts[FLIPS] and audit.all.first.total == counts[FIRST]
    assert len(audit.principles) > 5


def call(*args: object) -> int:
    parser = Parser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(arg) for arg in args]))


def test_the_command_shows_and_writes_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, other, report = tmp_path / "one.jsonl", tmp_path / "other.jsonl", tmp_path / "report.json"
    rows = [row(n, ["x", "yyy"], [(1, 0)], both_orders(1, 0), principle="\x1b[31m") for n in range(8)]
    write_jsonl(one, [*rows, row(8, ["x", "yyy"], [], ALWAYS_A, principle="\x1b[31m")])
    write_jsonl(other, rows[:6])
    assert call(one, other, "--json", report) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[31m" in out, "what a file says to a terminal is shown, not sent"
    for name, value in (
        ("prompts", "9"),
        ("prompts without a kept pair", "1"),
        ("kept pairs", "8"),
        ("length ratio, chosen to rejected", "3.00 [3.00, 3.00]"),
        ("first text by chance, %", "50.0"),
        ("verdict flips, %", "11.1 [2.0, 43.5]"),
    ):
        assert any(
            line.startswith(f"{name} ") and line.split(name)[1].strip() == value for line in out.splitlines()
        ), name
    written = json.loads(report.read_text())
    assert [run["pairs"] for run in written["runs"]] == [8, 6]
    assert written["runs"][0]["chosen_is_longer"]["value"] == 1.0
    assert written["runs"][0]["principles"]["\x1b[31m"]["decided"] == 8
    (agreement,) = written["agreement"]
    assert agreement["files"] == [str(one), str(other)]
    assert (agreement["common"], agreement["same_preference"]["value"]) == (6, 1.0)
    with pytest.raises(UsageError, match="already exists"):
        call(one, "--json", report)


def test_preferences_are_exported_for_inverse_cai(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, exported = tmp_path / "one.jsonl", tmp_path / "pairs.csv"
    rows = [row(n, [f"x, {n}", f'"y"\n{n}'], [(n % 2, 1 - n % 2)], both_orders(n % 2, 1 - n % 2)) for n in range(30)]
    write_jsonl(path, [*rows, row(99, ["x", "y"], [], ALWAYS_A)])
    assert call(path, "--icai", exported) == 0
    assert f"{exported}: 31 rows in = 30 written + 1 skipped" in capsys.readouterr().out
    with exported.open(newline="", encoding="utf-8") as handle:
        written = list(csv.DictReader(handle))
    assert {line["input"]: line[line["preferred_text"]] for line in written} == {
        f"question {n}": [f"x, {n}", f'"y"\n{n}'][n % 2] for n in range(30)
    }
    assert {line["preferred_text"] for line in written} == {"text_a", "text_b"}
    with pytest.raises(UsageError, match="csv"):
        call(path, "--icai", tmp_path / "pairs.txt")


def test_a_file_without_a_row_is_an_error(tmp_path: Path):
    (tmp_path / "empty.jsonl").touch()
    parser = Parser()
    command.add_arguments(parser)
    with pytest.raises(FormatError, match=r"empty\.jsonl: has no rows"):
        command.run(parser.parse_args([str(tmp_path / "empty.jsonl")]))
