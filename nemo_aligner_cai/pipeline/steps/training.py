# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The training steps: resuming an interrupted attempt, and collecting the trained model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.known_answers.reward_scores import SCORES_FILE
from nemo_aligner_cai.evaluation.known_answers.reward_server import RewardServer, read_pairs, scored_pairs
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.pipeline.config import Training
from nemo_aligner_cai.pipeline.layout import ADAPTERS, DPO, MODEL, PPO, REWARD_MODEL, RL_CAI, SFT, SL_CAI
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.pipeline.steps import trainers
from nemo_aligner_cai.pipeline.steps.checkpoint_pairs import CheckpointPairs
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.pipeline.steps.trainers import LOG_DIR, Trainer, merge
from nemo_aligner_cai.sections import Section
from nemo_aligner_cai.training.launch import jobs, srun
from nemo_aligner_cai.training.metrics.files import NewRows, read_metrics, read_steps
from nemo_aligner_cai.training.metrics.progress import TrainingProgress

_CRITIC_DIR = "critic"
_PAIRS_DIR = "checkpoint_pairs"
_MOST_SCORED = 1000
"""Held-out pairs that are scored; more would keep the GPUs of the actor waiting."""


def sft_step(run: RunContext) -> Step:
    """SFT of the base model on the revisions."""
    base, section = run.files.nemo("base"), run.config.sft
    rows = (run.layout.file(SL_CAI, f"{split}.jsonl") for split in ("train", "validation"))
    title = "Step 3: fine-tuning on the revisions (SFT)"
    return _step(run, SFT, title, section, (base, *rows), lambda: trainers.sft(run), base)


def reward_model_step(run: RunContext) -> Step:
    """The reward model on the comparisons."""
    section = run.config.reward_model
    assert section is not None, "a run by PPO has it"
    reads, start = (run.sl_cai_model, *_pairs(run, "rm")), run.sl_cai_model
    return _step(run, REWARD_MODEL, "Step 5: reward model", section, reads, lambda: trainers.reward_model(run), start)


def dpo_step(run: RunContext) -> Step:
    """DPO of the SL-CAI model on the comparisons."""
    section, start = run.config.dpo, run.sl_cai_model
    assert section is not None, "a run without PPO has it"
    title = "Step 5: direct preference optimization (DPO)"
    return _step(run, DPO, title, section, (start, *_pairs(run, "rm")), lambda: trainers.dpo(run), start)


def ppo_step(run: RunContext) -> Step:
    """NeMo-Aligner's PPO: the actor, and a server that is critic and reward model."""
    assert run.config.ppo is not None, "a run by PPO has it"
    _, held_out = _pairs(run, "rm")

    def work(folder: Path) -> Mapping[str, Any]:
        host, port = srun.this_host(), jobs.free_port()
        critic, actor = (make(run, host=host, port=port) for make in (trainers.critic, trainers.actor))
        return train_ppo(folder, critic, actor, run.sl_cai_model, held_out=held_out, address=(host, port))

    return Step(
        PPO,
        "Step 6: PPO against the reward model",
        reads=(run.sl_cai_model, run.layout.file(REWARD_MODEL, MODEL), *_pairs(run, "ppo"), held_out),
        makes=(MODEL, SCORES_FILE),
        settings=_settings(run, run.config.ppo),
        work=work,
    )


def _step(
    run: RunContext,
    name: str,
    title: str,
    section: Training,
    reads: tuple[Path, ...],
    trainer: Callable[[], Trainer],
    base: Path,
) -> Step:
    return Step(
        name,
        title,
        reads=reads,
        makes=(MODEL,),
        settings=_settings(run, section),
        work=lambda folder: train(folder, trainer(), base),
    )


def _settings(run: RunContext, section: Section) -> dict[str, Any]:
    # The numbers of the GPUs are those of a machine.
    own = section.model_dump(exclude={"gpus", "critic_gpus", "actor_gpus"})
    return run.settings(own | ({"hardware": run.config.hardware} if run.config.hardware else {}))


def _pairs(run: RunContext, kind: str) -> tuple[Path, ...]:
    return tuple(run.layout.file(RL_CAI, f"{kind}_{split}.jsonl") for split in ("train", "test"))


def run(
    trainer: Trainer,
    folder: Path,
    *,
    servers: Sequence[jobs.Job] = (),
    component: int = 0,
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run a training stage, logging into the step's folder, and show its progress.

    `watch` is called several times a second; `jobs.start` describes `component`.

    Raises:
        CaiError: it or one of its servers failed.
    """
    env, log = jobs.visible_gpus(trainer.gpus), folder / "train.log"
    with _progress(trainer.module.replace("_", " "), folder / LOG_DIR) as show:

        def show_and_watch() -> None:
            show()
            watch()

        job = jobs.start(trainer.path, trainer.overrides, log, env, component=component)
        jobs.finish(job, servers=servers, watch=show_and_watch)


@contextmanager
def _progress(title: str, log_dir: Path) -> Generator[Callable[[], None]]:
    """Yield a function that shows the steps that a trainer has logged since its last call."""
    progress, rows, started = TrainingProgress(title), NewRows(log_dir), False

    def watch() -> None:
        nonlocal started
        for row in rows.read():
            # The trainer writes the number of its steps before it logs the first.
            if not started and (steps := read_steps(log_dir)) is not None:
                progress.start(steps)
                started = True
            if row["step"] is not None:
                progress.update(row, row["step"])

    try:
        yield watch
        watch()
    finally:
        progress.close()


def train(folder: Path, trainer: Trainer, base: Path) -> Mapping[str, Any]:
    """Run a trainer in its step's folder; its adapters, if it trains any, are merged into `base`."""
    return _train_whole(folder, trainer, base, lambda: run(trainer, folder))


def train_ppo(
    folder: Path, critic: Trainer, actor: Trainer, base: Path, *, held_out: Path, address: tuple[str, int]
) -> Mapping[str, Any]:
    """Run PPO's actor with its critic server, each on its own GPUs.

    `base` is the model that the actor starts from; `address` is the server's host and port. Before the actor starts,
    the server scores the first pairs of `held_out`, a file in the reward model's format.
    """

    def work() -> None:
        pairs = CheckpointPairs(folder / _PAIRS_DIR, actor=folder / LOG_DIR, critic=folder / _CRITIC_DIR)
        pairs.resume()
        env, log = jobs.visible_gpus(critic.gpus), folder / "critic.log"
        with jobs.server(critic.path, critic.overrides, log, jobs.critic_urls(*address), env=env) as job:
            # Here, since the server has the reward model, and the report needs rewards of pairs.
            rows = scored_pairs(islice(read_pairs(held_out), _MOST_SCORED), RewardServer(*address))
            write_jsonl(folder / SCORES_FILE, rows, overwrite=True)
            run(actor, folder, servers=[job], component=srun.ACTOR, watch=pairs.keep)

    return _train_whole(folder, actor, base, work)


def _train_whole(folder: Path, trainer: Trainer, base: Path, work: Callable[[], None]) -> Mapping[str, Any]:
    if not trainer.adds_adapters:
        return train_and_collect(folder, work)
    adapters, model = folder / ADAPTERS, folder / MODEL
    if not adapters.is_file():
        train_and_collect(folder, work, name=ADAPTERS)
    model.unlink(missing_ok=True)
    merging = merge(base, adapters, model)
    jobs.finish(jobs.start(merging.path, merging.overrides, folder / "merge.log", tasks=1))
    return {"metrics": last_metrics(folder / LOG_DIR)}


def last_metrics(log_dir: Path) -> dict[str, Any]:
    """The last logged value of each metric of a trainer."""
    merged: dict[str, Any] = {}
    for row in read_metrics(log_dir):
        merged.update({name: value for name, value in row.items() if value is not None})
    return merged


def train_and_collect(folder: Path, train: Callable[[], None], *, name: str = MODEL) -> Mapping[str, Any]:
    """Train, move the .nemo file into the step's folder under a name, and remove the checkpoints.

    An interrupted attempt resumes from its checkpoint.
    """
    log_dir = folder / LOG_DIR
    for partial in (log_dir / "checkpoints").glob("*.nemo"):
        partial.unlink()
    train()
    found = list((log_dir / "checkpoints").glob("*.nemo"))
    if not found:
        raise CaiError(f"{log_dir}: training wrote no .nemo file; see {folder / 'train.log'}")
    found[0].replace(folder / name)
    # The pair is the last: a stop in between can still resume from it.
    for part in (f"{LOG_DIR}/checkpoints", f"{_CRITIC_DIR}/checkpoints", _PAIRS_DIR):
        shutil.rmtree(folder / part, ignore_errors=True)
    return {"metrics": last_metrics(log_dir)}
