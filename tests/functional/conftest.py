# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One tiny base model for the whole session, and the runs that start from it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests.functional import world
from tests.functional.processes import kill
from tests.functional.small_run import Runs

PACKAGE = "nemo_aligner_cai.training"
TIMEOUT_S = 240
# One thread each: two jobs share the machine, and numbers stay the same whatever its size.
ENV = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Run:
    """A finished stage."""

    log_dir: Path
    log: Path
    metrics: list[dict[str, Any]]

    def series(self, key: str) -> list[float]:
        """The values of one metric, in order."""
        return [row[key] for row in self.metrics if key in row]

    def nemo(self, name: str) -> Path:
        """The model that the stage saved."""
        return self.log_dir / "checkpoints" / f"{name}.nemo"


class Lab:
    """A folder with the world's files, in which stages run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        world.build(folder)

    def run(self, stage: str, name: str, *overrides: str) -> Run:
        """Run a stage to its end, with its log directory at `name`; fails with its log's last lines."""
        log_dir = self.folder / name
        log = self.folder / f"{name}.log"
        job = jobs.start(f"{PACKAGE}.{stage}", [*overrides, f"exp_manager.explicit_log_dir={log_dir}"], log, ENV)
        jobs.finish(job, TIMEOUT_S)
        return Run(log_dir, log, list(read_metrics(log_dir)))

    def splits(self, prefix: str) -> str:
        """The override that names one kind of files."""
        train, test = (self.folder / f"{prefix}_{split}.jsonl" for split in ("train", "test"))
        return f"model.data.data_prefix={{train: [{train}], validation: [{test}], test: [{test}]}}"

    def sft_overrides(self, model: Path, steps: int) -> list[str]:
        """SFT at a constant rate after one step, so that runs of different length agree step by step."""
        return [
            f"model.restore_from_path={model}",
            f"model.data.train_ds.file_path={self.folder / 'sft_train.jsonl'}",
            f"model.data.validation_ds.file_path={self.folder / 'sft_test.jsonl'}",
            "model.data.train_ds.micro_batch_size=16",
            "model.data.train_ds.global_batch_size=16",
            "model.optim.lr=1e-3",
            "model.optim.sched.min_lr=1e-3",
            "model.optim.sched.warmup_steps=1",
            "trainer.sft.max_epochs=100",
            f"trainer.sft.max_steps={steps}",
            "trainer.sft.limit_val_batches=1",
            "trainer.sft.val_check_interval=10",
        ]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    os.environ.pop("NEMO_TESTING", None)
    jobs.warm_up()
    return Lab(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def pretrained(lab: Lab) -> Run:
    """A model of 2 layers of 64 that has learnt the world's sentences."""
    return lab.run(
        "pretrain",
        "pretrain",
        f"corpus.file={lab.folder / 'corpus.jsonl'}",
        f"model.tokenizer.model={lab.folder / 'tokenizer.model'}",
        f"output={lab.folder / 'base.nemo'}",
        "model.num_layers=2",
        "model.hidden_size=64",
        f"model.encoder_seq_length={world.TOKENS}",
        "trainer.max_steps=120",
        "model.optim.sched.warmup_steps=10",
    )


@pytest.fixture(scope="session")
def base(lab: Lab, pretrained: Run) -> Path:
    return lab.folder / "base.nemo"


@pytest.fixture(scope="session")
def sft(lab: Lab, base: Path) -> Run:
    return lab.run("sft", "sft", *lab.sft_overrides(base, 20))


@pytest.fixture(scope="session")
def reward_model(lab: Lab, sft: Run) -> Run:
    return lab.run(
        "reward_model",
        "rm",
        f"pretrained_checkpoint.restore_from_path={sft.nemo('cai_sft')}",
        lab.splits("rm"),
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.optim.lr=1e-3",
        "trainer.rm.max_epochs=100",
        "trainer.rm.max_steps=15",
        "trainer.rm.val_check_interval=15",
        "trainer.rm.save_interval=15",
    )


@pytest.fixture
def free_port() -> int:
    return jobs.free_port()


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """Runs of this module; whatever is left at the end is ended."""
    made = Runs()
    yield made
    kill(made.alive())
