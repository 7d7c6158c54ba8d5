# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The command that `cai train` runs: NeMo-Aligner's script, this package's module, or torchrun."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from nemo_aligner_cai import cli, packaged_files
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.training import config, sft
from nemo_aligner_cai.training.launch import entry, stage_main

_UPSTREAM = ["-m", "nemo_aligner_cai.training.upstream_script"]
_RANKS = {
    "torchrun": {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    "srun": {
        **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_PROCID": "0"},
        **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NAME": "cai"},
    },
    "mpirun": {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
}
# As sbatch starts its script: the first of eight tasks by its variables, where nobody has started the others.
_BATCH = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train.sh"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for upstream's scripts, on a machine with eight GPUs."""
    folder = tmp_path / "aligner" / "examples" / "nlp" / "gpt"
    folder.mkdir(parents=True)
    for name in entry.SCRIPTS.values():
        (folder / name).touch()
    monkeypatch.setenv(entry.HOME, str(tmp_path / "aligner"))
    monkeypatch.setattr(stage_main, "gpu_count", lambda: 8)
    for names in _RANKS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    turns = [{"from": "User", "value": "a", "label": None}, {"from": "Assistant", "value": "b", "label": None}]
    data = tmp_path / "sft, 1.jsonl"
    data.write_text((json.dumps({"system": "", "conversations": turns, "mask": "User"}) + "\n") * 200)
    return [
        f"model.restore_from_path={packaged_files.MODEL}",
        f"model.data.train_ds.file_path='{data}'",
        f"model.data.validation_ds.file_path='{data}'",
        f"exp_manager.explicit_log_dir={tmp_path / 'log'}",
    ]


def command(overrides: list[str], trainer: str = "auto") -> list[str] | None:
    arguments = stage_main.with_hardware(stage_main.parse_flags(overrides, "cai_sft"), for_cluster=False)
    module = "nemo_aligner_cai.training.sft"
    return entry.command("sft", sft.STAGE, module, arguments, stage_main.compose(arguments), trainer)


def test_upstreams_script_is_started_with_our_config(
    home: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "sft", "--print-command", *overrides, "trainer.devices=1"]) == 0
    printed = shlex.split(capsys.readouterr().out)
    expected = [str(home / "train_gpt_sft.py"), "--config-name=cai_sft", *overrides, "trainer.devices=1"]
    assert printed[:-2] == [sys.executable, *_UPSTREAM, *expected]


def index_folders(started: list[str] | None) -> list[str]:
    assert started is not None
    return [word.partition("=")[2].strip("'") for word in started if "index_mapping_dir" in word]


def test_a1_upstreams_script_keeps_the_index_of_each_content_in_a_folder_of_its_own(
    home: Path, overrides: list[str], tmp_path: Path
) -> None:
    one = [*overrides, "trainer.devices=1"]
    before = index_folders(command(one))
    assert len(before) == 2
    assert all(Path(folder).parent == tmp_path / "log" / "data_index" for folder in before)
    data = tmp_path / "sft, 1.jsonl"
    row = data.read_bytes().splitlines(keepends=True)[0]
    at = data.stat().st_mtime
    data.write_bytes(row * 201)
    os.utime(data, (at, at))  # content decides, not time
    after = index_folders(command(one))
    assert set(before).isdisjoint(after)
    data.write_bytes(row * 200)
    assert index_folders(command(one)) == before
    # The processes of a job come to the same folder by themselves.
    given = [f"model.data.{split}.index_mapping_dir='{before[0]}'" for split in ("train_ds", "validation_ds")]
    assert index_folders(command([*one, *given])) == [before[0]] * 2
    assert "data_processor=none" not in (command(one) or [])


def test_a1_a_folder_for_indexes_that_is_given_has_one_for_each_content(
    home: Path, overrides: list[str], tmp_path: Path
) -> None:
    given = f"model.data.train_ds.index_mapping_dir={tmp_path / 'own'}"
    folders = index_folders(command([*overrides, "trainer.devices=1", given]))
    assert Path(folders[-2]).parent == tmp_path / "own"


def test_several_devices_are_several_processes(home: Path, overrides: list[str]) -> None:
    started = command(overrides)
    assert started is not None
    assert started[1:4] == ["-m", "nemo_aligner_cai.training.launch.local_ranks", "--nproc-per-node=8"]
    assert started[4:7] == [*_UPSTREAM, str(home / "train_gpt_sft.py")]
    ours = command(overrides, "ours")
    assert ours is not None
    assert ours[4:6] == ["-m", "nemo_aligner_cai.training.sft"]
    assert command([*overrides, "trainer.devices=1"], "ours") is None


@pytest.mark.parametrize("launcher", _RANKS)
def test_one_of_several_processes_starts_no_others(
    launcher: str, home: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _RANKS[launcher].items():
        monkeypatch.setenv(name, value)
    two = [*overrides, "trainer.num_nodes=2", "trainer.devices=1"]
    started = command(two)
    assert started is not None
    assert started[1:4] == [*_UPSTREAM, str(home / "train_gpt_sft.py")]
    assert command(two, "ours") is None


def test_a_batch_script_is_no_rank(home: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _BATCH.items():
        monkeypatch.setenv(name, value)
    started = command(overrides, "ours")
    assert started is not None
    assert started[1:4] == ["-m", "nemo_aligner_cai.training.launch.local_ranks", "--nproc-per-node=8"]
    # One process, or as many as Lightning starts by itself: with the variable it would wait for seven others.
    for devices in ("1", "auto", "-1", "[0,1]"):
        alone = [*overrides, f"trainer.devices={devices}"]
        started = command(alone)
        assert started is not None
        assert started[:4] == ["/usr/bin/env", "-u", "SLURM_NTASKS", sys.executable]
        assert started[4:7] == [*_UPSTREAM, str(home / "train_gpt_sft.py")]
        assert command(alone, "ours") is None
    arguments = stage_main.with_hardware(stage_main.parse_flags(overrides, "cai_sft"), for_cluster=False)
    with pytest.raises(UsageError, match=r"^cai_sft: no value for"):
        stage_main.execute(sft.STAGE, arguments, config.compose("cai_sft", []))
    assert "SLURM_NTASKS" not in os.environ


def test_more_gpus_than_there_are(home: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_main, "gpu_count", lambda: 2)
    for stage in ("upstream", "ours"):
        with pytest.raises(UsageError, match=r"^trainer\.devices=8: this machine has 2 GPUs"):
            command(overrides, stage)


def test_several_nodes_need_a_launcher(home: Path, overrides: list[str]) -> None:
    with pytest.raises(UsageError, match=r"`srun --nodes=2 --ntasks-per-node=8 .* `torchrun --nnodes=2"):
        command([*overrides, "hardware=2x8xh100"])


def test_mistakes_are_found_before_upstreams_script_starts(home: Path, overrides: list[str]) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        command([*overrides, "model.data.train_ds.file_path=absent.jsonl"])
    (home / "train_gpt_sft.py").unlink()
    with pytest.raises(UsageError, match="--trainer upstream: there is no script for sft"):
        command(overrides, "upstream")


def test_without_a_gpu_our_module_does_the_work(
    home: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_main, "gpu_count", lambda: 0)
    assert command(overrides) is None
    theirs = command(overrides, "upstream")
    assert theirs is not None
    assert "hardware=cpu" in theirs


def test_mistakes_are_found_before_several_processes_start(home: Path, overrides: list[str]) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        command([*overrides, "model.data.train_ds.file_path=absent.jsonl"], "ours")


def test_converted_files_reach_upstreams_script(home: Path, overrides: list[str], tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    raw.write_text((json.dumps({"messages": messages}) + "\n") * 200)
    paths = [f"model.data.{split}_ds.file_path={raw}" for split in ("train", "validation")]
    started = command([overrides[0], *paths, overrides[3], "data_processor=auto", "trainer.devices=1"])
    assert started is not None
    assert started[-1] == "data_processor=none"
    key = "++model.data.validation_ds.file_path="
    (last,) = [word.removeprefix(key).strip("'") for word in started if word.startswith(key)]
    assert sum(1 for _ in read_jsonl(last)) == 200
    assert all("conversations" in row for _, row in read_jsonl(last))


@pytest.fixture
def login_node(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPUs that submits jobs."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv(entry.HOME)
    monkeypatch.setattr(stage_main, "gpu_count", lambda: 0)


@pytest.mark.usefixtures("login_node")
def test_a_login_node_prints_the_clusters_command(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "sft", "--print-command", *overrides]) == 0
    printed = shlex.split(capsys.readouterr().out)
    assert printed[1:4] == ["-m", "nemo_aligner_cai.training.launch.local_ranks", "--nproc-per-node=8"]
    assert not any("hardware=cpu" in word for word in printed)
    assert cli.main(["train", "sft", "--print-command", "hardware=2x8xh100", *overrides]) == 0
    printed = shlex.split(capsys.readouterr().out)
    assert printed[:6] == ["srun", "--nodes=2", "--ntasks-per-node=8", sys.executable, "-m", sft.__name__]


@pytest.mark.usefixtures("login_node")
def test_inside_a_job_a_machine_prints_its_own_command(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert cli.main(["train", "sft", "--print-command", *overrides]) == 0
    assert "hardware=cpu" in shlex.split(capsys.readouterr().out)
