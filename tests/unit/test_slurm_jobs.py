# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The process of a job: its shard, starts without progress, requeueing, and the steps that it starts by srun."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")
import psutil

from nemo_aligner_cai.commands import run_slurm
from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.pipeline.executors import job
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.layout import HF, RL_CAI, SFT, SL_CAI
from nemo_aligner_cai.pipeline.sections.serve import VllmServer
from nemo_aligner_cai.pipeline.serving.model_files import Conversion, as_step
from nemo_aligner_cai.pipeline.serving.vllm import served_vllm
from nemo_aligner_cai.training.launch import jobs, reaper, srun
from tests.unit.fake_slurm import FakeSlurm
from tests.unit.slurm_config import SHARDED, loaded


def test_a_job_makes_the_calls_of_its_shard_or_none(tmp_path: Path) -> None:
    _, slurm = loaded(tmp_path, SHARDED)
    task = {"SLURM_ARRAY_TASK_ID": "3"}
    assert job.calls_of(SL_CAI, slurm, task) == Shard(3, 64)
    assert job.calls_of(SL_CAI, slurm, {}) == "none"
    assert job.calls_of(RL_CAI, slurm, {}) == "all"


def test_tasks_of_an_array_count_their_own_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = tmp_path / SL_CAI / "revisions.shards"
    shards.mkdir(parents=True)
    for task in range(2 * job.MOST_STARTS):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        job.count_start(SL_CAI, tmp_path)
    for _ in range(job.MOST_STARTS - 1):
        job.count_start(SL_CAI, tmp_path)
    (shards / "5-of-6.journal.jsonl").write_text("a reply\n")
    for _ in range(job.MOST_STARTS):
        job.count_start(SL_CAI, tmp_path)
    with pytest.raises(CaiError, match="3 starts without progress"):
        job.count_start(SL_CAI, tmp_path)
    job.forget_starts(SL_CAI, tmp_path)
    assert not [*(tmp_path / "slurm").iterdir()]


def test_a_step_is_given_up_after_three_starts_without_progress(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / SL_CAI).mkdir()
    journal = tmp_path / SL_CAI / "revisions.journal.jsonl"
    for _ in range(job.MOST_STARTS):
        job.count_start(SL_CAI, tmp_path)
    journal.write_text("a reply\n")
    for _ in range(job.MOST_STARTS):
        job.count_start(SL_CAI, tmp_path)
    with pytest.raises(CaiError, match="3 starts without progress"):
        job.count_start(SL_CAI, tmp_path)
    job.forget_starts(SL_CAI, tmp_path)
    job.count_start(SL_CAI, tmp_path)


def in_job(folder: Path, work: Callable[[], object]) -> None:
    (folder / "slurm").mkdir()
    before = signal.getsignal(signal.SIGUSR1)
    try:
        job.run(SFT, work, SlurmExecutor(kind="slurm"), folder)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_before_the_end_of_the_wall_time_a_job_is_requeued(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    in_job(tmp_path, lambda: signal.raise_signal(signal.SIGUSR1))
    assert fake_slurm.calls("scontrol") == ["requeue 42"]


@pytest.mark.parametrize(("flags", "job"), [({}, True), ({"dry_run": True}, False), ({"chain": 2}, False)])
def test_a_shell_in_an_allocation_prints_and_submits_what_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], job: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    args = argparse.Namespace(**{"step": SFT, "dry_run": False, "chain": 0} | flags)
    assert run_slurm.is_job(args) == job


def test_a_task_of_an_array_requeues_itself_alone(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": "42", "ARRAY_JOB_ID": "42", "ARRAY_TASK_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    in_job(tmp_path, lambda: signal.raise_signal(signal.SIGUSR1))
    assert fake_slurm.calls("scontrol") == ["requeue 42_7"]


def test_where_requeueing_is_not_allowed_the_job_fails(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    fake_slurm.answer("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    with pytest.raises(CaiError, match="presently disabled"):
        in_job(tmp_path, lambda: signal.raise_signal(signal.SIGUSR1))


def test_ctrl_c_requeues_nothing(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        in_job(tmp_path, lambda: signal.raise_signal(signal.SIGINT))
    assert fake_slurm.calls("scontrol") == []


def test_a_step_of_a_job_is_stopped_by_its_name(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.answer("srun", "exec sleep 60")
    with srun.steps(srun.Srun(("--container-image=image.sqsh",), "/opt/python")):
        started = jobs.start("some.module", ["key=value"], tmp_path / "log", component=1, tasks=1)
    while not fake_slurm.calls("srun"):
        assert started.poll() is None
    fake_slurm.answer("squeue", f'echo "42.batch batch"; echo "42.3 {started.step}"')
    fake_slurm.answer("scancel", f"kill {started.pid}")
    jobs.stop(started)
    assert fake_slurm.calls("scancel") == ["--signal=TERM 42.3"]
    (call,) = fake_slurm.calls("srun")
    task = f"/opt/python -m {reaper.__name__} /opt/python -m some.module key=value"
    assert call.endswith(f"--container-image=image.sqsh {task}")
    assert "--overlap" in call and "--nodes=1 --ntasks=1" in call and "--het-group" not in call


_CONTAINER = srun.Srun(("--container-image=image.sqsh",), "/opt/python")
_TASK = f"--container-image=image.sqsh /opt/python -m {reaper.__name__}"


def test_a_conversion_in_a_container_has_the_interpreter_of_the_container(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    command = ["checkpoint", "to-hf", "model.nemo"]
    conversion = Conversion("3_sft_hf", "a conversion", (tmp_path,), HF, {}, lambda target: [*command, str(target)])
    with srun.steps(_CONTAINER):
        as_step(conversion).work(tmp_path)
    (call,) = fake_slurm.calls("srun")
    assert call.endswith(f"{_TASK} /opt/python -m nemo_aligner_cai.cli checkpoint to-hf model.nemo {tmp_path / HF}")
    assert sys.executable not in call


@pytest.mark.parametrize("here", [True, False])
def test_vllm_in_a_container_is_found_there_and_not_here(fake_slurm: FakeSlurm, tmp_path: Path, here: bool) -> None:
    if here:
        fake_slurm.answer("vllm", "exit 0")
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    server = served_vllm(model, tmp_path / "log", VllmServer(executable="vllm"), identity=64 * "0")
    with srun.steps(_CONTAINER), pytest.raises(CaiError, match="before it was ready"), server:
        pass
    (call,) = fake_slurm.calls("srun")
    assert f"{_TASK} vllm serve {model} " in call
    assert sys.executable not in call and str(fake_slurm.folder) not in call


def test_a_component_of_a_heterogeneous_job(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_HET_SIZE", "2")
    fake_slurm.answer("srun", 'echo "port $MASTER_PORT gpus $CUDA_VISIBLE_DEVICES"')
    with srun.steps(srun.Srun()):
        gpus = {"CUDA_VISIBLE_DEVICES": "4,5"}
        both = [jobs.start("m", [], tmp_path / f"{n}.log", gpus, component=n) for n in range(2)]
    for one in both:
        jobs.finish(one, 20)
    assert ["--het-group=0" in call for call in fake_slurm.calls("srun")].count(True) == 1
    ports = {(tmp_path / f"{n}.log").read_text() for n in range(2)}
    assert len(ports) == 2
    assert not any("4,5" in text for text in ports), "a component has its own GPUs"


def test_what_a_killed_program_leaves_behind_ends(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > orphan; setsid sleep 301 & echo $! >> orphan; kill -9 $$"
    words = reaper.command(sys.executable, ["bash", "-c", script])
    assert subprocess.run(words, cwd=tmp_path, timeout=60, check=False).returncode == 128 + signal.SIGKILL
    orphans = [int(line) for line in (tmp_path / "orphan").read_text().split()]
    assert len(orphans) == 2 and not any(psutil.pid_exists(pid) for pid in orphans)


def test_a_signal_to_a_step_lets_its_program_end_in_order(tmp_path: Path) -> None:
    script = "trap 'echo stopped; exit 7' TERM; echo began; sleep 300 & wait"
    words = reaper.command(sys.executable, ["bash", "-c", script])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as task:
        assert task.stdout is not None and task.stdout.readline() == "began\n"
        os.killpg(task.pid, signal.SIGTERM)
        assert task.wait(30) == 7 and task.stdout.read() == "stopped\n"
