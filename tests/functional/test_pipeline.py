# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The seven steps as a user runs them, small: real servers, the real trainers, killed in every step and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.evaluation.results import read_evaluation
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.pipeline.step_cache import StepCache
from nemo_aligner_cai.report.comparison.compare import compare
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.scores import Key
from tests.functional.small_run import COMPARED, SIZES, STEP_TIMEOUT_S, Runs, check_files, small_config
from tests.paired import expected_difference, expected_mcnemar
from tests.run_steps import STEPS


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, runs: Runs) -> tuple[Path, Path, str]:
    """(configuration, output, what was printed) of one uninterrupted run."""
    folder = tmp_path_factory.mktemp("pipeline")
    config = small_config(folder)
    printed = runs.finish(config, folder / "run")
    return config, folder / "run", printed


def test_it_ends_with_the_table_the_models_and_how_to_talk_to_the_last_one(
    finished: tuple[Path, Path, str], runs: Runs
) -> None:
    _, output, printed = finished
    for words in ("complies", "refuses rightly", "helpful-only", "SL-CAI", "RL-CAI", "sampled", "greedy", "cai chat"):
        assert words in printed
    for step in ("3_sft", "5_reward_model", "6_ppo"):
        assert str(output / step / "model.nemo") in printed
        assert (output / step / "model.nemo").stat().st_size > 1_000_000
    assert str(output / "report.html") in printed
    assert "7 of 7 steps" in (output / "report.html").read_text(encoding="utf-8")
    assert "leaked" not in printed
    for shown in (
        r"sft: step 1 of 20: train/loss [\d.]+\n",
        r"sft: step 20 of 20: train/loss [\d.]+\n",
        r"reward model: step 12 of 12: train/loss [\d.]+\n",
        r"ppo actor: step 4 of 4: train_rollouts/rewards -?[\d.]+\n",
    ):
        assert re.search(shown, printed), printed
    assert "[NeMo" not in printed and "Training steps" not in printed, "NeMo's own output is in the logs"
    runs.assert_none_left()


def test_metrics_for_programs(finished: tuple[Path, Path, str]) -> None:
    metrics = json.loads((finished[1] / "metrics.json").read_text())
    for stage in ("helpful_only", "sl_cai", "rl_cai"):
        for decoding in ("sampled", "greedy"):
            figures = metrics["stages"][stage][decoding]
            assert set(figures) == {
                *("harmful_compliance", "right_refusal", "flawed_refusal"),
                *("evasion", "helpfulness", "over_refusal"),
            }
            for figure in figures.values():
                assert figure["n"] == SIZES["measure"]
                assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert metrics["stages"]["helpful_only"]["greedy"]["harmful_compliance"]["value"] >= 0.9
    assert metrics["stages"]["helpful_only"]["greedy"]["helpfulness"]["value"] >= 0.9
    assert (
        metrics["stages"]["sl_cai"]["greedy"]["harmful_compliance"]["value"]
        < metrics["stages"]["helpful_only"]["greedy"]["harmful_compliance"]["value"]
    )
    assert metrics["judge"]["accuracy"] >= 0.85
    assert metrics["judge"]["position_flip_rate"] < 0.5 and 0.2 < metrics["judge"]["first_position_rate"] < 0.8
    assert 0 < metrics["reward_model"]["accuracy"] <= 1
    assert metrics["seconds"] > 0
    assert 500 < metrics["peak_rss_mb"] < 12_288
    assert metrics["versions"]["nemo_aligner"] == "0.7.0"


def test_every_file_passes_its_validator_and_every_row_is_accounted_for(finished: tuple[Path, Path, str]) -> None:
    check_files(finished[1])


def test_a_second_run_repeats_nothing(finished: tuple[Path, Path, str], runs: Runs) -> None:
    config, output, _ = finished
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.nemo")}
    metrics = (output / "metrics.json").read_bytes()
    printed = runs.finish(config, output)
    assert printed.count("done before") == len(STEPS)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.nemo")} == before
    assert (output / "metrics.json").read_bytes() == metrics


def test_a_step_that_is_done_may_be_started_again_while_another_runs(
    finished: tuple[Path, Path, str], runs: Runs
) -> None:
    config, output, _ = finished
    with StepCache(output).locked():
        for step in (STEPS[0], STEPS[-1]):
            assert "done before" in runs.finish(config, output, "--step", step)


def test_the_printed_commands_make_the_same_files(
    finished: tuple[Path, Path, str], runs: Runs, tmp_path: Path
) -> None:
    config, output, _ = finished
    printed = runs.finish(config, tmp_path / "run", "--dry-run")
    lines = [line for line in printed.splitlines() if line.startswith("cai run ")]
    assert [line.split()[-1] for line in lines] == list(STEPS)
    # These two make what all others depend on, in seconds.
    pasted = subprocess.run(
        ["bash", "-e"],
        input="\n".join(lines[:2]),
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CAI_TEST_MARK": runs.mark},
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    assert pasted.returncode == 0, pasted.stderr
    made = [path.relative_to(tmp_path / "run") for step in STEPS[:2] for path in (tmp_path / "run" / step).iterdir()]
    same = [path for path in made if path.suffix == ".jsonl" and "journal" not in path.name]
    assert len(same) > 10
    for path in same:
        assert (tmp_path / "run" / path).read_bytes() == (output / path).read_bytes(), path


def test_another_constitution_compared(finished: tuple[Path, Path, str], runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "run"
    constitution = yaml.safe_load(packaged_files.CONSTITUTION.read_text(encoding="utf-8"))
    asked = constitution["principles"][0]["judge"]
    constitution["principles"][0]["judge"] = constitution["principles"][1]["judge"]
    changed = tmp_path / "constitution.yaml"
    changed.write_text(yaml.safe_dump(constitution), encoding="utf-8")
    runs.finish(small_config(tmp_path, models__constitution=str(changed)), output)
    assert (output / "report.html").is_file()
    found = compare(RunFolder(finished[1]), RunFolder(output))
    assert [(one.name, one.b) for one in found.settings] == [("models.constitution", str(changed))]
    wanted = constitution["principles"][0]
    assert [(one.name, one.a, one.b) for one in found.principles] == [
        (f"{wanted['id']}: judge", asked, wanted["judge"])
    ]
    assert found.labels is not None and found.labels.agreement.common > 0
    assert len(found.results) == 2 * 3 * 6, "two decodings, three models, six metrics"
    for one in found.results:
        hits = _hits(finished[1], output, one.key)
        assert len(hits) == one.difference.prompts == SIZES["measure"]
        mean, low, high = expected_difference(hits)
        assert one.difference.value == pytest.approx(mean, abs=1e-12)
        assert low is None or one.difference.low == pytest.approx(low, abs=1e-9)
        assert high is None or one.difference.high == pytest.approx(high, abs=1e-9)
        assert one.p == pytest.approx(expected_mcnemar(hits), abs=1e-12)


def _hits(first: Path, second: Path, key: Key) -> list[tuple[bool, bool]]:
    """For each prompt of both runs, whether its reply counts for a metric, in the first and in the second run."""
    outcome = {
        "harmful_compliance": "complies",
        "evasion": "evades",
        "helpfulness": "helps",
        "over_refusal": "over_refuses",
    }.get(key.metric, key.metric)
    harmful = key.metric not in ("helpfulness", "over_refusal")
    decoding = key.group.removesuffix(" replies")
    runs: list[dict[str, bool]] = []
    for output in (first, second):
        rows = [row for _, row in read_jsonl(output / "7_measure" / f"{key.model}_{decoding}.jsonl")]
        runs.append({str(row["messages"]): row["outcome"] == outcome for row in rows if row["harmful"] == harmful})
    return [(hit, runs[1][prompt]) for prompt, hit in runs[0].items() if prompt in runs[1]]


def test_from_repeats_a_step_and_all_after_it(finished: tuple[Path, Path, str], runs: Runs) -> None:
    config, output, _ = finished
    figures = (output / "7_measure" / "figures.json").read_bytes()
    stamps = {step: (output / step / "step.json").stat().st_mtime_ns for step in STEPS}
    printed = runs.finish(config, output, "--from", STEPS[-1])
    assert printed.count("done before") == len(STEPS) - 1
    after = {step: (output / step / "step.json").stat().st_mtime_ns for step in STEPS}
    assert [step for step in STEPS if after[step] != stamps[step]] == [STEPS[-1]]
    assert (output / "7_measure" / "figures.json").read_bytes() == figures


# What a step leaves when it is well under way: answers in its journal, or steps of its trainer. PPO resumes from
# a checkpoint, with the random numbers and the critic that it had there: its third step begins when both have saved.
_UNDER_WAY = (
    *(("sl_prompts.jsonl", ""), ("*.journal.jsonl", ""), ("train/metrics.jsonl", ""), ("*.journal.jsonl", "")),
    *(("train/metrics.jsonl", ""), ("train/metrics.jsonl", '"step": 2, "train_rollouts'), ("*.journal.jsonl", "")),
)


def test_killed_in_every_step_and_resumed_it_ends_with_the_same_bytes(
    finished: tuple[Path, Path, str], tmp_path: Path, runs: Runs
) -> None:
    config, uninterrupted, _ = finished
    output, stamps = tmp_path / "run", dict[str, int]()
    for number, (step, (sign, text)) in enumerate(zip(STEPS, _UNDER_WAY, strict=True)):
        process = runs.start(config, output)
        runs.wait_for(process, output / step, sign, text)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        runs.assert_none_left()
        if step == "6_ppo":
            # As if it had been killed while the actor saved: the critic alone has a checkpoint.
            for checkpoint in (output / step / "train" / "checkpoints").glob("*-last"):
                shutil.rmtree(checkpoint)
        done = [name for name in STEPS if (output / name / "step.json").is_file()]
        assert done in (list(STEPS[:number]), list(STEPS[: number + 1]))
        stamps = {name: (output / name / "step.json").stat().st_mtime_ns for name in done}
    runs.finish(config, output)
    assert {name: (output / name / "step.json").stat().st_mtime_ns for name in stamps} == stamps
    assert next(read_jsonl(output / "6_ppo" / "train" / "metrics.jsonl"))[1]["step"] == 2
    for file in COMPARED:
        assert (output / file).read_bytes() == (uninterrupted / file).read_bytes(), file


def test_a_step_killed_after_its_last_checkpoint_is_trained_anew(
    finished: tuple[Path, Path, str], tmp_path: Path, runs: Runs
) -> None:
    config, uninterrupted, _ = finished
    output = tmp_path / "run"
    for step in STEPS[:2]:
        shutil.copytree(uninterrupted / step, output / step)
    # Upstream, resumed at its last step, trains nothing and saves no model.
    process = runs.start(config, output)
    runs.wait_for(process, output / "3_sft" / "train" / "checkpoints", "*-last/metadata.json")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    runs.assert_none_left()
    runs.finish(config, output)
    assert (output / "metrics.json").is_file()
    assert (output / "4_rl_cai" / "comparisons.jsonl").read_bytes() == (
        uninterrupted / "4_rl_cai" / "comparisons.jsonl"
    ).read_bytes()


def test_the_last_step_evaluates_the_models(finished: tuple[Path, Path, str], runs: Runs, tmp_path: Path) -> None:
    _, output, _ = finished
    copy = tmp_path / "run"
    shutil.copytree(output, copy)
    section = {
        "sets": [{"name": "tiny", "file": "tiny"}],
        "grader": ["tiny"],
        "decoding": {"greedy": True, "max_tokens": 32},
    }
    printed = runs.finish(small_config(tmp_path, evaluate=section), copy)
    assert printed.count("done before") == len(STEPS)
    metrics = json.loads((copy / "metrics.json").read_text())
    rates = {(one["model"], one["metric"], one["side"]): one["value"] for one in metrics["evaluation"]}
    assert len(rates) == 18
    for model, stage in metrics["stages"].items():
        oracle = {name: figure["value"] for name, figure in stage["greedy"].items()}
        assert rates[model, "over_refusal", "benign"] == pytest.approx(oracle["over_refusal"])
        # The grader does not see whether the help is right.
        assert (
            oracle["helpfulness"] - 1e-9 <= rates[model, "helpfulness", "benign"] <= 1 - oracle["over_refusal"] + 1e-9
        )
        refusals = oracle["right_refusal"] + oracle["flawed_refusal"]
        assert rates[model, "refusal", "harmful"] == pytest.approx(refusals)
    assert [one.name for one in read_evaluation(copy / "8_evaluate").models] == ["helpful_only", "sl_cai", "rl_cai"]
