# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The environment variables that jobs of a run get: those that its configuration uses, by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from nemo_aligner_cai import cli
from nemo_aligner_cai.pipeline.executors import cluster
from nemo_aligner_cai.pipeline.executors.environment import used_variables
from nemo_aligner_cai.pipeline.layout import SFT
from tests.unit.fake_slurm import FakeSlurm
from tests.unit.slurm_config import SLURM, config, loaded

VALUE = "a-secret-value"
SET = {
    name: VALUE
    for name in (
        *("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"),
        *("HF_TOKEN", "HF_HOME", "HUGGING_FACE_HUB_TOKEN"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "GOOGLE_APPLICATION_CREDENTIALS"),
        *("OTHER", "MY_WANDB_KEY"),
    )
}


def endpoint(key: str) -> dict[str, Any]:
    return {"endpoint": "http://127.0.0.1:9/v1", "model": "m", "key_env": key, "identity": "m"}


_GRADED = {"sets": [{"name": "a", "file": "a.csv"}], "grader": ["xstest"]}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, ()),
        ({"models": {"judge": endpoint("JUDGE_KEY")}}, ("JUDGE_KEY",)),
        ({"models": {"helpful_only": endpoint("KEY"), "base": "tiny", "judge": endpoint("KEY")}}, ("KEY",)),
        ({"evaluate": _GRADED | {"grader_model": endpoint("GRADER_KEY")}}, ("GRADER_KEY",)),
        ({"tracking": {"wandb": "cai"}}, ("WANDB_API_KEY", "WANDB_MODE")),
        ({"tracking": {"mlflow": "cai"}}, ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI")),
        ({"models": {"judge": {"hf": "owner/name"}}}, ("HF_HOME", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")),
        ({"data": {"red_team": {"hf": "owner/name"}}}, ("HF_HOME", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")),
        ({"data": {"red_team": {"path": "s3://bucket/a.jsonl"}}}, ("AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY")),
        ({"data": {"red_team": {"path": "gs://bucket/a.jsonl"}}}, ("GOOGLE_APPLICATION_CREDENTIALS",)),
    ],
)
def test_a_configuration_uses_the_variables_of_its_services(
    tmp_path: Path, sections: dict[str, Any], expected: tuple[str, ...]
) -> None:
    run, _ = loaded(tmp_path, SLURM, **sections)
    assert used_variables(run, SET) == expected


def test_jobs_get_the_variables_by_their_names(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", VALUE)
    monkeypatch.setenv("NGC_API_KEY", VALUE)
    monkeypatch.setenv("AWS_REGION", VALUE)
    sections = {
        "models": {"judge": endpoint("JUDGE_KEY")},
        "data": {"red_team": {"path": "s3://bucket/a.jsonl"}},
    }
    run, slurm = loaded(tmp_path, SLURM | {"secrets": ["NGC_API_KEY"]}, **sections)
    request = cluster.Request(run, slurm, tmp_path / "run", ("run.yaml",), step=SFT)
    printed = cluster.print_run(request)
    cluster.submit_run(request)
    for text in ((tmp_path / "run" / "slurm" / f"{SFT}.sbatch").read_text(), printed):
        (line,) = (line for line in text.splitlines() if line.startswith("#SBATCH --export="))
        names = line.removeprefix("#SBATCH --export=").split(",")
        assert {"PATH", "JUDGE_KEY", "NGC_API_KEY", "AWS_REGION"} <= set(names)
        assert len(names) == len(set(names))
        assert VALUE not in text


def test_a_key_that_is_not_set_is_missed_before_anything_is_submitted(
    fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    path = config(tmp_path, SLURM, models={"judge": endpoint("JUDGE_KEY")})
    assert cli.main(["run", str(path), "--output", str(tmp_path / "run")]) == 2
    assert "JUDGE_KEY" in capsys.readouterr().err
    assert not fake_slurm.calls("sbatch")
