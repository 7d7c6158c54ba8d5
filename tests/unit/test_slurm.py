# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Slurm jobs of a run: scripts, sizes, settings and dry runs.

test_slurm_submission.py and test_slurm_jobs.py submit and run them with fake commands; a real Slurm is in
tests/functional/test_slurm.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hydra", reason="the training extra is not installed")

from nemo_aligner_cai import cli, packaged_files
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.pipeline.executors.script import StepJob, script, submission
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor, seconds
from nemo_aligner_cai.pipeline.executors.sizes import Size, sizes
from nemo_aligner_cai.pipeline.layout import ANSWERS, EVALUATE, PPO, RL_CAI, SFT, SL_CAI
from nemo_aligner_cai.planning.estimate import plan
from nemo_aligner_cai.planning.recipe import recipe
from tests.documented import blocks_of
from tests.run_steps import STEPS
from tests.unit.slurm_config import SLURM, config, loaded


def text_of(tmp_path: Path, step: str, executor: dict[str, Any], *, requeue: bool = True, **sections: Any) -> str:
    """The script of one step."""
    run, slurm = loaded(tmp_path, executor, **sections)
    command = ("cai", "run", "my run.yaml", "--step", step)
    return script(StepJob(step, tmp_path / "slurm", sizes(run, slurm, step), command), slurm, requeue=requeue)


def test_a_script_is_options_and_one_command(tmp_path: Path) -> None:
    text = text_of(tmp_path, SFT, SLURM | {"preamble": ["module load cuda"], "options": ["--exclusive"]})
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
    lines = text_of(tmp_path, PPO, SLURM, ppo=trainers).splitlines()
    between = lines.index("#SBATCH hetjob")
    assert "--nodes=1 --ntasks-per-node=4 --gpus-per-node=4" in lines[between - 1]
    assert "--nodes=2 --ntasks-per-node=8 --gpus-per-node=8" in lines[between + 1]
    for line in (lines[between - 1], lines[between + 1]):
        assert "--account=lab --partition=batch --time=04:00:00" in line and "--requeue" in line


def test_a_cluster_without_gpus_and_the_settings_of_one_step(tmp_path: Path) -> None:
    run, slurm = loaded(tmp_path, SLURM | {"gpus": None})
    assert sizes(run, slurm, SFT) == (Size(nodes=1, tasks=1, gpus=0),)
    own = {"gpus": "--gres=gpu:{}", "steps": {SL_CAI: {"gpus": 8, "time": "1-00:00:00", "partition": "long"}}}
    text = text_of(tmp_path, SL_CAI, SLURM | own)
    assert "--gres=gpu:8" in text and "--time=1-00:00:00" in text and "--partition=long" in text
    assert "--gpus" not in text_of(tmp_path, STEPS[0], SLURM)


def test_a_step_with_servers_has_their_gpus(tmp_path: Path) -> None:
    def gpus(step: str, **sections: Any) -> int:
        run, slurm = loaded(tmp_path, SLURM, **sections)
        return sizes(run, slurm, step)[0].gpus

    assert [gpus(step) for step in (STEPS[0], SL_CAI, RL_CAI, "3_sft_hf")] == [0, 1, 1, 1]
    nemo = {"overrides": ["trainer.devices=8", "tensor_model_parallel_size=8"]}
    own = {"policy": {"gpus": [0, 1]}, "judge": {"engine": "vllm", "tensor_parallel": 2, "gpus": [2, 3]}}
    assert gpus(SL_CAI, serve={"helpful_only": nemo}) == 8
    assert gpus(RL_CAI, serve=own) == 4
    assert gpus(RL_CAI, serve={"judge": {"engine": "vllm", "tensor_parallel": 4}}) == 4
    endpoint = {"endpoint": "http://judge/v1", "model": "judge"}
    assert gpus(SL_CAI, serve={"helpful_only": nemo}, models={"helpful_only": endpoint, "base": "tiny"}) == 0
    answers = {"prompts": ["hi"], "decoding": {"max_tokens": 9}}
    evaluate = {"sets": [{"name": "a", "file": "a.csv"}], "grader": ["xstest"]}
    assert gpus(ANSWERS, serve=own, answers=answers) == gpus(EVALUATE, serve=own, evaluate=evaluate) == 2
    assert gpus(EVALUATE, serve=own, evaluate=evaluate | {"grader_model": "judge"}) == 4


def test_secrets_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NGC_API_KEY", "nvapi-value")
    text = text_of(tmp_path, SFT, SLURM | {"secrets": ["NGC_API_KEY"]})
    assert ",NGC_API_KEY" in text and "nvapi-value" not in text


def test_a_job_depends_on_any_job_of_the_chain_before_it(tmp_path: Path) -> None:
    job = StepJob(SFT, tmp_path, (), ())
    assert submission(job, []) == ["sbatch", "--parsable", str(tmp_path / "3_sft.sbatch")]
    depends = submission(job, ["7", "8"])
    assert depends[2:4] == ["--dependency=afterok:7?afterok:8", "--kill-on-invalid-dep=yes"]
    assert "--no-requeue" in text_of(tmp_path, SFT, SLURM, requeue=False)


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
        ({"steps": {"2_sl_cai": {"shards_at_once": 4}}}, "executor.slurm"),
        ({"steps": {"2_sl_cai": {"options": ["--array=0-7%4"]}}}, "executor.slurm.steps.2_sl_cai.options"),
        ({"options": ["-a 0-7"]}, "executor.slurm.options"),
        ({"options": ["-a0-7"]}, "executor.slurm.options"),
        ({"options": ["--arr=0-7"]}, "executor.slurm.options"),
        ({"kind": "kubernetes"}, "executor"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError, match=f"run.yaml: {key}: "):
        load_run_config(config(tmp_path, SLURM | change))


@pytest.mark.parametrize(
    ("time", "expected"),
    [("30", 1800), ("30:15", 1815), ("04:00:00", 14400), ("1-12", 129600), ("1-0:30", 88200), ("2-01:02:03", 176523)],
)
def test_times_are_those_of_sbatch(time: str, expected: int) -> None:
    assert seconds(time) == expected


def test_a_number_of_processes_that_lightning_chooses_is_refused(tmp_path: Path) -> None:
    run, slurm = loaded(tmp_path, SLURM, sft={"overrides": ["trainer.devices=auto"]})
    with pytest.raises(UsageError, match=r"trainer\.devices=auto"):
        sizes(run, slurm, SFT)


def test_a_dry_run_prints_what_can_be_pasted_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    path, output = config(tmp_path, SLURM), tmp_path / "run"
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
    assert cli.main([*words, "rl_cai.judge=nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scripts_of_a_run_whose_models_are_elsewhere_end_with_what_was_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra", reason="the extra [hydra] is not installed")
    models = {"helpful_only": {"hf": "/nowhere/model"}}
    path, output = config(tmp_path, SLURM, models=models), tmp_path / "run"
    assert cli.main(["run", str(path), "--output", str(output), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert not output.exists()
    assert text.count("<< 'SCRIPT'") == len(STEPS) + 1, "the conversion is a step, too"
    (line,) = (line for line in text.splitlines() if line.startswith("#   /nowhere/model: "))
    assert {"models.helpful_only", "models.base", "models.judge"} <= set(line.partition(": ")[2].split(", "))
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("container", "flags", "here"), [(True, (), False), (False, (), True), (True, ("--executor", "local"), True)]
)
def test_only_vllm_that_runs_outside_of_a_container_must_be_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], container: bool, flags: tuple[str, ...], here: bool
) -> None:
    executor = SLURM | ({"container": {"image": "image.sqsh"}} if container else {})
    server = {"engine": "vllm", "executable": "no-such-vllm"}
    models = {"helpful_only": {"hf": "/nowhere/model"}}
    path = config(tmp_path, executor, models=models, serve={"helpful_only": server})
    assert cli.main(["run", str(path), "--output", str(tmp_path / "run"), "--dry-run", *flags]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#   the program no-such-vllm")]
    assert bool(listed) == here


def test_a_flag_for_slurm_needs_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    arguments = ["run", str(packaged_files.QUICKSTART), "--output", str(tmp_path / "run")]
    assert cli.main([*arguments, "--chain", "2"]) == 2
    assert "--executor slurm" in capsys.readouterr().err


def test_the_settings_of_the_page_are_valid_and_have_the_sizes_that_it_says(repo_root: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    example = (repo_root / "examples" / "nlp" / "cai" / "mistral_7b_slurm.yaml").read_text(encoding="utf-8")
    executors = 0
    for _, block in blocks_of(repo_root / "docs" / "cluster.rst", "yaml"):
        tree = yaml.safe_load(example)
        given = yaml.safe_load(block)
        if "kind" in given:
            continue  # Kubernetes'
        for name, section in given.items():
            tree[name] = tree.get(name, {}) | section
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        run = load_run_config(path)
        assert isinstance(run.executor, SlurmExecutor)
        executors += "executor" in given
        if "ppo" in given:
            found.append({step: [one.nodes for one in sizes(run, run.executor, step)] for step in (SFT, PPO)})
            found[-1]["gpus"] = [one.gpus for one in sizes(run, run.executor, PPO)]
            found[-1]["too large"] = [step.step for step in plan(recipe(run)) if not step.fits]
    assert executors == 3
    assert found == [
        {SFT: [2], PPO: [2, 2], "gpus": [8, 8], "too large": []},
        {SFT: [1], PPO: [1, 1], "gpus": [4, 4], "too large": []},
        {SFT: [1], PPO: [1, 1], "gpus": [1, 1], "too large": []},
    ]
