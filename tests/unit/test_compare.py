# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai compare`: only what differs, paired figures checked by an independent computation, and gates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.made_run import MODELS, STEPS, Sizes, make_run
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation import run as evaluation_run
from nemo_aligner_cai.evaluation.graders import packaged
from nemo_aligner_cai.files import content_hash, read_json, read_jsonl, write_json, write_jsonl
from nemo_aligner_cai.report.comparison.compare import compare
from nemo_aligner_cai.report.comparison.gates import Gate
from nemo_aligner_cai.report.comparison.page import comparison_html
from nemo_aligner_cai.report.comparison.word_diff import changed_share, word_diff
from nemo_aligner_cai.report.run_folder import RunFolder
from tests.paired import expected_difference, expected_mcnemar

_OUTCOME = {
    "harmful_compliance": (True, "complies"),
    "right_refusal": (True, "right_refusal"),
    "flawed_refusal": (True, "flawed_refusal"),
    "evasion": (True, "evades"),
    "helpfulness": (False, "helps"),
    "over_refusal": (False, "over_refuses"),
}


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("a") / "a", Sizes(replies=60))


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory, a: Path) -> Path:
    """Another seed and constitution, 20 more measured prompts, other replies, and one flipped label."""
    folder = make_run(tmp_path_factory.mktemp("b") / "b", Sizes(replies=80))
    record = read_json(folder / "run.json")
    record["settings"]["seed"] = 2
    record["settings"]["ppo"]["actor"].append("model.optim.lr=1e-4")
    first, second, *others = record["constitution"]["principles"]
    renamed = second | {"id": "gentle"}
    record["constitution"]["principles"] = [first | {"judge": "Which is much more harmless?"}, renamed, *others]
    write_json(folder / "run.json", record, overwrite=True)
    rows = [row for _, row in read_jsonl(folder / "4_rl_cai" / "comparisons.jsonl")]
    pair = rows[0]["pairs"][0]
    for one, other in (("chosen", "rejected"), ("chosen_key", "rejected_key")):
        pair[one], pair[other] = pair[other], pair[one]
    write_jsonl(folder / "4_rl_cai" / "comparisons.jsonl", rows[:-1], overwrite=True)
    return folder


def _replies(run: Path, model: str) -> dict[str, dict[str, Any]]:
    rows = (row for _, row in read_jsonl(run / "7_measure" / f"{model}_sampled.jsonl"))
    return {content_hash(row["messages"]): row for row in rows}


def test_only_settings_and_principles_that_differ_are_shown(a: Path, b: Path) -> None:
    found = compare(RunFolder(a), RunFolder(b))
    assert {one.name: (one.a, one.b) for one in found.settings} == {
        "seed": ("1", "2"),
        "ppo.actor": ("trainer.ppo.max_steps=30", "trainer.ppo.max_steps=30\nmodel.optim.lr=1e-4"),
    }
    changed = {one.name: (one.a, one.b) for one in found.principles}
    assert changed["harmless: judge"] == ("Which is more harmless?", "Which is much more harmless?")
    assert changed["kind: judge"] == ("Which is more kind?", None)
    assert changed["gentle: judge"] == (None, "Which is more kind?")
    assert len(changed) == 1 + 3 + 3


def test_a_run_and_itself_have_no_difference(a: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(RunFolder(a), RunFolder(a))
    assert not (found.settings or found.principles or found.rows or found.prompts or found.chains)
    assert found.labels is not None and found.labels.flipped == 0
    assert {one.difference.value for one in found.results} == {0.0}
    assert main(["compare", str(a), str(a), "--fail-if", "harm_rate>+0"]) == 0
    printed = capsys.readouterr().out
    assert "Settings that differ" not in printed and "Results" not in printed


def test_paired_figures_equal_an_independent_computation(a: Path, b: Path) -> None:
    found = {one.key: one for one in compare(RunFolder(a), RunFolder(b)).results}
    assert len(found) == len(MODELS) * len(_OUTCOME)
    for key, one in found.items():
        harmful, outcome = _OUTCOME[key.metric]
        first, second = (_replies(run, key.model) for run in (a, b))
        common = [name for name in first if name in second and first[name]["harmful"] == harmful]
        hits = [(first[name]["outcome"] == outcome, second[name]["outcome"] == outcome) for name in common]
        assert len(hits) == 30 and one.difference.prompts == 30
        assert (one.difference.only_baseline, one.difference.only_first) == (0, 10)
        mean, low, high = expected_difference(hits)
        assert one.difference.value == pytest.approx(mean, abs=1e-12)
        if low is not None:
            assert one.difference.low == pytest.approx(low, abs=1e-9)
            assert one.difference.high == pytest.approx(high, abs=1e-9)
        assert one.p == pytest.approx(expected_mcnemar(hits), abs=1e-12)
        assert one.changed == sum(first != second for first, second in hits)
        assert one.a == pytest.approx(sum(hit for hit, _ in hits) / 30)
        assert one.b == pytest.approx(sum(hit for _, hit in hits) / 30)


def test_flipped_labels_and_prompts(a: Path, b: Path) -> None:
    found = compare(RunFolder(a), RunFolder(b))
    assert found.labels is not None
    row = next(row for _, row in read_jsonl(a / "4_rl_cai" / "comparisons.jsonl"))
    (flip,) = found.labels.flips
    assert (flip.id, flip.chosen_by_a, flip.chosen_by_b) == (
        row["id"],
        row["pairs"][0]["chosen"],
        row["pairs"][0]["rejected"],
    )
    assert found.labels.flipped == 1
    agreement = found.labels.agreement
    assert agreement.rate is not None and agreement.rate.value == pytest.approx(1 - 1 / agreement.common)
    overlaps = {one.stage: (one.both, one.only_a, one.only_b) for one in found.prompts}
    assert overlaps == {"judged": (7, 1, 0), "measured": (60, 0, 20)}


def test_chains_whose_outcome_changed_come_first(a: Path, b: Path) -> None:
    chains = compare(RunFolder(a), RunFolder(b)).chains
    changed = [one.outcome_a != one.outcome_b for one in chains]
    assert len(chains) == 20 and changed == sorted(changed, reverse=True)


def test_no_common_prompt_is_an_error(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_run(tmp_path / "other", Sizes(), seed=7)
    assert main(["compare", str(a), str(other)]) == 2
    assert "no measured prompt is in both" in capsys.readouterr().err


def test_an_unfinished_run_is_compared_as_far_as_it_is(a: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", Sizes(), steps=STEPS[:2])
    found = compare(RunFolder(a), RunFolder(other))
    assert found.results == [] and found.labels is None
    assert any("B is not finished: 5 steps" in note for note in found.notes)
    with pytest.raises(UsageError, match="both runs need results"):
        Gate.parse("harm_rate>+2").failures(found.results, found.scores[1])
    assert "Both runs need measured replies" in comparison_html(found)


@pytest.mark.parametrize(
    ("condition", "fails"),
    [
        ("harmful_compliance>+{above}", False),
        ("harm_rate>+{below}", True),
        ("harm_rate<+{above}", True),
        ("harm_rate < {percent_above}", True),
        ("harm_rate>{percent_above}", False),
        ("help_rate<-100", False),
    ],
)
def test_gates(
    a: Path, b: Path, condition: str, fails: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # A run in which the last model complies with more.
    worse = Path(shutil.copytree(b, tmp_path / "worse"))
    rows = list(_replies(b, "rl_cai").values())
    for row in rows:
        row["outcome"] = "complies" if row["harmful"] else row["outcome"]
    write_jsonl(worse / "7_measure" / "rl_cai_sampled.jsonl", rows, overwrite=True)
    one = next(
        one
        for one in compare(RunFolder(a), RunFolder(worse)).results
        if one.key.model == "rl_cai" and one.key.metric == "harmful_compliance"
    )
    assert one.b == 1.0 and one.difference.value > 0.2
    points = 100 * one.difference.value
    text = condition.format(above=f"{points + 1:.3f}", below=f"{points - 1:.3f}", percent_above="100.5")
    assert main(["compare", str(a), str(worse), "--fail-if", text]) == int(fails)
    assert ("failed:" in capsys.readouterr().err) == fails


def test_a_rate_at_the_limit_does_not_fail(tmp_path: Path) -> None:
    # 100 * 0.07 > 7 and 100 * 0.29 < 29 in floating point.
    _evaluate(tmp_path / "a", m=7)
    _evaluate(tmp_path / "b", m=29)

    def fails(condition: str, a: str, b: str) -> bool:
        found = compare(RunFolder(tmp_path / a), RunFolder(tmp_path / b))
        return bool(Gate.parse(condition).failures(found.results, found.scores[1]))

    assert not fails("over_refusal>7", "b", "a") and fails("over_refusal>6.9", "b", "a")
    assert not fails("over_refusal<-22", "b", "a") and fails("over_refusal<-21.9", "b", "a")
    assert not fails("over_refusal<29", "a", "b") and fails("over_refusal<29.1", "a", "b")


def test_the_last_model_of_b_is_checked_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate(tmp_path / "a", base=10, v1=20)
    _evaluate(tmp_path / "b", base=10, v2=100)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    capsys.readouterr()
    assert main(["compare", a, b, "--fail-if=over_refusal>+2"]) == 2
    assert "cannot be checked for v2, B's last model (own, benign" in capsys.readouterr().err
    assert main(["compare", a, b, "--fail-if=over_refusal>99"]) == 1
    printed = capsys.readouterr()
    assert "over_refusal>99: 100.0 % for v2 (own, benign, graded by xstest-strings, 100 prompts)" in printed.err
    assert "Only A has results of v1 (own, benign" in printed.out and "Only B has results of v2 (own" in printed.out


def test_a_group_that_a_relative_condition_cannot_check_is_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _evaluate(tmp_path / "a", m=10)
    _evaluate(tmp_path / "b", m=10)
    rows = [{"prompt": f"New {n} ?", "side": "benign", "completion": "Sure."} for n in range(9)]
    write_jsonl(tmp_path / "new.jsonl", rows)
    flags = ["--set", f"new={tmp_path / 'new.jsonl'}", "--set", f"own={tmp_path / 'a.prompts.jsonl'}"]
    every = [row for _, row in read_jsonl(tmp_path / "a.m.jsonl")] + rows
    write_jsonl(tmp_path / "every.jsonl", ({key: row[key] for key in ("prompt", "completion")} for row in every))
    both = [*flags, "--grader=xstest-strings", f"--model=m={tmp_path / 'every.jsonl'}"]
    assert main(["evaluate", *both, f"--output={tmp_path / 'more'}"]) == 0
    capsys.readouterr()
    compared = ["compare", str(tmp_path / "a"), str(tmp_path / "more")]
    assert main([*compared, "--fail-if=over_refusal>+2"]) == 2
    assert "m, B's last model (new, benign, graded by xstest-strings): A has no result" in capsys.readouterr().err
    assert main([*compared, "--fail-if=over_refusal>20"]) == 0


def test_a_model_whose_calls_all_failed_is_not_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate(tmp_path / "a", m=10, last=10)
    b = Path(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    grades = [row for _, row in read_jsonl(b / "grades.jsonl") if row["model"] != "last"]
    write_jsonl(b / "grades.jsonl", grades, overwrite=True)
    for condition in ("over_refusal>+2", "over_refusal>2"):
        assert main(["compare", str(tmp_path / "a"), str(b), "--fail-if", condition]) == 2
        assert "last, B's last model (own, benign, graded by xstest-strings): none of" in capsys.readouterr().err


def test_a_grader_counts_what_its_own_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grader = yaml.safe_load((Path(packaged.__file__).parent / "xstest-strings.yaml").read_text(encoding="utf-8"))
    _evaluate(tmp_path / "a", m=10)
    for name, changes in (("b", {"refuses": ["full_compliance"]}), ("c", {"name": "own"})):
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(grader | changes), encoding="utf-8")
        _evaluate(tmp_path / name, path, m=10)
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--format=json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    [found] = [one for one in printed["results"] if one["metric"] == "over_refusal"]
    assert (found["a"], found["b"]) == (0.1, 0.9)
    assert "grader.xstest-strings.sha256" in {one["name"] for one in printed["settings"]}
    c = str(tmp_path / "c")
    assert main(["compare", c, c, "--format=json", "--fail-if=over_refusal>9"]) == 1
    assert {one["metric"] for one in json.loads(capsys.readouterr().out)["results"]} == {"over_refusal", "helpfulness"}


def _evaluate(output: Path, grader: str | Path = "xstest-strings", /, **refused: int) -> None:
    """Evaluate models that refuse so many of 100 benign prompts."""
    prompts = [f"Question {n} ?" for n in range(100)]
    asked = output.with_suffix(".prompts.jsonl")
    write_jsonl(asked, [{"prompt": prompt, "side": "benign"} for prompt in prompts])
    flags = [f"--set=own={asked}", f"--grader={grader}", f"--output={output}"]
    for name, count in refused.items():
        replies = ("I'm sorry, but no." if number < count else "Sure." for number in range(100))
        rows = ({"prompt": prompt, "completion": reply} for prompt, reply in zip(prompts, replies, strict=True))
        write_jsonl(output.with_suffix(f".{name}.jsonl"), rows)
        flags.append(f"--model={name}={output.with_suffix(f'.{name}.jsonl')}")
    assert main(["evaluate", *flags]) == 0


def test_two_evaluations_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _evaluate(tmp_path / "a", m=10)
    _evaluate(tmp_path / "b", m=30)
    _evaluate(tmp_path / "c", other=10)
    a, b, c = (str(tmp_path / name) for name in "abc")
    capsys.readouterr()
    assert main(["compare", a, b, "--format=json", "--fail-if=over_refusal_rate>+19.9"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["notes"] == []
    assert [(one["model"], one["metric"], one["a"], one["b"]) for one in printed["results"]] == [
        ("m", "helpfulness", 0.9, 0.7),
        ("m", "over_refusal", 0.1, 0.3),
    ]
    assert {one["name"] for one in printed["settings"]} == {"model.m.source", "model.m.sha256", "set.own.file"}
    assert len(printed["chains"]) == 20
    assert all(one["outcome_a"] != one["outcome_b"] for one in printed["chains"])
    assert printed["chains"][0]["text"] == "reply of m, own"
    assert main(["compare", a, a]) == 0
    assert "no difference" in capsys.readouterr().out
    assert main(["compare", a, c]) == 2
    assert "A has m (own, benign, graded by xstest-strings); B has other (own" in capsys.readouterr().err


def test_an_evaluation_that_was_interrupted_while_it_wrote_is_refused_until_it_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _evaluate(tmp_path / "whole", m=10)
    _evaluate(tmp_path / "b", m=10)
    folder = str(tmp_path / "b")
    replies = tmp_path / "b.m.jsonl"
    replies.write_text(replies.read_text(encoding="utf-8").replace("Sure.", "I'm sorry, but no."), encoding="utf-8")
    flags = [f"--set=own={tmp_path / 'b.prompts.jsonl'}", "--grader=xstest-strings", f"--output={folder}"]
    flags.append(f"--model=m={replies}")

    def killed(*args: object, **kwargs: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation_run, "write_json", killed)
        assert main(["evaluate", *flags, "--overwrite"]) != 0
    for command in (["report", folder], ["compare", folder, str(tmp_path / "whole")], ["compare", folder, folder]):
        capsys.readouterr()
        assert main(command) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert folder in line and "--resume" in line
    assert main(["evaluate", *flags, "--resume"]) == 0
    assert main(["compare", str(tmp_path / "whole"), folder, "--fail-if=over_refusal_rate>+80"]) == 1


@pytest.mark.parametrize("text", ["harm_rate", "harm_rate>x", "harm_rate>=2", "nothing>+2", ""])
def test_a_wrong_condition_is_refused(a: Path, b: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(a), str(b), "--fail-if", text]) == 2
    assert "--fail-if" in capsys.readouterr().err


def test_json_for_programs(a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(a), str(b), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {
        *("a", "b", "notes", "settings", "principles"),
        *("rows", "prompts", "labels", "results", "chains"),
    }
    assert printed["labels"]["flipped"] == 1
    target = tmp_path / "compared.json"
    assert main(["compare", str(a), str(b), "--format", "json", "--output", str(target)]) == 0
    assert json.loads(target.read_text()) == printed
    assert main(["compare", str(a), str(b), "--format", "json", "--output", str(target)]) == 2
    assert main(["compare", str(a), str(b), "--format", "html"]) == 2


def test_html_without_a_script_and_with_hostile_texts(a: Path, tmp_path: Path) -> None:
    hostile = ["<script>alert(1)</script>\u202e\x1b[2J", "w" * 1_000_000] * 100
    b = make_run(tmp_path / "b", Sizes(replies=60), seed=1)
    rows = [row | {"reply": text} for row, text in zip(_replies(b, "rl_cai").values(), hostile, strict=False)]
    write_jsonl(b / "7_measure" / "rl_cai_sampled.jsonl", rows, overwrite=True)
    html = comparison_html(compare(RunFolder(a), RunFolder(b)))
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert "\u202e" not in html and "\x1b" not in html
    assert "<ins>" in html and "<del>" in html
    assert len(html) < 2_000_000


def test_a_terminal_gets_no_escape(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = make_run(tmp_path / "b", Sizes(replies=60))
    record = read_json(b / "run.json")
    record["constitution"]["principles"][0]["judge"] = "\x1b[2J\u202e<script>"
    write_json(b / "run.json", record, overwrite=True)
    assert main(["compare", str(a), str(b)]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[2J\\u202e<script>" in printed and "\x1b" not in printed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Is it kind ?", "Is it lawful and kind ?"),
        ("", "new"),
        ("old", ""),
        ("a b c d", "d c b a"),
        ("one  two\nthree", "one two\n\nthree."),
        ("w " * 5000, "v " * 5000),
    ],
)
def test_word_differences_hold_both_texts(before: str, after: str) -> None:
    changes = word_diff(before, after)
    assert "".join(text for kind, text in changes if kind != "added") == before
    assert "".join(text for kind, text in changes if kind != "dropped") == after


def test_changed_share() -> None:
    assert changed_share("a b c", "a b c") == changed_share("", "") == 0
    assert changed_share("a b", "c d") == 1
    assert changed_share("a b", "a c") == 0.5
