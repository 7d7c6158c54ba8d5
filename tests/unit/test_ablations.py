# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The arms, the steps that they share, and the figures: all that is not a training run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.ablations import __main__ as command
from benchmarks.ablations.arms import ARMS, BASE, Arm, chosen
from benchmarks.ablations.facts import seconds
from benchmarks.ablations.findings import COMPARISONS, Comparison, Expected, compare
from benchmarks.ablations.page import rate_of
from benchmarks.ablations.running import replies_file, run_arms, run_folder, take_over
from benchmarks.ablations.scores import (
    HARM,
    HARM_OTHERS,
    HARM_PERMITTED,
    JUDGE,
    METRICS,
    Measured,
    judge_scores,
    revision_scores,
    text_name,
)
from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.constitution import load_constitution
from nemo_aligner_cai.constitution.prompt_templates import load_prompt_templates
from nemo_aligner_cai.data.judged_row import Candidate, JudgedPair, JudgedRow
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import write_json, write_jsonl
from nemo_aligner_cai.pipeline.config import RunConfig, load_run_config
from nemo_aligner_cai.pipeline.layout import PPO, SFT
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache
from nemo_aligner_cai.tiny.language import Request, language


@pytest.fixture(scope="module")
def base() -> RunConfig:
    return load_run_config(packaged_files.QUICKSTART)


# The table of arms.


def _changed(one: Any, other: Any, key: str = "") -> set[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        first, second = cast(dict[str, Any], one), cast(dict[str, Any], other)
        return {
            found
            for name in first | second
            for found in _changed(first.get(name), second.get(name), f"{key}.{name}".removeprefix("."))
        }
    return set() if one == other else {key}


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_an_arm_changes_the_keys_that_it_names_and_no_others(arm: Arm, base: RunConfig) -> None:
    changed = _changed(base.model_dump(), arm.configure(base).model_dump())
    assert changed == {*arm.change, *arm.overrides}


def test_an_arm_with_a_key_that_is_not_there_is_refused(base: RunConfig) -> None:
    for arm in (Arm("a", "", change={"rl_cai.margins": 0}), Arm("a", "", overrides={"ppo.actors": ("a=1",)})):
        with pytest.raises(UsageError, match=r"no key '(rl_cai.margins|ppo.actors)'"):
            arm.configure(base)


def test_more_overrides_of_a_trainer_come_last_so_that_they_win(base: RunConfig) -> None:
    given = Arm("a", "", overrides={"ppo.actor": ("trainer.ppo.max_steps=5",)}).configure(base).trainers["ppo.actor"]
    assert given.overrides[-1] == "trainer.ppo.max_steps=5" and len(given.overrides) > 10


def test_every_arm_shares_steps_of_an_earlier_one() -> None:
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names) and names[0] == BASE
    for number, arm in enumerate(ARMS):
        assert (arm.shares in names[:number]) if number else arm.shares is None


def test_the_one_principle_is_the_first_of_the_tiny_constitution() -> None:
    [arm] = chosen(["one_principle"])[1:]
    one, whole = (load_constitution(path) for path in (arm.change["models.constitution"], packaged_files.CONSTITUTION))
    assert one.principles == whole.principles[:1]
    assert load_prompt_templates(arm.change["models.constitution"]) == load_prompt_templates(
        packaged_files.CONSTITUTION
    )


def test_named_arms_bring_those_that_they_share_steps_of() -> None:
    assert [arm.name for arm in chosen(["revisions_3"])] == [BASE, "revisions_2", "revisions_3"]
    assert [arm.name for arm in chosen(["biased_one_order"])] == [BASE, "biased_two_orders", "biased_one_order"]
    assert chosen([]) == list(ARMS)
    with pytest.raises(UsageError, match=r"'revisions_5'.*revisions_4"):
        chosen(["revisions_5"])


def test_every_comparison_is_of_figures_that_arms_have_and_every_arm_is_compared() -> None:
    revised = {"base": 1, "direct": 1, "one_principle": 1, "revisions_2": 2, "revisions_3": 3, "revisions_4": 4}
    metrics = (*METRICS, HARM_PERMITTED, HARM_OTHERS)
    there = {Measured(arm.name, model, metric) for arm in ARMS for model in arm.models for metric in metrics}
    there |= {one._replace(of=f"{one.of}, greedy") for one in there}
    there |= {Measured(arm.name, JUDGE, "accuracy") for arm in ARMS if arm.last != SFT}
    there |= {Measured(arm, text_name(n), HARM) for arm, count in revised.items() for n in range(count + 1)}
    used = {one for comparison in COMPARISONS for one in (comparison.arm, comparison.baseline)}
    assert used <= there
    assert {one.arm for one in used} == {arm.name for arm in ARMS}
    assert all(bool(one.expected) == bool(one.finding) == bool(one.source) for one in COMPARISONS)
    assert [one.expected for one in COMPARISONS if one.is_control] == [
        "lower",
        *(["not lower", "lower", "higher", "not higher", "higher"] * 2),
    ]


# Shared steps.


class Work:
    """Steps that count how often they were done, and keep a journal."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.journals: list[str] = []

    def step(self, name: str, folder: Path, **settings: Any) -> Step:
        def work(own: Path) -> Mapping[str, Any]:
            self.done.append(name)
            journal = own / "calls.journal.jsonl"
            self.journals.append(journal.read_text() if journal.exists() else "")
            journal.write_text(f"{self.journals[-1]}{name} {settings}")
            (own / "out").write_text(f"{name} {settings}")
            return {}

        reads = (folder / "1_first" / "out",) if name != "1_first" else ()
        return Step(name, name, reads=reads, makes=("out",), settings=settings, work=work)

    def run(self, folder: Path, **settings: Any) -> None:
        cache = StepCache(folder)
        cache.run(self.step("1_first", folder))
        cache.run(self.step("2_second", folder, **settings))


def test_steps_that_are_the_same_are_taken_over_and_of_the_others_the_journal(tmp_path: Path) -> None:
    source, target, work = tmp_path / "base", tmp_path / "arm", Work()
    work.run(source, margin=1)
    StepCache(target)
    assert take_over(source, target, ["1_first", "2_second", "3_third"]) == ["1_first", "2_second"]
    work.run(target, margin=0)
    assert work.done == ["1_first", "2_second", "2_second"]
    assert work.journals[-1] == "2_second {'margin': 1}", "its calls are reused where they are the same"
    assert (target / "2_second" / "out").read_text() == "2_second {'margin': 0}"
    assert (source / "2_second" / "out").read_text() == "2_second {'margin': 1}"
    assert (source / "2_second" / "calls.journal.jsonl").read_text() == "2_second {'margin': 1}"


def test_what_is_done_is_neither_taken_over_nor_run_again(tmp_path: Path) -> None:
    source, target, work = tmp_path / "base", tmp_path / "arm", Work()
    work.run(source, margin=1)
    for _ in range(2):
        take_over(source, target, ["1_first", "2_second"])
        work.run(target, margin=0)
    assert take_over(source, target, ["1_first", "2_second"]) == []
    assert len(work.done) == 3


def test_a_step_that_is_not_finished_is_not_taken_over(tmp_path: Path) -> None:
    source, target, work = tmp_path / "base", tmp_path / "arm", Work()
    work.run(source)
    (source / "2_second" / "step.json").unlink()
    assert take_over(source, target, ["1_first", "2_second"]) == ["1_first"]


def test_an_interrupted_copy_leaves_no_step_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, work = tmp_path / "base", tmp_path / "arm", Work()
    work.run(source)

    def fails(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", fails)
        with pytest.raises(OSError, match="no space"):
            take_over(source, target, ["1_first"])
    assert not (target / "1_first").exists()
    assert take_over(source, target, ["1_first"]) == ["1_first"]
    assert [path.name for path in target.iterdir()] == ["1_first"]


def test_a_shared_step_is_counted_once(tmp_path: Path) -> None:
    first, other = ({"step": "1_data", "inputs": name, "seconds": number} for name, number in (("a", 2.0), ("b", 5.0)))
    for place, record in (("runs/base", first), ("runs/arm", first), ("runs/third", other)):
        (tmp_path / place / "1_data").mkdir(parents=True)
        write_json(tmp_path / place / "1_data" / "step.json", record)
    (tmp_path / "replies" / "base.sl_cai").mkdir(parents=True)
    write_json(tmp_path / "replies" / "base.sl_cai" / "step.json", {"step": "s", "inputs": "c", "seconds": 1.0})
    assert seconds(tmp_path) == 8.0


# Scores.


def _requests(count: int, *, harmful: bool) -> list[Request]:
    return language().distinct_requests(1, ("test",), count, harmful=harmful)


def _revisions(path: Path, harms: list[list[bool]]) -> None:
    """Rows of SL-CAI whose texts help with harm or refuse it."""
    rows: list[dict[str, Any]] = []
    for number, (request, own) in enumerate(zip(_requests(len(harms), harmful=True), harms, strict=True)):
        answer, *revised = (request.deed.help() if harm else request.deed.right_refusal() for harm in own)
        texts = {"principle": "p", "critique_request": "", "critique": "", "revision_request": ""}
        rows.append(
            {
                "id": f"id{number}",
                "prompt": request.conversation.to_messages(),
                "response": answer,
                "critique": "",
                "revision": revised[-1],
                "principle": "p",
                "rounds": [texts | {"revision": text} for text in revised],
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows, overwrite=True)


def test_the_harm_of_each_revision_is_that_of_its_text(tmp_path: Path) -> None:
    path = tmp_path / "revisions.jsonl"
    _revisions(path, [[True, True, False], [True, False, False], [True, True, True], [False, False, False]])
    rates = [rate_of(scores) for scores in revision_scores(path)]
    assert [rate and (rate.value, rate.n) for rate in rates] == [(0.75, 4), (0.5, 4), (0.25, 4)]


def test_a_prompt_without_a_deed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "revisions.jsonl"
    row = {"id": "a", "prompt": [{"role": "user", "content": "hello"}], "response": "", "revision": ""}
    write_jsonl(path, [row | {"principle": "p", "rounds": []}])
    with pytest.raises(CaiError, match="not a request of the tiny language: 'hello'"):
        revision_scores(path)


def _judged(path: Path, labels: list[list[bool]]) -> None:
    """Rows of RL-CAI with pairs whose label is right or wrong, and one pair of two equally good texts each."""
    rows: list[dict[str, Any]] = []
    for number, (request, own) in enumerate(zip(_requests(len(labels), harmful=True), labels, strict=True)):
        good, bad = request.deed.right_refusal(), request.deed.help()
        pairs = [*((good, bad) if right else (bad, good) for right in own), (good, f" {good}")]
        keys = {good: "good", bad: "bad", f" {good}": "same"}
        candidates = tuple(Candidate(key, text) for text, key in keys.items())
        kept = tuple(JudgedPair(a, b, keys[a], keys[b], 0.9, "p", "") for a, b in pairs)
        rows.append(JudgedRow(f"id{number}", request.conversation, candidates, kept, ()).to_row())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows, overwrite=True)


def test_the_judge_is_right_where_the_chosen_text_is_less_harmful(tmp_path: Path) -> None:
    path = tmp_path / "comparisons.jsonl"
    _judged(path, [[True, False], [True], []])
    assert judge_scores(path) == {"id0": [1.0, 0.0], "id1": [1.0]}


# Statistics.


def _comparison(expected: Expected | None) -> Comparison:
    return Comparison("a against b", Measured("a", "rl_cai", HARM), Measured("b", "rl_cai", HARM), expected)


@pytest.mark.parametrize(
    ("hits", "expected", "verdict"),
    [
        ((5, 50), "lower", "agrees"),
        ((50, 5), "lower", "disagrees"),
        ((50, 52), "lower", "no difference seen"),
        ((50, 5), "higher", "agrees"),
        ((5, 50), "higher", "disagrees"),
        ((50, 52), "higher", "no difference seen"),
        ((5, 50), "not lower", "disagrees"),
        ((50, 52), "not lower", "agrees"),
        ((50, 5), "not lower", "agrees"),
        ((5, 50), "not higher", "agrees"),
        ((50, 5), "not higher", "disagrees"),
        ((50, 52), "unchanged", "agrees"),
        ((50, 5), "unchanged", "disagrees"),
        ((5, 50), "unchanged", "disagrees"),
        ((5, 50), None, "no claim"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(hits: tuple[int, int], expected: Expected, verdict: str) -> None:
    comparison = _comparison(expected)
    scores = {
        one: {str(prompt): [float(prompt < count)] for prompt in range(100)}
        for one, count in zip((comparison.arm, comparison.baseline), hits, strict=True)
    }
    found = compare(comparison, scores)
    assert found.verdict == verdict
    assert (found.arm, found.baseline) == (hits[0] / 100, hits[1] / 100)
    assert found.difference.value == pytest.approx((hits[0] - hits[1]) / 100)


def test_only_prompts_that_both_have_are_compared() -> None:
    comparison = _comparison("lower")
    scores = {comparison.arm: {"x": [0.0], "y": [0.0], "z": [1.0]}, comparison.baseline: {"x": [1.0], "y": [1.0]}}
    found = compare(comparison, scores)
    assert (found.arm, found.baseline, found.difference.prompts, found.difference.only_first) == (0.0, 1.0, 2, 1)


# The command.


def _write_arm(output: Path, arm: str, harm: Mapping[str, float]) -> None:
    """The files of an arm whose models comply with a share of the harmful requests, and help with all benign ones."""
    folder = run_folder(output, arm)
    _revisions(folder / "2_sl_cai" / "revisions.jsonl", [[True, False]] * 20)
    _judged(folder / "4_rl_cai" / "comparisons.jsonl", [[True]] * 20)
    actor = folder / PPO / "train" / "metrics.jsonl"
    actor.parent.mkdir(parents=True)
    write_jsonl(actor, [{"step": n, "train_rollouts/rewards": float(n)} for n in range(20)])
    for model, share in harm.items():
        rows = [
            {
                "messages": request.conversation.to_messages(),
                "reply": "",
                "outcome": "helps" if not harmful else "complies" if number < 100 * share else "right_refusal",
                "harmful": harmful,
            }
            for harmful in (True, False)
            for number, request in enumerate(_requests(100, harmful=harmful))
        ]
        for decoding in ("sampled", "greedy"):
            path = replies_file(output, arm, model, decoding)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, rows)


@pytest.mark.parametrize(("shuffled", "code"), [(0.42, 0), (0.05, 1)])
def test_the_command_fails_unless_shuffled_labels_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shuffled: float, code: int
) -> None:
    ran: list[str] = []

    def run_arms(
        arms: Sequence[Arm], base: RunConfig, output: Path, *, workers: int
    ) -> Iterator[tuple[Arm, str | None]]:
        assert base.data.tiny and base.data.tiny.measure == command.MEASURED and base.seed == 3 and workers == 2
        for arm in arms:
            ran.append(arm.name)
            harm = {"sl_cai": 0.4, "rl_cai": 0.05} if arm.name == BASE else {"rl_cai": shuffled}
            _write_arm(output, arm.name, harm)
            yield arm, None

    monkeypatch.setattr(command, "run_arms", run_arms)
    assert command.main(["--output", str(tmp_path), "seed=3", "--arms", "shuffled"]) == code
    assert ran == [BASE, "shuffled"]
    written = json.loads((tmp_path / "ablations.json").read_text())
    controls = [one for one in written["comparisons"] if one["is_control"]]
    real, drawn, labels, *greedy = controls
    assert [one["verdict"] for one in greedy] == [drawn["verdict"], labels["verdict"]]
    assert (real["verdict"], drawn["verdict"]) == ("agrees", "agrees" if not code else "disagrees")
    assert labels["verdict"] == ("agrees" if not code else "no difference seen")
    assert real["difference"]["value"] == pytest.approx(-0.35) and real["difference"]["high"] < 0
    assert written["arms"][BASE] == {
        "title": "quickstart",
        "pairs": 40,
        "reward_accuracy": None,
        "reward": 14.5,
        "kl": None,
    }
    page = (tmp_path / "ablations.rst").read_text()
    cells = ["* - control: RL-CAI against SL-CAI, the judge's labels", *("  - 5.0", "  - 40.0", "  - -35.0 [-4")]
    assert "\n   ".join(cells) in page and "  - lower (CAI 4.3)\n     - agrees\n" in page
    assert "control: RL-CAI against SL-CAI, shuffled labels" in capsys.readouterr().out
    figure = (tmp_path / "ablations.svg").read_text()
    assert figure.count("<circle") == len(written["comparisons"]) and "shuffled labels, greedy</text>" in figure


def test_an_arm_without_a_result_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_arms(arms: Sequence[Arm], *_: Any, **__: Any) -> Iterator[tuple[Arm, str | None]]:
        for arm in arms:
            if arm.name != "shuffled":
                harm = {"sl_cai": 0.4, "rl_cai": 0.05} if arm.name == BASE else {"rl_cai": 0.1}
                _write_arm(tmp_path, arm.name, harm)
            yield arm, "no pair was kept" if arm.name == "shuffled" else None

    monkeypatch.setattr(command, "run_arms", run_arms)
    assert command.main(["--output", str(tmp_path), "--arms", "shuffled", "margin_0"]) == 1
    assert set(json.loads((tmp_path / "ablations.json").read_text())["arms"]) == {BASE, "margin_0"}
    assert "arm shuffled has no result: no pair was kept" in capsys.readouterr().err


def test_arms_run_in_processes_and_those_that_need_a_failed_one_do_not_run(tmp_path: Path, base: RunConfig) -> None:
    def without_model(name: str, shares: str | None) -> Arm:
        return Arm(name, name, change={"models.base.nemo": tmp_path / "no.nemo"}, shares=shares)

    arms = [without_model("one", None), without_model("two", None), without_model("three", "one")]
    ended = {arm.name: error for arm, error in run_arms(arms, base, tmp_path / "out", workers=2)}
    assert all("no.nemo" in (ended[name] or "") for name in ("one", "two"))
    assert ended["three"] == "one failed, whose steps it takes over"
    assert {path.name for path in (tmp_path / "out" / "logs").iterdir()} == {"one.log", "two.log"}


def test_an_unknown_arm_is_refused_before_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--output", str(tmp_path / "out"), "--arms", "revisions_9"])
    assert "there is no arm 'revisions_9'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
