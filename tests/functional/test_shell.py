# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The shell scripts of this folder on a CPU, as CI of NeMo-Aligner's kind runs them on GPUs in the container."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_aligner_cai.training.config import compose, missing_keys
from nemo_aligner_cai.training.launch.stage_main import parse_flags
from tests.functional.conftest import ENV, TIMEOUT_S

HERE = Path(__file__).resolve().parent
TINY = ["sft-tiny", "rm-tiny", "ppo-tiny", "generate-sl-tiny", "generate-rl-tiny"]
REAL = ["sft-mistral-7b", "rm-mistral-7b", "ppo-mistral-7b"]


# Programs of a machine with GPUs. torchrun notes how it is called, and fails; the critic alone stays.
PROGRAMS = {
    "nvidia-smi": "printf 'GPU %s: NVIDIA H100\\n' 0 1 2 3 4 5 6 7",
    "curl": "exit 0",
    "torchrun": """
name=$(basename "$3" .py)
printf '%s\\n' "${CUDA_VISIBLE_DEVICES:-all}" "$@" > "$ALIGNER_CI_DIR/$name"
[[ $name == serve_ppo_critic ]] && exec sleep 600
exit 1
""",
}


def begin(script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    command = ["bash", str(HERE / script), *arguments]
    whole = {**os.environ, **ENV, "PYTHON": sys.executable, "CAI_DEVICE": "cpu", **env}
    return subprocess.Popen(command, env=whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.terminate()  # not killed: it has to end what it has started
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return end(begin(script, *arguments, **env), TIMEOUT_S)


def processes(ci_dir: Path) -> list[str]:
    """The command lines of the processes that were started, by whomever, with this ALIGNER_CI_DIR."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if f"ALIGNER_CI_DIR={ci_dir}".encode() in variables:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has just ended, or is another user's
    return found


@pytest.fixture(scope="module")
def ci_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ci")


@pytest.fixture(scope="module")
def ran(ci_dir: Path) -> subprocess.CompletedProcess[str]:
    """All that fits a CPU."""
    return end(begin("run_all.sh", ALIGNER_CI_DIR=str(ci_dir)), 4 * TIMEOUT_S)


def test_every_case_that_fits_passes_and_the_others_are_named(
    ran: subprocess.CompletedProcess[str], ci_dir: Path
) -> None:
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sorted(path.name for path in (HERE / "test_cases").iterdir()) == sorted(TINY + REAL)
    for case in TINY:
        assert f"passed {case} in " in ran.stdout
    for case in REAL:
        assert f"left out {case}: it needs 8 GPUs, and here are 0" in ran.stdout
    assert "5 passed, 0 failed, 3 left out" in ran.stdout
    for fact in (
        "sft-tiny/sft falls:train/loss",
        "rm-tiny/reward-model falls:train/loss",
        "ppo-tiny/ppo-actor steps:train_rollouts/rewards=4",
        "ppo-tiny/critic falls:train/loss",
        "generate-sl-tiny/data outputs:cai_output/train.jsonl/cai_manifest.json",
        "generate-rl-tiny/data outputs:cai_manifest.json",
    ):
        assert f"ok {fact}: " in ran.stdout
    assert "train.jsonl: sft-chat, 120 rows, all of them valid" in ran.stdout
    assert processes(ci_dir) == []


@pytest.mark.parametrize(
    ("folder", "fact"),
    [
        ("sft-tiny/sft", "steps:train/loss=7"),
        ("sft-tiny/sft", "grows:train/loss"),
        ("sft-tiny/sft", "finite:no_such_metric"),
        ("sft-tiny/sft", "nemo:no_such_model"),
        ("ppo-tiny/critic", "checkpoint:cai_ppo_critic-step=5-last"),
        ("generate-sl-tiny/data", "rows:train.jsonl = 1 + cai_output/train.jsonl/cai_samples.jsonl"),
        ("generate-sl-tiny/data", "read:cai_output/train.jsonl/cai_manifest.json = 56"),
        ("generate-sl-tiny/data", "wrote:cai_output/train.jsonl/cai_manifest.json = 64"),
        ("changed", "outputs:cai_manifest.json"),
    ],
)
def test_a_fact_that_does_not_hold_is_named_and_ends_the_check(
    ran: subprocess.CompletedProcess[str], ci_dir: Path, folder: str, fact: str
) -> None:
    results = ci_dir / "results"
    if folder == "changed":
        changed = results / "generate-rl-tiny" / "data" / "cai_comparisons.jsonl"
        changed.write_bytes(changed.read_bytes() + b"\n")
        folder = "generate-rl-tiny/data"
    command = [sys.executable, str(HERE / "check.py"), str(results / folder), fact, "nemo:never_looked_at"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stdout.startswith(f"FAILED {folder} {fact}: ")
    assert failed.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("sft.sh", "sft ended with an error"),
        ("ppo.sh", "the critic ended before it was ready"),
        ("generate_rl.sh", "the server ended before it was ready"),
    ],
)
def test_a_model_that_is_not_there_is_named_and_nothing_is_left(tmp_path: Path, script: str, what: str) -> None:
    model, data = str(tmp_path / "no.nemo"), str(tmp_path / "no.jsonl")
    models = dict.fromkeys(("PRETRAINED_CHECKPOINT_NEMO_FILE", "ACTOR_NEMO_FILE", "RM_NEMO_FILE"), model)
    rows = dict.fromkeys(("TRAIN_DATA_PATH", "PROMPTS_PATH", "HELPFUL_PREFIX"), data)
    done = run(script, ALIGNER_CI_DIR=str(tmp_path), NAME="absent", **models, **rows)
    assert done.returncode == 1
    assert f"FAILED absent: {what}; the end of {tmp_path}/results/absent/" in done.stderr
    assert f"there is no file {model}" in done.stderr
    assert processes(tmp_path) == []


def reward_model_of(case: str) -> Path:
    """Where a case leaves its reward model."""
    return Path("results", case, "reward-model", "checkpoints", "cai_reward_model.nemo")


def rewarded(folder: Path, ran: Path) -> Path:
    """The model of rm-tiny, as if it had been run in a folder."""
    model = reward_model_of("rm-tiny")
    (folder / model).parent.mkdir(parents=True)
    return shutil.copy(ran / model, folder / model)


def test_an_actor_that_fails_takes_its_critic_with_it(
    ran: subprocess.CompletedProcess[str], ci_dir: Path, tmp_path: Path
) -> None:
    reward_model = rewarded(tmp_path, ci_dir)
    done = run(
        "ppo.sh",
        ALIGNER_CI_DIR=str(tmp_path),
        RM_NEMO_FILE=str(reward_model),
        ACTOR_NEMO_FILE=str(tmp_path / "no.nemo"),
        TRAIN_DATA_PATH=str(tmp_path / "no.jsonl"),
    )
    assert done.returncode == 1
    assert "FAILED ppo_test: ppo-actor ended with an error" in done.stderr
    assert f"there is no file {tmp_path / 'no.nemo'}" in done.stderr
    assert "critic_save" in (tmp_path / "results" / "ppo_test" / "critic.log").read_text(encoding="utf-8")
    assert processes(tmp_path) == []


def test_a_server_that_ends_too_early_is_no_reason_to_wait(tmp_path: Path) -> None:
    script = tmp_path / "case.sh"
    lines = (
        f"NAME=early; source {HERE / 'common.sh'}",
        'start "$RESULTS_DIR/server.log" sh -c "echo out of memory; sleep 1"',
        'start "$RESULTS_DIR/actor.log" sleep 600',
        'finish "the actor" "$RESULTS_DIR/actor.log"',
    )
    script.write_text("\n".join(lines), encoding="utf-8")
    done = run(str(script), ALIGNER_CI_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "FAILED early: a server ended while the actor ran" in done.stderr
    assert "out of memory" in done.stderr
    assert processes(tmp_path) == []


def test_a_signal_ends_the_case_and_all_that_it_has_started(
    ran: subprocess.CompletedProcess[str], ci_dir: Path, tmp_path: Path
) -> None:
    rewarded(tmp_path, ci_dir)
    process = begin("run_all.sh", "ppo-tiny", ALIGNER_CI_DIR=str(tmp_path))
    deadline = time.monotonic() + TIMEOUT_S
    while not any("train critic" in command for command in processes(tmp_path)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.terminate()
    assert end(process, TIMEOUT_S).returncode == 143
    assert processes(tmp_path) == []


def test_a_case_of_real_size_names_the_model_that_it_misses(tmp_path: Path) -> None:
    done = run("run_all.sh", "sft-mistral-7b", ALIGNER_CI_DIR=str(tmp_path))
    assert done.returncode == 1
    assert f"FAILED sft-mistral-7b: there is no {tmp_path}/checkpoints/mistral-7b.nemo; cai checkpoint" in done.stderr
    assert "0 passed, 1 failed, 0 left out" in done.stdout


def test_on_gpus_the_cases_of_real_size_are_upstreams_scripts_with_our_configs(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, body in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    models = (Path("checkpoints", "mistral-7b.nemo"), reward_model_of("rm-mistral-7b"))
    for model in models:
        (tmp_path / model).parent.mkdir(parents=True)
        (tmp_path / model).touch()
    env = {"ALIGNER_CI_DIR": str(tmp_path), "CAI_DEVICE": "", "NEMO_ALIGNER_HOME": "/aligner"}
    env["PATH"] = f"{programs}:{os.environ['PATH']}"
    done = run("run_all.sh", *reversed(REAL), **env)
    assert "0 passed, 3 failed" in done.stdout
    assert processes(tmp_path) == []
    for script, config, devices, count in (
        ("serve_ppo_critic", "cai_ppo_critic", "0,1,2,3", 4),
        ("train_gpt_ppo_actor", "cai_ppo_actor", "4,5,6,7", 4),
        ("train_reward_model", "cai_reward_model", "all", 8),
        ("train_gpt_sft", "cai_sft", "all", 8),
    ):
        gpus, *words = (tmp_path / script).read_text(encoding="utf-8").splitlines()
        assert gpus == devices
        assert words[:3] == ["--standalone", f"--nproc-per-node={count}", f"/aligner/examples/nlp/gpt/{script}.py"]
        arguments = parse_flags(words[3:], "")
        assert arguments.config == config
        cfg = compose(config, arguments.overrides)
        assert missing_keys(cfg) == []
        assert cfg.trainer.devices == count
        assert cfg.trainer.accelerator == "gpu"
        assert cfg.model.tensor_model_parallel_size == 2
        assert cfg.model.encoder_seq_length == 4096
