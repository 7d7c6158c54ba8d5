# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Slurm jobs of a run: scripts, checks before submission, state, and starts without progress.

A real Slurm is in tests/functional/test_slurm.py. Here, fake commands record how they are called.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hydra", reason="the training extra is not installed")
import psutil

from nemo_aligner_cai import cli, packaged_files
from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.pipeline.config import RunConfig, load_run_config
from nemo_aligner_cai.pipeline.executors import cluster, job, submit
from nemo_aligner_cai.pipeline.executors.script import StepJob, script, submission
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor, seconds
from nemo_aligner_cai.pipeline.executors.sizes import Size, sizes
from nemo_aligner_cai.pipeline.executors.status import status
from nemo_aligner_cai.pipeline.layout import PPO, RL_CAI, SFT, SL_CAI
from nemo_aligner_cai.training.launch import jobs, reaper, srun
from tests.documented import blocks_of
from tests.run_steps import STEPS

_SLURM = {"kind": "slurm", "account": "lab", "partition": "batch", "time": "04:00:00"}


def config(tmp_path: Path, executor: dict[str, Any], **sections: Any) -> Path:
    """The quickstart's configuration with an executor and other trainers' settings, as a file."""
    tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree | {"executor": executor}), encoding="utf-8")
    return path


def loaded(tmp_path: Path, executor: dict[str, Any], **sections: Any) -> tuple[RunConfig, SlurmExecutor]:
    """The configuration and its executor."""
    run = load_run_config(config(tmp_path, executor, **sections))
    assert isinstance(run.executor, SlurmExecutor)
    return run, run.executor


def text_of(tmp_path: Path, step: str, executor: dict[str, Any], *, requeue: bool = True, **sections: Any) -> str:
    """The script of one step."""
    run, slurm = loaded(tmp_path, executor, **sections)
    command = ("cai", "run", "my run.yaml", "--step", step)
    return script(StepJob(step, tmp_path / "slurm", sizes(run, slurm, step), command), slurm, requeue=requeue)


def test_a_script_is_options_and_one_command(tmp_path: Path) -> None:
    text = text_of(tmp_path, SFT, _SLURM | {"preamble": ["module load cuda"], "options": ["--exclusive"]})
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert len(lines) <= 15
    options = " ".join(line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")).split()
    assert {"--nodes=1", "--ntasks-per-node=8", "--gpus-per-node=8", "--account=lab", "--partition=batch"} < {*options}
    assert {"--time=04:00:00", "--requeue", "--signal=B:USR1@300", "--open-mode=append", "--exclusive"} < {*options}
    assert "module load cuda" in lines
    assert lines[-1] == "exec cai run 'my run.yaml' --step 3_sft"
    assert "SLURM_RESTART_COUNT" in lines[-2]
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_ppo_is_one_heterogeneous_job(tmp_path: Path) -> None:
    trainers = {"critic": ["trainer.devices=4"], "actor": ["hardware=2x8xh100"]}
    lines = text_of(tmp_path, PPO, _SLURM, ppo=trainers).splitlines()
    between = lines.index("#SBATCH hetjob")
    assert "--nodes=1 --ntasks-per-node=4 --gpus-per-node=4" in lines[between - 1]
    assert "--nodes=2 --ntasks-per-node=8 --gpus-per-node=8" in lines[between + 1]
    for line in (lines[between - 1], lines[between + 1]):
        assert "--account=lab --partition=batch --time=04:00:00" in line and "--requeue" in line


def test_a_cluster_without_gpus_and_the_settings_of_one_step(tmp_path: Path) -> None:
    run, slurm = loaded(tmp_path, _SLURM | {"gpus": None})
    assert sizes(run, slurm, SFT) == (Size(nodes=1, tasks=1, gpus=0),)
    own = {"gpus": "--gres=gpu:{}", "steps": {SL_CAI: {"gpus": 8, "time": "1-00:00:00", "partition": "long"}}}
    text = text_of(tmp_path, SL_CAI, _SLURM | own)
    assert "--gres=gpu:8" in text and "--time=1-00:00:00" in text and "--partition=long" in text
    assert "--gpus" not in text_of(tmp_path, STEPS[0], _SLURM)


def test_a_step_with_servers_has_their_gpus(tmp_path: Path) -> None:
    def gpus(step: str, **sections: Any) -> int:
        run, slurm = loaded(tmp_path, _SLURM, **sections)
        return sizes(run, slurm, step)[0].gpus

    assert [gpus(step) for step in (STEPS[0], SL_CAI, RL_CAI, "3_sft_hf")] == [0, 1, 1, 1]
    nemo = {"overrides": ["trainer.devices=8", "tensor_model_parallel_size=8"]}
    own = {"policy": {"gpus": [0, 1]}, "judge": {"engine": "vllm", "tensor_parallel": 2, "gpus": [2, 3]}}
    assert gpus(SL_CAI, serve={"helpful_only": nemo}) == 8
    assert gpus(RL_CAI, serve=own) == 4
    assert gpus(RL_CAI, serve={"judge": {"engine": "vllm", "tensor_parallel": 4}}) == 4
    endpoint = {"endpoint": "http://judge/v1", "model": "judge"}
    assert gpus(SL_CAI, serve={"helpful_only": nemo}, models={"helpful_only": endpoint, "base": "tiny"}) == 0


def test_secrets_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGC_API_KEY", "nvapi-value")
    text = text_of(tmp_path, SFT, _SLURM | {"secrets": ["NGC_API_KEY"]})
    assert ",NGC_API_KEY" in text and "nvapi-value" not in text


def test_a_job_depends_on_any_job_of_the_chain_before_it(tmp_path: Path) -> None:
    job = StepJob(SFT, tmp_path, (), ())
    assert submission(job, []) == ["sbatch", "--parsable", str(tmp_path / "3_sft.sbatch")]
    depends = submission(job, ["7", "8"])
    assert depends[2:4] == ["--dependency=afterok:7?afterok:8", "--kill-on-invalid-dep=yes"]
    assert "--no-requeue" in text_of(tmp_path, SFT, _SLURM, requeue=False)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"time": 14400}, "executor.slurm.time"),
        ({"time": "soon"}, "executor.slurm.time"),
        ({"time": "5"}, "executor.slurm"),
        ({"steps": {"6_ppo": {"time": "00:04:59"}}}, "executor.slurm"),
        ({"gpus": "--gpus"}, "executor.slurm.gpus"),
        ({"secrets": ["A=B"]}, "executor.slurm.secrets.0"),
        ({"nodes": 2}, "executor.slurm.nodes"),
        ({"steps": {"3_sft": {"shards": 2}}}, "executor.slurm"),
        ({"steps": {"2_sl_cai": {"shards": 1}}}, "executor.slurm.steps.2_sl_cai.shards"),
        ({"kind": "kubernetes"}, "executor"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=f"run.yaml: {key}: "):
        load_run_config(config(tmp_path, _SLURM | change))


@pytest.mark.parametrize(
    ("time", "expected"),
    [("30", 1800), ("30:15", 1815), ("04:00:00", 14400), ("1-12", 129600), ("1-0:30", 88200), ("2-01:02:03", 176523)],
)
def test_times_are_those_of_sbatch(time: str, expected: int) -> None:
    assert seconds(time) == expected


def test_a_number_of_processes_that_lightning_chooses_is_refused(tmp_path: Path) -> None:
    run, slurm = loaded(tmp_path, _SLURM, sft={"overrides": ["trainer.devices=auto"]})
    with pytest.raises(UsageError, match=r"trainer\.devices=auto"):
        sizes(run, slurm, SFT)


class FakeSlurm:
    """Commands named like Slurm's that record their arguments, and answer as they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        for name in ("sbatch", "scancel", "squeue", "scontrol", "srun"):
            self.answer(name, "exit 0")

    def answer(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.calls_file}\n{body}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        lines = self.calls_file.read_text().splitlines() if self.calls_file.is_file() else []
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return FakeSlurm(tmp_path / "bin")


def step_jobs(folder: Path) -> list[StepJob]:
    return [StepJob(step, folder / "slurm", (Size(1, 1, 0),), ("cai", "run", "--step", step)) for step in STEPS]


_WAITS = 'echo "12|PENDING|0:00|(Dependency)"'
_COUNT = 'case "$*" in *--test-only*) exit 0;; esac; n=$(cat N 2>/dev/null || echo 10); echo $((n + 1)) | tee N'


def test_the_ids_of_a_chain_are_recorded(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm").mkdir()
    fake.answer("sbatch", _COUNT)
    ids = submit.submit(step_jobs(tmp_path)[:2], chain=1)
    assert ids == {STEPS[0]: ["11", "12"], STEPS[1]: ["13", "14"]} == submit.submitted(tmp_path / "slurm")
    dependencies = [call.split("dependency=")[1].split()[0] for call in fake.calls("sbatch") if "dependency" in call]
    assert dependencies == ["afternotok:11", "afterok:11?afterok:12", "afternotok:13"]


def test_a_job_that_slurm_refuses_is_named(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.answer("sbatch", 'case "$*" in *3_sft*) echo "Invalid partition name specified" >&2; exit 1;; esac')
    with pytest.raises(UsageError, match=r"step 3_sft: .*Invalid partition name specified"):
        submit.prepare(step_jobs(tmp_path), SlurmExecutor(kind="slurm"), chain=0)
    assert all("--test-only" in call for call in fake.calls("sbatch"))


def test_a_submission_that_fails_half_way_is_taken_back(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.answer("sbatch", f'case "$*" in *dependency*3_sft*) exit 1;; esac; {_COUNT}')
    with pytest.raises(CaiError, match="sbatch"):
        submit.submit(step_jobs(tmp_path), chain=0)
    assert fake.calls("scancel") == ["11 12"]
    assert submit.submitted(tmp_path / "slurm") == {}


def test_jobs_in_the_queue_are_not_submitted_twice(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.answer("sbatch", _COUNT)
    (tmp_path / "slurm").mkdir()
    submit.submit(step_jobs(tmp_path)[:1], chain=0)
    submit.require_none_queued(tmp_path / "slurm")
    fake.answer("squeue", 'echo "11+0|PENDING|0:00|(Resources)"')
    with pytest.raises(UsageError, match="scancel 11"):
        submit.require_none_queued(tmp_path / "slurm")


def test_a_folder_that_the_nodes_do_not_see_is_refused(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.answer("srun", "echo hidden node7")
    with pytest.raises(UsageError, match="node7 does not see this folder"):
        submit.prepare(step_jobs(tmp_path), SlurmExecutor(kind="slurm"), chain=0)
    assert all("--test-only" in call for call in fake.calls("sbatch"))


def test_a_cluster_without_a_free_node_is_not_a_reason_to_refuse(
    fake: FakeSlurm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.answer("srun", "echo 'Immediate execution impossible' >&2; exit 1")
    submit.prepare(step_jobs(tmp_path)[:1], SlurmExecutor(kind="slurm"), chain=0)
    assert "Immediate execution impossible" in caplog.text


def test_a_missing_slurm_and_a_missing_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch"):
        submit.check(SlurmExecutor(kind="slurm"))
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UsageError, match="NO_SUCH_KEY"):
        submit.check(SlurmExecutor(kind="slurm", secrets=("NO_SUCH_KEY",)))


_SHARDED = _SLURM | {"steps": {SL_CAI: {"shards": 64}}}


def test_a_step_in_shards_is_an_array_and_a_merge(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, slurm = loaded(tmp_path, _SHARDED)
    fake.answer("sbatch", _COUNT)
    request = cluster.Request(run, slurm, tmp_path / "run", ("run.yaml",), step=SL_CAI)
    assert cluster.submit_run(request) == {SL_CAI: ["11", "12"]}
    assert "--dependency=afterok:11" in fake.calls("sbatch")[-1]
    array, merge = ((tmp_path / "run/slurm" / f"{SL_CAI}{end}.sbatch").read_text() for end in ("_shards", ""))
    assert "#SBATCH --array=0-63\n" in array and "--gpus-per-node=1" in array
    assert "--array" not in merge and "--gpus" not in merge
    assert array.splitlines()[-1] == merge.splitlines()[-1]
    fake.answer("squeue", f'echo "11_[7-63]|PENDING|0:00|(Priority)"; echo "11_3|RUNNING|1:02|n1"; {_WAITS}')
    (found,) = status(tmp_path / "run")
    assert (found.state, found.job, found.note) == ("running", "11", "n1")
    with pytest.raises(UsageError, match="scancel 11 12"):
        submit.require_none_queued(tmp_path / "run" / "slurm")


def test_a_job_makes_the_calls_of_its_shard_or_none(tmp_path: Path) -> None:
    _, slurm = loaded(tmp_path, _SHARDED)
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


_HIDDEN = "echo hidden node7"
_REFUSED = "echo 'Invalid partition name specified' >&2; exit 1"
_TINY_BY_VLLM = {"serve": {"policy": {"engine": "vllm", "executable": "sh"}}}
_BASE_ENDPOINT = {"models": {"base": {"endpoint": "http://h", "model": "m"}}}
_UNKNOWN = {"sft": {"overrides": ["trainer.sft.max_stepz=1"]}}


@pytest.mark.parametrize(
    ("executor", "sections", "answers", "problem", "fix"),
    [
        ({"nodes": 2}, {}, {}, "executor.slurm.nodes", "unknown key"),
        ({}, _UNKNOWN, {}, "max_stepz", "sft"),
        ({}, _TINY_BY_VLLM, {}, "vLLM reads Hugging Face folders", "engine: nemo"),
        ({}, _BASE_ENDPOINT, {}, "neither trained nor served", "{nemo: FILE} or {hf: FOLDER}"),
        ({"secrets": ["NO_SUCH_KEY"]}, {}, {}, "NO_SUCH_KEY", "export"),
        ({}, {}, {"sbatch": None}, "no sbatch", "login node"),
        ({}, {}, {"sbatch": _REFUSED}, "Invalid partition name", "executor.partition"),
        ({}, {}, {"srun": _HIDDEN}, "node7 does not see", "--output"),
    ],
)
def test_bad_input_is_one_line_with_the_fix_and_nothing_is_submitted(
    fake: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    executor: dict[str, Any],
    sections: dict[str, Any],
    answers: dict[str, str | None],
    problem: str,
    fix: str,
) -> None:
    path = config(tmp_path, _SLURM | executor, **sections)
    for name, body in answers.items():
        if body is None:
            monkeypatch.setenv("PATH", str(tmp_path))
        else:
            fake.answer(name, body)
    assert cli.main(["run", str(path), "--output", str(tmp_path / "run")]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert problem in said and fix in said
    assert not [call for call in fake.calls("sbatch") if "--test-only" not in call]


def test_the_state_of_each_step(fake: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "slurm"
    folder.mkdir()
    (tmp_path / STEPS[0]).mkdir()
    (tmp_path / STEPS[0] / "step.json").write_text("{}")
    (folder / "jobs.json").write_text(json.dumps({step: [str(10 + n)] for n, step in enumerate(STEPS[:5])}))
    (folder / f"{STEPS[1]}-11.0.log").touch()
    fake.answer("squeue", 'echo "12|RUNNING|1:02|n1"; echo "13|PENDING|0:00|(Dependency)"; echo "99|RUNNING|9:00|n2"')
    assert [one.step for one in status(tmp_path)] == list(STEPS[:5])
    (tmp_path / "run.json").write_text(json.dumps({"steps": [{"name": step} for step in STEPS]}))
    found = {one.step: one for one in status(tmp_path)}
    assert [found[step].state for step in STEPS] == [
        *("done", "failed", "running", "pending", "failed", "not submitted", "not submitted"),
    ]
    assert found[STEPS[1]].note.endswith("2_sl_cai-11.0.log")
    assert (found[STEPS[2]].job, found[STEPS[2]].used, found[STEPS[2]].note) == ("12", "1:02", "n1")


def test_a_folder_without_a_run_has_no_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "cai.yaml", "--output", str(tmp_path), "--status"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


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
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    in_job(tmp_path, lambda: signal.raise_signal(signal.SIGUSR1))
    assert fake.calls("scontrol") == ["requeue 42"]


def test_a_task_of_an_array_requeues_itself_alone(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": "42", "ARRAY_JOB_ID": "42", "ARRAY_TASK_ID": "7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    in_job(tmp_path, lambda: signal.raise_signal(signal.SIGUSR1))
    assert fake.calls("scontrol") == ["requeue 42_7"]


def test_where_requeueing_is_not_allowed_the_job_fails(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    fake.answer("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1")
    with pytest.raises(CaiError, match="presently disabled"):
        in_job(tmp_path, lambda: signal.raise_signal(signal.SIGUSR1))


def test_ctrl_c_requeues_nothing(fake: FakeSlurm, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        in_job(tmp_path, lambda: signal.raise_signal(signal.SIGINT))
    assert fake.calls("scontrol") == []


def test_a_step_of_a_job_is_stopped_by_its_name(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.answer("srun", "exec sleep 60")
    with srun.steps(srun.Srun(("--container-image=image.sqsh",), "/opt/python")):
        started = jobs.start("some.module", ["key=value"], tmp_path / "log", component=1, tasks=1)
    while not fake.calls("srun"):
        assert started.poll() is None
    fake.answer("squeue", f'echo "42.batch batch"; echo "42.3 {started.step}"')
    fake.answer("scancel", f"kill {started.pid}")
    jobs.stop(started)
    assert fake.calls("scancel") == ["--signal=TERM 42.3"]
    (call,) = fake.calls("srun")
    task = f"/opt/python -m {reaper.__name__} /opt/python -m some.module key=value"
    assert call.endswith(f"--container-image=image.sqsh {task}")
    assert "--overlap" in call and "--nodes=1 --ntasks=1" in call and "--het-group" not in call


def test_a_component_of_a_heterogeneous_job(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_HET_SIZE", "2")
    fake.answer("srun", 'echo "port $MASTER_PORT gpus $CUDA_VISIBLE_DEVICES"')
    with srun.steps(srun.Srun()):
        gpus = {"CUDA_VISIBLE_DEVICES": "4,5"}
        both = [jobs.start("m", [], tmp_path / f"{n}.log", gpus, component=n) for n in range(2)]
    for one in both:
        jobs.finish(one, 20)
    assert ["--het-group=0" in call for call in fake.calls("srun")].count(True) == 1
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


def test_a_dry_run_prints_what_can_be_pasted_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    path, output = config(tmp_path, _SLURM), tmp_path / "run"
    assert cli.main(["run", str(path), "--output", str(output), "--dry-run", "--chain", "1", "seed=5"]) == 0
    text = capsys.readouterr().out
    assert not output.exists()
    assert text.count("<< 'SCRIPT'") == len(STEPS) and text.count("sbatch --parsable") == 2 * len(STEPS)
    assert f"run {path} seed=5 --output {output} --step 6_ppo" in text
    assert "--dependency=afterok:$job1?afterok:$job1_1 --kill-on-invalid-dep=yes" in text
    assert "hardware=cpu" not in text and "--gpus-per-node=8" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_a_refused_dry_run_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    words = ["run", str(packaged_files.QUICKSTART), "--output", str(tmp_path / "run"), "--dry-run"]
    assert cli.main([*words, "models.helpful_only={hf: /nowhere}"]) == 2
    assert "/nowhere" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_flag_for_slurm_needs_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    arguments = ["run", str(packaged_files.QUICKSTART), "--output", str(tmp_path / "run")]
    assert cli.main([*arguments, "--chain", "2"]) == 2
    assert "--executor slurm" in capsys.readouterr().err


def test_the_settings_of_the_page_are_valid_and_have_the_sizes_that_it_says(repo_root: Path, tmp_path: Path) -> None:
    found: list[dict[str, list[int]]] = []
    executors = 0
    for _, block in blocks_of(repo_root / "docs" / "cluster.rst", "yaml"):
        tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
        given = yaml.safe_load(block)
        if "kind" in given:
            continue  # Kubernetes'
        for name, section in given.items():
            tree[name] = tree.get(name, {}) | section
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({"executor": {"kind": "slurm"}} | tree), encoding="utf-8")
        run = load_run_config(path)
        assert isinstance(run.executor, SlurmExecutor)
        executors += "executor" in given
        if "ppo" in given:
            found.append({step: [one.nodes for one in sizes(run, run.executor, step)] for step in (SFT, PPO)})
            found[-1]["gpus"] = [one.gpus for one in sizes(run, run.executor, PPO)]
    assert executors == 3
    assert found == [
        {SFT: [2], PPO: [2, 2], "gpus": [8, 8]},
        {SFT: [1], PPO: [1, 1], "gpus": [4, 4]},
        {SFT: [1], PPO: [1, 1], "gpus": [1, 1]},
    ]
