# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a run leaves about itself: `run.json`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.constitution.loading import load_constitution
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.pipeline import run_record
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.pipeline.step_cache import Step, settings_hash


def test_it_has_the_settings_the_principles_and_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "_PACKAGES", ("pytest",))
    config = load_run_config(packaged_files.QUICKSTART, ["seed=7"])
    step = Step("1_data", "Step 1: data", (), (), {}, lambda folder: {})
    run_record.write_run_record(tmp_path, config, packaged_files.CONSTITUTION, [step])
    record = read_json(tmp_path / "run.json")
    assert record["settings"]["seed"] == 7
    assert type(config).model_validate(record["settings"]) == config
    principles = load_constitution(packaged_files.CONSTITUTION).principles
    assert [one["id"] for one in record["constitution"]["principles"]] == [one.id for one in principles]
    assert record["constitution"]["principles"][0]["judge"] == principles[0].judge_request
    (shown,) = record["steps"]
    assert (shown["name"], shown["title"]) == ("1_data", "Step 1: data")
    assert shown["settings_hash"] == settings_hash(step, tmp_path)
    assert record["versions"]["pytest"] == pytest.__version__
