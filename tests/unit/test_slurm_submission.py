# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Steps of a run as jobs of a cluster: submission, what is refused before it, and their state.

Fake commands record how they are called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from nemo_aligner_cai import cli
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.pipeline.executors import cluster, submit
from nemo_aligner_cai.pipeline.executors.script import StepJob
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.executors.sizes import Size
from nemo_aligner_cai.pipeline.executors.status import status
from nemo_aligner_cai.pipeline.layout import DATA, SFT, SL_CAI
from nemo_aligner_cai.pipeline.run import Pipeline
from tests.run_steps import STEPS
from tests.unit.fake_slurm import FakeSlurm
from tests.unit.slurm_config import SHARDED, SLURM, config, loaded


def step_jobs(folder: Path) -> list[StepJob]:
    return [StepJob(step, folder / "slurm", (Size(1, 1, 0),), ("cai", "run", "--step", step)) for step in STEPS]


_WAITS = 'echo "12|PENDING|0:00|(Dependency)"'
_COUNT = 'case "$*" in *--test-only*) exit 0;; esac; n=$(cat N 2>/dev/null || echo 10); echo $((n + 1)) | tee N'


def test_the_ids_of_a_chain_are_recorded(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm").mkdir()
    fake_slurm.answer("sbatch", _COUNT)
    ids = submit.submit(step_jobs(tmp_path)[:2], chain=1)
    assert ids == {STEPS[0]: ["11", "12"], STEPS[1]: ["13", "14"]} == submit.submitted(tmp_path / "slurm")
    dependencies = [
        call.split("dependency=")[1].split()[0] for call in fake_slurm.calls("sbatch") if "dependency" in call
    ]
    assert dependencies == ["afternotok:11", "afterok:11?afterok:12", "afternotok:13"]


def test_a_job_that_slurm_refuses_is_named(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.answer("sbatch", 'case "$*" in *3_sft*) echo "Invalid partition name specified" >&2; exit 1;; esac')
    with pytest.raises(UsageError, match=r"step 3_sft: .*Invalid partition name specified"):
        submit.prepare(step_jobs(tmp_path), SlurmExecutor(kind="slurm"), chain=0)
    assert all("--test-only" in call for call in fake_slurm.calls("sbatch"))


def test_a_submission_that_fails_half_way_is_taken_back(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_slurm.answer("sbatch", f'case "$*" in *dependency*3_sft*) exit 1;; esac; {_COUNT}')
    with pytest.raises(CaiError, match="sbatch"):
        submit.submit(step_jobs(tmp_path), chain=0)
    assert fake_slurm.calls("scancel") == ["11 12"]
    assert submit.submitted(tmp_path / "slurm") == {}


def test_jobs_in_the_queue_are_not_submitted_twice(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_slurm.answer("sbatch", _COUNT)
    (tmp_path / "slurm").mkdir()
    submit.submit(step_jobs(tmp_path)[:1], chain=0)
    submit.require_none_queued(tmp_path / "slurm")
    fake_slurm.answer("squeue", 'echo "11+0|PENDING|0:00|(Resources)"')
    with pytest.raises(UsageError, match="scancel 11"):
        submit.require_none_queued(tmp_path / "slurm")


def test_a_folder_that_the_nodes_do_not_see_is_refused(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.answer("srun", "echo hidden node7")
    with pytest.raises(UsageError, match="node7 does not see this folder"):
        submit.prepare(step_jobs(tmp_path), SlurmExecutor(kind="slurm"), chain=0)
    assert all("--test-only" in call for call in fake_slurm.calls("sbatch"))


def test_a_cluster_without_a_free_node_is_not_a_reason_to_refuse(
    fake_slurm: FakeSlurm, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_slurm.answer("srun", "echo 'Immediate execution impossible' >&2; exit 1")
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


def test_a_step_in_shards_is_an_array_and_a_merge(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, slurm = loaded(tmp_path, SHARDED)
    fake_slurm.answer("sbatch", _COUNT)
    request = cluster.Request(run, slurm, tmp_path / "run", ("run.yaml",), step=SL_CAI)
    assert cluster.submit_run(request) == {SL_CAI: ["11", "12"]}
    assert "--dependency=afterok:11" in fake_slurm.calls("sbatch")[-1]
    array, merge = ((tmp_path / "run/slurm" / f"{SL_CAI}{end}.sbatch").read_text() for end in ("_shards", ""))
    assert "#SBATCH --array=0-63%16\n" in array and "--gpus-per-node=1" in array
    assert "--array" not in merge and "--gpus" not in merge
    assert array.splitlines()[-1] == merge.splitlines()[-1]
    fake_slurm.answer("squeue", f'echo "11_[7-63]|PENDING|0:00|(Priority)"; echo "11_3|RUNNING|1:02|n1"; {_WAITS}')
    (found,) = status(tmp_path / "run")
    assert (found.state, found.job, found.note) == ("running", "11", "n1")
    with pytest.raises(UsageError, match="scancel 11 12"):
        submit.require_none_queued(tmp_path / "run" / "slurm")


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
    fake_slurm: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    executor: dict[str, Any],
    sections: dict[str, Any],
    answers: dict[str, str | None],
    problem: str,
    fix: str,
) -> None:
    path = config(tmp_path, SLURM | executor, **sections)
    for name, body in answers.items():
        if body is None:
            monkeypatch.setenv("PATH", str(tmp_path))
        else:
            fake_slurm.answer(name, body)
    assert cli.main(["run", str(path), "--output", str(tmp_path / "run")]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert problem in said and fix in said
    assert not [call for call in fake_slurm.calls("sbatch") if "--test-only" not in call]


def ended_run(folder: Path) -> dict[Path, bytes]:
    """Write a record and a journal of each step, as a run leaves them; returns the content of all files."""
    for step in STEPS:
        (folder / step).mkdir(parents=True)
        for name, text in {"started": 64 * "0", "step.json": "{}", "replies.journal.jsonl": "a reply\n"}.items():
            (folder / step / name).write_text(text)
    return contents(folder)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for step in STEPS for path in (folder / step).iterdir()}


def make_data(pipeline: Pipeline) -> None:
    """Make the run's first step done, by files without content."""
    (step,) = (one for one in pipeline.steps() if one.name == DATA)

    def work(folder: Path) -> Mapping[str, Any]:
        for name in step.makes:
            (folder / name).touch()
        return {}

    pipeline.cache.run(replace(step, work=work))


@pytest.mark.parametrize(
    ("executor", "answers", "problem"),
    [
        ({}, {"sbatch": _REFUSED}, "Invalid partition name"),
        ({}, {"srun": _HIDDEN}, "node7 does not see"),
        ({"steps": {"6_pppo": {"gpus": 8}}}, {}, "6_pppo"),
    ],
)
def test_a_repetition_that_is_refused_forgets_nothing(
    fake_slurm: FakeSlurm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    executor: dict[str, Any],
    answers: dict[str, str],
    problem: str,
) -> None:
    folder = tmp_path / "run"
    before = ended_run(folder)
    for name, body in answers.items():
        fake_slurm.answer(name, body)
    path = config(tmp_path, SLURM | executor)
    assert cli.main(["run", str(path), "--output", str(folder), "--from", SL_CAI]) == 2
    assert problem in capsys.readouterr().err
    assert contents(folder) == before


def test_a_repetition_forgets_its_steps_and_no_other(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ended_run(tmp_path / "run")
    fake_slurm.answer("sbatch", _COUNT)
    run, slurm = loaded(tmp_path, SLURM)
    cluster.submit_run(cluster.Request(run, slurm, tmp_path / "run", ("run.yaml",), first=SFT))
    kept = {path: content for path, content in before.items() if path.parent.name < SFT}
    assert contents(tmp_path / "run") == kept


@pytest.mark.parametrize(
    ("first", "chosen"), [(None, STEPS[1:]), (DATA, STEPS), (SL_CAI, STEPS[1:]), (SFT, STEPS[1:])]
)
def test_what_is_printed_is_what_is_submitted(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str | None, chosen: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_slurm.answer("sbatch", _COUNT)
    run, slurm = loaded(tmp_path, SLURM)
    make_data(Pipeline(run, tmp_path / "run"))
    request = cluster.Request(run, slurm, tmp_path / "run", ("run.yaml",), first=first)
    printed = cluster.print_run(request)
    assert [step for step in STEPS if f"/{step}.sbatch" in printed] == list(chosen)
    assert list(cluster.submit_run(request)) == list(chosen)


def test_the_state_of_each_step(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    folder = tmp_path / "slurm"
    folder.mkdir()
    (tmp_path / STEPS[0]).mkdir()
    (tmp_path / STEPS[0] / "step.json").write_text("{}")
    (folder / "jobs.json").write_text(json.dumps({step: [str(10 + n)] for n, step in enumerate(STEPS[:5])}))
    (folder / f"{STEPS[1]}-11.0.log").touch()
    fake_slurm.answer(
        "squeue", 'echo "12|RUNNING|1:02|n1"; echo "13|PENDING|0:00|(Dependency)"; echo "99|RUNNING|9:00|n2"'
    )
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
