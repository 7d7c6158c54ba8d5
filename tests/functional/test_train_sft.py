# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Pretraining, SFT, resume, the .nemo file, tensor parallelism and the launcher."""

import importlib.util
import os
import pty
import re
import secrets
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.pipeline.config import Tracking
from nemo_aligner_cai.pipeline.steps import training
from nemo_aligner_cai.pipeline.steps.trainers import Trainer
from nemo_aligner_cai.pipeline.tracking import trainer_overrides
from nemo_aligner_cai.training.checkpoints import nemo_archive
from nemo_aligner_cai.training.checkpoints.stored_tensors import read_distributed
from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.launch.log_folder import last_step
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests import wandb_files
from tests.functional import world
from tests.functional.conftest import ENV, TIMEOUT_S, Lab, Run


def test_pretraining_learns_the_language(pretrained: Run, base: Path) -> None:
    losses = pretrained.series("reduced_train_loss")
    assert losses[0] > 2.5
    assert pretrained.series("val_loss")[-1] < 0.8
    assert base.is_file()
    assert not list(base.parent.glob(".nemo-*")), "the folder of the save is left behind"


def test_sft_loss_falls_and_the_model_is_saved(sft: Run) -> None:
    losses = sft.series("train/loss")
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert sft.nemo("cai_sft").is_file()
    said = re.findall(r"\[cai\] .*", sft.log.read_text(encoding="utf-8"))
    assert said[-1] == f"[cai] saved: {sft.nemo('cai_sft')}"
    assert any("step 20 of 20" in line for line in said)


def test_the_learning_rate_falls_over_the_stages_own_steps(lab: Lab, sft: Run) -> None:
    # The model's configuration has the 20 steps of its own training, and this stage has whole epochs.
    given = [
        *lab.sft_overrides(sft.nemo("cai_sft"), -1),
        "trainer.sft.max_epochs=1",
        "trainer.sft.limit_train_batches=4",
    ]
    given += ["trainer.sft.val_check_interval=4", "trainer.sft.save_interval=4", "model.optim.sched.min_lr=1e-5"]
    rates = lab.run("sft", "whole_epochs", *given).series("train/lr")
    assert len(rates) == 4 and rates[1] > 5e-4 and rates[-1] < 3e-4
    rates = lab.run("sft", "own_schedule", *given, "++model.optim.sched.max_steps=400").series("train/lr")
    assert rates[-1] > 9e-4, "the user's own length"


def on_a_terminal(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command whose standard error is a terminal, and the text that appeared there."""
    terminal, end = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        wide = {"COLUMNS": "200", "TERM": "xterm"}
        with subprocess.Popen(command, env=env | wide, stdout=subprocess.DEVNULL, stderr=end) as process:
            os.close(end)
            shown = b""
            # Reading the terminal of a process that is gone is an error.
            with suppress(OSError):
                while part := screen.read(4096):
                    shown += part
            code = process.wait(TIMEOUT_S)
    return code, re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "\n")


def test_b10_d11_a_finished_run_is_refused_and_a_new_one_says_little(lab: Lab, base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nemo_aligner_cai.cli", "train", "sft", *lab.sft_overrides(base, 2)]
    command += ["trainer.sft.val_check_interval=2", f"exp_manager.explicit_log_dir={tmp_path / 'log'}"]
    root = str(Path(__file__).resolve().parents[2])
    env = os.environ | ENV | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}

    def train(*more: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [*command, *more], env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        return done.returncode, (done.stdout + done.stderr).splitlines()

    code, lines = train()
    assert code == 0, lines[-30:]
    assert lines[-1] == f"[cai] saved: {tmp_path / 'log' / 'checkpoints' / 'cai_sft.nemo'}"
    assert len(lines) < 20, lines
    assert "Training steps" in (tmp_path / "log" / "output" / "rank0.log").read_text(encoding="utf-8")
    code, lines = train("model.optim.lr=1e-2")
    assert (code, len(lines)) == (2, 2)
    assert "finished run of 2 steps" in lines[-1]
    services = Tracking(wandb="cai", mlflow="cai" if importlib.util.find_spec("mlflow") else None)
    tracked = trainer_overrides(services, tmp_path / "run", "3_sft")
    key = secrets.token_hex(20)  # NeMo logs the working tree's differences, which may contain this file
    env |= {"WANDB_MODE": "offline", "WANDB_API_KEY": key, "WANDB_ERROR_REPORTING": "false"}
    code, screen = on_a_terminal([*command, *tracked, "trainer.sft.max_steps=4"], env)
    assert code == 0 and "resuming at step 2" in screen
    assert re.search(r"step \S* ?4/4 train/loss [\d.]+", screen), screen
    assert screen.strip().splitlines()[-1].startswith("[cai] saved: ")
    assert "[NeMo" not in screen
    (stored,) = (tmp_path / "log").rglob("*.wandb")
    assert [row["train/loss"] for row in wandb_files.history(stored) if "train/loss" in row] == [
        row["train/loss"] for row in list(read_metrics(tmp_path / "log"))[-3:] if "train/loss" in row
    ]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    if services.mlflow:
        from mlflow.tracking import MlflowClient

        client = MlflowClient((tmp_path / "run" / "mlruns").as_uri())
        (run,) = client.search_runs([client.get_experiment_by_name("cai").experiment_id])
        assert (
            run.data.tags["trainer"] == "run/3_sft"
            and len(client.get_metric_history(run.info.run_id, "train/loss")) == 2
        )


def test_b10_a_run_killed_before_its_model_is_written_writes_it_without_training_again(
    lab: Lab, base: Path, tmp_path: Path
) -> None:
    overrides = [*lab.sft_overrides(base, 2), "trainer.sft.val_check_interval=2"]
    whole = lab.run("sft", "two_steps", *overrides)
    log_dir = tmp_path / "train"
    overrides.append(f"exp_manager.explicit_log_dir={log_dir}")
    with pytest.raises(CaiError):
        jobs.finish(jobs.start("tests.functional.killed_job", overrides, tmp_path / "killed.log", ENV), TIMEOUT_S)
    assert last_step(log_dir) == 2 and not list(log_dir.rglob("*.nemo"))
    training.train(tmp_path, Trainer("sft", "cai_sft", tuple(overrides)), base)
    assert [row["step"] for row in read_metrics(log_dir) if "train/loss" in row] == [0, 1]
    written, expected = (weights(path) for path in (tmp_path / "model.nemo", whole.nemo("cai_sft")))
    assert written.keys() == expected.keys()
    assert all(written[name].equal(expected[name]) for name in expected)


def weights(path: Path) -> dict[str, Any]:
    """The weights of a .nemo file."""
    with tempfile.TemporaryDirectory() as folder:
        nemo_archive.unpack(path, Path(folder) / "unpacked")
        return read_distributed(Path(folder) / "unpacked" / "model_weights", lambda name: "_extra_state" not in name)


def test_a_reloaded_model_has_the_loss_it_was_saved_with(lab: Lab, sft: Run) -> None:
    # One step at rate 0 changes no weight, so what is validated is what the file holds.
    frozen = ["model.optim.lr=0", "model.optim.sched.min_lr=0", "trainer.sft.val_check_interval=1"]
    again = lab.run("sft", "reloaded", *lab.sft_overrides(sft.nemo("cai_sft"), 1), *frozen)
    assert again.series("val/loss")[-1] == pytest.approx(sft.series("val/loss")[-1], abs=1e-6)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(lab: Lab, base: Path, sft: Run) -> None:
    first = lab.run("sft", "resumed", *lab.sft_overrides(base, 10))
    assert len(first.series("train/loss")) == 10
    both = lab.run("sft", "resumed", *lab.sft_overrides(base, 20))
    assert [row["step"] for row in both.metrics if "train/loss" in row] == list(range(20))
    assert both.series("train/loss") == pytest.approx(sft.series("train/loss"), abs=1e-5)


def test_a1_a_file_that_is_replaced_under_its_name_is_trained_on_whole(lab: Lab, base: Path) -> None:
    data = lab.folder / "grows.jsonl"
    overrides = [
        *lab.sft_overrides(base, -1),
        *(f"model.data.{split}_ds.file_path={data}" for split in ("train", "validation")),
        "model.data.train_ds.micro_batch_size=4",
        "model.data.train_ds.global_batch_size=4",
        "trainer.sft.max_epochs=1",
        "trainer.sft.val_check_interval=100",
    ]
    for rows, verb in ((16, "see"), (48, "look at again")):
        world.write(data, [world.sft_row(verb, f"cat {number}", "yes") for number in range(rows)])
        # NeMo's own index of other content lies beside the file, as earlier versions left it.
        data.with_name("grows.jsonl.idx.npy").write_bytes(b"stale")
        data.with_name("grows.jsonl.idx.info").write_bytes(b"stale")
        steps = lab.run("sft", f"grows_{rows}", *overrides).series("train/loss")
        assert len(steps) == rows // 4


def test_a_checkpoint_whose_writing_was_interrupted_is_forgotten(tmp_path: Path) -> None:
    from nemo_aligner_cai.training import assembly
    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    for name in ("step=10", "step=20-last"):
        (tmp_path / name).mkdir()
    (tmp_path / "step=20-last-unfinished").touch()
    assembly.remove_unfinished_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step=10"]
    assembly.remove_unfinished_checkpoints(tmp_path / "absent")


def test_two_tensor_parallel_processes_have_the_losses_of_one(lab: Lab, base: Path, sft: Run) -> None:
    log_dir = lab.folder / "tp2"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "nemo_aligner_cai.training.sft", *lab.sft_overrides(base, 5)]
    # Megatron pads the vocabulary to a multiple of this times the processes: 64 pieces either way.
    command += ["++model.make_vocab_size_divisible_by=32"]
    command += ["trainer.devices=2", "model.tensor_model_parallel_size=2", f"exp_manager.explicit_log_dir={log_dir}"]
    command += ["trainer.sft.val_check_interval=5", "exp_manager.create_checkpoint_callback=false"]
    # The checkout's root: a test may run where the package is not installed.
    root = str(Path(__file__).resolve().parents[2])
    env = os.environ | ENV | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [row["train/loss"] for row in read_metrics(log_dir) if "train/loss" in row]
    assert losses == pytest.approx(sft.series("train/loss")[:5], abs=1e-3)
