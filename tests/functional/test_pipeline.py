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
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.evaluation.results import read_evaluation
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.pipeline.step_cache import StepCache
from nemo_aligner_cai.report.comparison.compare import compare
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.scores import Key
from nemo_aligner_cai.training.launch.jobs import free_port, server
from tests.functional.small_run import COMPARED, SIZES, STEP_TIMEOUT_S, Runs, small_config
from tests.paired import expected_difference, expected_mcnemar
from tests.run_steps import STEPS


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, runs: Runs) -> tuple[Path, Path, str]:
    """(configuration, output, what was printed) of one uninterrupted run."""
    folder = tmp_path_factory.mktemp("pipeline")
    config = small_config(folder)
    printed = runs.finish(config, folder / "run")
    return config, folder / "run", printed


def _records(output: Path) -> dict[str, dict[str, Any]]:
    return {step: json.loads((output / step / "step.json").read_text()) for step in STEPS}


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
    output = finished[1]
    formats = {
        "sft-chat": ("1_data/helpful_sft.jsonl", "2_sl_cai/train.jsonl", "2_sl_cai/validation.jsonl"),
        "rm-comparisons": ("4_rl_cai/rm_train.jsonl", "4_rl_cai/rm_test.jsonl"),
        "ppo-prompts": ("4_rl_cai/ppo_train.jsonl", "4_rl_cai/ppo_test.jsonl"),
    }
    for name, files in formats.items():
        for file in files:
            assert validate_file(output / file, name).written > 0
    balances = [
        counts
        for record in _records(output).values()
        for counts in [
            *record["facts"].get("balances", {}).values(),
            *([record["facts"]["generation"]["balance"]] if "generation" in record["facts"] else []),
        ]
    ]
    assert len(balances) >= 10
    for counts in balances:
        assert counts["rows_in"] == counts["written"] + sum(counts["left_out"].values())
    train, test = (
        {row["text"] for _, row in read_jsonl(output / f"4_rl_cai/ppo_{split}.jsonl")} for split in ("train", "test")
    )
    assert not train & test


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
    output = tmp_path / "run"
    for number, (step, (sign, text)) in enumerate(zip(STEPS, _UNDER_WAY, strict=True)):
        process = runs.start(config, output)
        _wait_for(output / step, process, sign, text)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        runs.assert_none_left()
        done = [name for name in STEPS if (output / name / "step.json").is_file()]
        assert done in (list(STEPS[:number]), list(STEPS[: number + 1]))
        stamps = {name: (output / name / "step.json").stat().st_mtime_ns for name in done}
    runs.finish(config, output)
    assert {name: (output / name / "step.json").stat().st_mtime_ns for name in stamps} == stamps
    assert next(read_jsonl(output / "6_ppo" / "train" / "metrics.jsonl"))[1]["step"] == 2
    for file in COMPARED:
        assert (output / file).read_bytes() == (uninterrupted / file).read_bytes(), file


def _wait_for(folder: Path, process: subprocess.Popen[str], sign: str, text: str = "") -> None:
    """Wait until the folder has a file whose name matches ``sign``, with content, and with ``text`` in it."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while not any(path.stat().st_size and text in path.read_text("utf-8") for path in folder.glob(sign)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("step", "sign"), [("2_sl_cai", "*.journal.jsonl"), ("3_sft", "train/metrics.jsonl")])
def test_ctrl_c_stops_servers_and_trainers_and_says_how_to_go_on(
    finished: tuple[Path, Path, str], tmp_path: Path, runs: Runs, step: str, sign: str
) -> None:
    process = runs.start(finished[0], tmp_path / "run")
    _wait_for(tmp_path / "run" / step, process, sign)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in printed
    assert "from the unfinished step" in printed
    assert "Traceback" not in printed
    runs.assert_none_left()


def test_a_failing_trainer_ends_the_run_with_its_log(
    finished: tuple[Path, Path, str], tmp_path: Path, runs: Runs
) -> None:
    # Composes, and is refused by the trainer itself: more rows in a batch than there are.
    config = small_config(tmp_path, sft__overrides=["model.data.train_ds.global_batch_size=100000"])
    process = runs.start(config, tmp_path / "run")
    printed, _ = process.communicate(timeout=STEP_TIMEOUT_S)
    assert process.returncode == 1
    assert "global_batch_size" in printed
    assert str(tmp_path / "run" / "3_sft" / "train.log") in printed
    assert "from the unfinished step" in printed
    assert not (tmp_path / "run" / "3_sft" / "step.json").exists()
    runs.assert_none_left()


def test_a_step_killed_after_its_last_checkpoint_is_trained_anew(
    finished: tuple[Path, Path, str], tmp_path: Path, runs: Runs
) -> None:
    config, uninterrupted, _ = finished
    output = tmp_path / "run"
    for step in STEPS[:2]:
        shutil.copytree(uninterrupted / step, output / step)
    # Upstream, resumed at its last step, trains nothing and saves no model.
    process = runs.start(config, output)
    _wait_for(output / "3_sft" / "train" / "checkpoints", process, "*-last/metadata.json")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    runs.assert_none_left()
    runs.finish(config, output)
    assert (output / "metrics.json").is_file()
    assert (output / "4_rl_cai" / "comparisons.jsonl").read_bytes() == (
        uninterrupted / "4_rl_cai" / "comparisons.jsonl"
    ).read_bytes()


def test_real_red_team_prompts(shared_data: Path, tmp_path: Path, runs: Runs) -> None:
    config = small_config(
        tmp_path,
        data__red_team=str(shared_data / "hh" / "harmless_base_test.jsonl.gz"),
        data__red_team_turns="first",
        data__red_team_limit=200,
        data__max_prompt_tokens=100,
        sft__seq_length=192,
        reward_model__seq_length=192,
        ppo__seq_length=256,
        rl_cai__margin=0.0,
    )
    output = tmp_path / "run"
    runs.finish(config, output)
    test_every_file_passes_its_validator_and_every_row_is_accounted_for((config, output, ""))
    records = _records(output)
    counts = records["1_data"]["facts"]["balances"]["harmless_base_test.jsonl.gz"]
    assert counts["written"] + sum(counts["left_out"].values()) == counts["rows_in"]
    assert counts["left_out"]["longer than 100 tokens"] > 0
    generated = sum(records[step]["facts"]["generation"]["balance"]["rows_in"] for step in ("2_sl_cai", "4_rl_cai"))
    assert generated == counts["written"]
    assert json.loads((output / "metrics.json").read_text())["judge"]["unknown"] > 0


def test_the_same_model_as_a_file_and_as_an_endpoint_makes_the_same_data(tmp_path: Path, runs: Runs) -> None:
    """Greedy: the two protocols of NeMo's server draw their samples in another order. The second is killed, too."""
    sampling: dict[str, Any] = {"sl_cai__decoding": {"temperature": 0.0, "max_tokens": 40}}
    file, endpoint = tmp_path / "file", tmp_path / "endpoint"
    file.mkdir()
    endpoint.mkdir()
    for source, name in ((packaged_files.MODEL, "model.nemo"), (packaged_files.TOKENIZER, "tokenizer.model")):
        shutil.copy(source, file / name)
    models: dict[str, Any] = {"helpful_only": str(file / "model.nemo"), "constitution": "tiny"}
    config = small_config(file, models=models, **sampling)
    for step in STEPS[:2]:
        runs.finish(config, file / "run", "--step", step)
    port = free_port()
    address = [f"gpt_model_file={packaged_files.MODEL}", "host=127.0.0.1", f"port={port}"]
    health, module = f"http://127.0.0.1:{port}/health", "nemo_aligner_cai.training.inference_server"
    with server(module, address, tmp_path / "server.log", [health]):
        served = {"endpoint": f"http://127.0.0.1:{port}", "model": "assistant", "concurrency": 8}
        models = {"helpful_only": served, "base": "tiny", "constitution": "tiny"}
        config = small_config(endpoint, models=models, **sampling)
        runs.finish(config, endpoint / "run", "--step", STEPS[0])
        process = runs.start(config, endpoint / "run", "--step", STEPS[1])
        _wait_for(endpoint / "run" / STEPS[1], process, "*.journal.jsonl")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        runs.finish(config, endpoint / "run", "--step", STEPS[1])
    for name in ("1_data/sl_prompts.jsonl", "2_sl_cai/revisions.jsonl", "2_sl_cai/train.jsonl"):
        assert (file / "run" / name).read_bytes() == (endpoint / "run" / name).read_bytes(), name


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
    assert len(rates) == 15
    for model, stage in metrics["stages"].items():
        oracle = {name: figure["value"] for name, figure in stage["greedy"].items()}
        assert rates[model, "over_refusal", "benign"] == pytest.approx(oracle["over_refusal"])
        refusals = oracle["right_refusal"] + oracle["flawed_refusal"]
        assert rates[model, "refusal", "harmful"] == pytest.approx(refusals)
    assert [one.name for one in read_evaluation(copy / "8_evaluate").models] == ["helpful_only", "sl_cai", "rl_cai"]
