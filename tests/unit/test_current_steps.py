# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A folder in which settings have changed: results of earlier settings are not shown as those of the run."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_run import Sizes, make_run
from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import read_json, write_json
from nemo_aligner_cai.pipeline import metrics, run_record
from nemo_aligner_cai.pipeline.config import RunConfig, load_run_config
from nemo_aligner_cai.pipeline.executors.status import status
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache
from nemo_aligner_cai.report.report import report_html
from nemo_aligner_cai.report.run_folder import RunFolder

A, B, C = NAMES = ("1_data", "3_sft", "7_measure")
_packed = itertools.count()


@pytest.fixture(autouse=True)
def _few_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "_PACKAGES", ("pytest",))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_run_config(packaged_files.QUICKSTART)


def three(folder: Path, source: Path, content: str = "rows") -> tuple[Step, ...]:
    """Three steps, each of which reads the one before; the second makes a model, whose bytes are never the same."""

    def data(at: Path) -> Mapping[str, Any]:
        if content == "fails":
            raise CaiError("no data")
        (at / "rows.jsonl").write_text(content)
        return {}

    def model(at: Path) -> Mapping[str, Any]:
        (at / "model.nemo").write_text(str(next(_packed)))
        return {}

    def figures(at: Path) -> Mapping[str, Any]:
        (at / "figures.json").write_text("{}")
        return {}

    return (
        Step(A, "Step A", (source,), ("rows.jsonl",), {"content": content}, data),
        Step(B, "Step B", (folder / A / "rows.jsonl",), ("model.nemo",), {}, model),
        Step(C, "Step C", (folder / B / "model.nemo",), ("figures.json",), {}, figures),
    )


def execute(folder: Path, config: RunConfig, steps: Sequence[Step], names: Collection[str] = NAMES) -> None:
    """Write run.json and run some of the steps, as `Pipeline` does."""
    folder.mkdir(exist_ok=True)
    run_record.write_run_record(folder, config, packaged_files.CONSTITUTION, steps)
    cache = StepCache(folder)
    for step in steps:
        if step.name in names:
            cache.run(step)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("input")
    return path


@pytest.fixture
def folder(tmp_path: Path, source: Path, config: RunConfig) -> Path:
    """A run that is done."""
    path = tmp_path / "run"
    execute(path, config, three(path, source))
    return path


def missing(folder: Path) -> dict[str, bool]:
    """The steps that the report misses, and if they have results of earlier settings."""
    return {step.name: step.outdated for step in RunFolder(folder).missing}


def state(folder: Path) -> dict[str, str]:
    return {one.step: one.state for one in status(folder)}


def is_complete(folder: Path) -> bool:
    return ">complete<" in report_html(RunFolder(folder))


def test_a_run_whose_steps_are_all_done_is_complete(folder: Path) -> None:
    assert missing(folder) == {} and is_complete(folder)
    assert state(folder) == dict.fromkeys(NAMES, "done")


def test_after_a_change_the_steps_that_have_not_run_again_are_missing(
    folder: Path, source: Path, config: RunConfig
) -> None:
    execute(folder, config, three(folder, source, "other rows"), [A])
    assert missing(folder) == {B: True, C: True}
    assert RunFolder(folder).find("figures.json") is None
    assert not is_complete(folder)
    assert "earlier settings" in report_html(RunFolder(folder))
    assert state(folder) == {A: "done", B: "outdated", C: "outdated"}


def test_after_a_change_whose_step_fails_nothing_later_is_shown(folder: Path, source: Path, config: RunConfig) -> None:
    with pytest.raises(CaiError):
        execute(folder, config, three(folder, source, "fails"))
    assert missing(folder) == {A: False, B: True, C: True}


def test_the_first_settings_make_the_later_steps_current_again(folder: Path, source: Path, config: RunConfig) -> None:
    execute(folder, config, three(folder, source, "other rows"), [A])
    execute(folder, config, three(folder, source), [A])
    assert missing(folder) == {} and is_complete(folder)


def test_an_input_under_another_path_and_a_moved_run_stay_complete(
    folder: Path, source: Path, config: RunConfig, tmp_path: Path
) -> None:
    before = (folder / B / "model.nemo").read_text()
    moved = source.rename(tmp_path / "moved.txt")
    elsewhere = Path(shutil.move(folder, tmp_path / "elsewhere"))
    assert missing(elsewhere) == {}
    execute(elsewhere, config, three(elsewhere, moved))
    assert missing(elsewhere) == {}
    assert (elsewhere / B / "model.nemo").read_text() == before, "no step has run again"


def test_steps_that_run_one_by_one_are_current_though_an_input_has_moved(
    folder: Path, source: Path, config: RunConfig, tmp_path: Path
) -> None:
    """Slurm's jobs only ask for the steps that their own step needs, and leave their records as they are."""
    moved = source.rename(tmp_path / "another environment")
    steps, cache = three(folder, moved), StepCache(folder)
    run_record.write_run_record(folder, config, packaged_files.CONSTITUTION, steps)
    for step in steps[:-1]:
        cache.require(step)
    cache.run(steps[-1])
    assert missing(folder) == {} and cache.current(steps) is not None


def test_records_of_an_earlier_version_count_as_before_and_are_completed_by_the_next_run(
    folder: Path, source: Path, config: RunConfig
) -> None:
    new = ("settings_hash", "reads", "identities")
    records = {name: read_json(folder / name / "step.json") for name in NAMES}
    for name, record in records.items():
        old = {key: value for key, value in record.items() if key not in new}
        write_json(folder / name / "step.json", old, overwrite=True)
    assert missing(folder) == {}
    execute(folder, config, three(folder, source))
    assert {name: read_json(folder / name / "step.json") for name in NAMES} == records


def test_steps_of_another_method_are_left_out(tmp_path: Path) -> None:
    ppo = ("1_data", "2_sl_cai", "3_sft", "4_rl_cai", "5_reward_model", "6_ppo", "7_measure")
    dpo = ("1_data", "2_sl_cai", "3_sft", "4_rl_cai", "5_dpo", "7_measure")
    folder = make_run(tmp_path / "run", Sizes(), steps=(*ppo, "5_dpo"), planned=dpo)
    run = RunFolder(folder)
    assert [step.name for step in run.steps] == list(dpo)
    assert [step.name for step, _ in run.log_folders()] == ["3_sft", "5_dpo"]
    assert "(6_ppo)" not in report_html(run)


def test_the_evaluation_of_an_outdated_step_is_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", Sizes(), steps=("1_data", "8_evaluate"), planned=("1_data", "8_evaluate"))
    (folder / "8_evaluate" / "evaluation.json").write_text("{}")
    assert RunFolder(folder).evaluation_file == folder / "8_evaluate" / "evaluation.json"
    for name, record in (("run.json", None), ("8_evaluate/step.json", {"settings_hash": "of earlier settings"})):
        content = json.loads((folder / name).read_text())
        for step in content.get("steps", ()):
            step["settings_hash"] = "of these settings"
        write_json(folder / name, content | (record or {}), overwrite=True)
    assert missing(folder) == {"8_evaluate": True}
    assert RunFolder(folder).evaluation_file is None


def test_steps_that_run_one_by_one_give_the_metrics_of_all(
    tmp_path: Path, source: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("sentencepiece")
    from nemo_aligner_cai.pipeline.run import Pipeline

    folder = tmp_path / "run"
    pipeline = Pipeline(config, folder)
    made = three(folder, source)
    # The last one reads from the first alone, as an evaluation does not read the measurement.
    steps = (*made[:2], replace(made[2], reads=(folder / A / "rows.jsonl",)))
    monkeypatch.setattr(pipeline, "steps", lambda: steps)
    monkeypatch.setattr(metrics, "_measured", lambda figures: {"measured": True})
    metrics_file = folder / "metrics.json"
    pipeline.run_step(A)
    pipeline.run_step(C)
    assert not metrics_file.exists(), "a step is not done"
    pipeline.run_step(B)
    assert list(read_json(metrics_file)["steps"]) == list(NAMES)
    metrics_file.unlink()
    pipeline.run_step(C)
    assert list(read_json(metrics_file)["steps"]) == list(NAMES)
    metrics_file.unlink()
    steps = (*three(folder, source, "other rows")[:2], steps[2])
    pipeline.run_step(A)
    assert not metrics_file.exists(), "the others are done with earlier settings"


def test_every_file_that_a_step_reads_is_an_output_of_an_earlier_one(tmp_path: Path, config: RunConfig) -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("sentencepiece")
    from nemo_aligner_cai.pipeline.run import Pipeline

    made: dict[str, tuple[str, ...]] = {}
    count = 0
    for step in Pipeline(config, tmp_path / "run").steps():
        for path in step.reads:
            if path.is_relative_to(tmp_path / "run"):
                maker, _, file = path.relative_to(tmp_path / "run").as_posix().partition("/")
                assert file in made[maker]
                count += 1
        made[step.name] = step.makes
    assert count > 20
