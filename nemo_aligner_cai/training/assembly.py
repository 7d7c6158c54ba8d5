# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The setup that all NeMo-Aligner stages share, in the order of upstream's scripts.

configuration -> Lightning trainer and loggers -> model from a .nemo -> process groups -> data -> optimizer,
scheduler and checkpoint callback. All of these are upstream's; this module only connects them.
"""

from __future__ import annotations

import gc
import logging
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training.checks import schedule
from nemo_aligner_cai.training.checks.ranks import is_first_rank
from nemo_aligner_cai.training.config import select
from nemo_aligner_cai.training.cpu.config import adapt_to_cpu

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
SERVER_TIMEOUT = timedelta(days=20)
"""Timeout of the processes of a server that wait for requests; torch's default is 30 minutes.

In milliseconds it fits into 31 bits.
"""


@dataclass(frozen=True)
class Setup:
    """A stage's Lightning trainer and its loggers.

    Attributes:
        trainer: creates processes, precision plugins and checkpoints; upstream's own loops do the training.
        logger: upstream's wrapper around the trainer's loggers, one of which writes metrics.jsonl.
        progress: the logger that shows the progress; it must be started with the number of steps.
        resumed: step, samples and epoch of the checkpoint that this run resumes from; None in a new run.
        schedule_steps: the user's length of the learning-rate schedule; None for that of the run.
    """

    trainer: Any
    logger: Any
    progress: Any
    resumed: dict[str, Any] | None
    schedule_steps: int | None

    @property
    def consumed_samples(self) -> int:
        """Samples consumed before this run; the data loader skips them."""
        return self.resumed["consumed_samples"] if self.resumed else 0


def set_up(cfg: DictConfig, restore_path: str, section: str) -> Setup:
    """Merge the stage's configuration into the checkpoint's, and create the trainer.

    Args:
        cfg: the stage's configuration; changed in place.
        restore_path: the .nemo file (or extracted folder) whose `model_config.yaml` is the base.
        section: the section of `trainer` with the upstream loop's settings: "sft", "rm", "dpo" or "ppo".
    """
    import torch
    from nemo.utils.exp_manager import exp_manager
    from nemo_aligner.utils.train_script_utils import (
        CustomLoggerWrapper,
        resolve_and_create_trainer,
        retrieve_custom_trainer_state_dict,
    )
    from nemo_aligner.utils.utils import load_and_override_model_config
    from omegaconf import OmegaConf

    from nemo_aligner_cai.training.metrics.loggers import JsonlLogger, ProgressLogger
    from nemo_aligner_cai.training.random_state import RandomState

    # Before the merge: the checkpoint's configuration may have the length of the schedule that it was trained with.
    schedule_steps = select(cfg, "model.optim.sched.max_steps")
    cfg.model = load_and_override_model_config(restore_path, cfg.model)
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if is_first_rank():
        remove_unfinished_checkpoints(Path(cfg.exp_manager.explicit_log_dir) / "checkpoints")
    trainer = resolve_and_create_trainer(cfg, section)
    trainer.callbacks.insert(0, RandomState())
    log_dir = exp_manager(trainer, cfg.exp_manager)
    if trainer.global_rank == 0:
        OmegaConf.save(cfg, Path(log_dir) / "config.yaml")
    progress = ProgressLogger(Path(log_dir))
    trainer.loggers = [*trainer.loggers, JsonlLogger(Path(log_dir)), progress]
    resumed = retrieve_custom_trainer_state_dict(trainer) if trainer.ckpt_path is not None else None
    logger = CustomLoggerWrapper(trainer.loggers)
    return Setup(trainer=trainer, logger=logger, progress=progress, resumed=resumed, schedule_steps=schedule_steps)


def remove_unfinished_checkpoints(folder: Path) -> None:
    """Remove the checkpoints and the weights of a .nemo file that a killed run was writing.

    NeMo removes such checkpoints when training begins, but earlier it fails on an unfinished one when it chooses where
    to resume. It writes no .nemo file while weights of an earlier attempt are there.
    """
    from nemo.utils.callbacks.nemo_model_checkpoint import NeMoModelCheckpoint

    if folder.is_dir():
        NeMoModelCheckpoint._remove_unfinished_checkpoints(folder)
        if (folder / "model_weights").is_dir():
            shutil.rmtree(folder / "model_weights")


def init_process_groups(cfg: DictConfig, setup: Setup, model: Any) -> None:
    """Initialize the process groups; datasets can be built only afterwards."""
    from nemo_aligner.utils.train_script_utils import init_distributed

    init_distributed(setup.trainer, model, cfg.model.get("transformer_engine", False))


def trainer_arguments(
    cfg: DictConfig, section: str, setup: Setup, model: Any, *, steps: int | None = None
) -> dict[str, Any]:
    """Create optimizer, scheduler and checkpoint callback, and restore their state if the run resumes.

    Args:
        cfg: the stage's configuration.
        section: the section of `trainer` with the upstream loop's settings.
        setup: from `set_up`.
        model: the model, in its process groups.
        steps: the optimizer steps of the whole run; None for ``trainer.max_steps``.

    Returns:
        The arguments that upstream's trainers and its critic server share.
    """
    from nemo_aligner.utils.train_script_utils import (
        add_custom_checkpoint_callback,
        extract_optimizer_scheduler_from_ptl_model,
        init_using_ptl,
    )
    from omegaconf import OmegaConf

    # NeMo would take the length of the learning-rate schedule from the checkpoint's configuration, which is that of an
    # earlier stage, or from `trainer.max_steps`, of which each takes several optimizer steps in PPO.
    if (length := setup.schedule_steps or steps) is not None:
        setup.trainer.fit_loop.epoch_loop.max_steps = length
    init_using_ptl(setup.trainer, model, None, None)
    optimizer, scheduler = extract_optimizer_scheduler_from_ptl_model(model)
    callback = add_custom_checkpoint_callback(setup.trainer, model)
    setup.logger.log_hyperparams(OmegaConf.to_container(cfg))
    freeze_objects()
    return {
        "cfg": cfg.trainer[section],
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "logger": setup.logger,
        "ckpt_callback": callback,
    }


def fit_supervised(
    cfg: DictConfig,
    section: str,
    setup: Setup,
    model: Any,
    train_loader: Any,
    validation_loader: Any,
    *,
    loop: Any = None,
    **loop_arguments: Any,
) -> None:
    """Train with upstream's loop for labeled data; resumes from the checkpoint if there is one.

    Args:
        cfg: the stage's configuration.
        section: the section of `trainer` with the loop's settings: "sft", "rm" or "dpo".
        setup: from `set_up`.
        model: an upstream model with a training step.
        train_loader: yields global batches.
        validation_loader: the same, of the validation data.
        loop: upstream's class; None for its `SupervisedTrainer`.
        loop_arguments: more arguments of that class.
    """
    from nemo_aligner.algorithms.supervised import SupervisedTrainer

    batches = train_loader.batch_sampler
    steps = schedule.planned_steps(cfg, section, batches.total_samples, batches.global_batch_size)
    trainer = (loop or SupervisedTrainer)(
        **trainer_arguments(cfg, section, setup, model, steps=steps),
        train_dataloader=train_loader,
        val_dataloader=validation_loader,
        test_dataloader=None,
        run_timer=run_timer(cfg),
        **loop_arguments,
    )
    fit(trainer, setup)


def fit(trainer: Any, setup: Setup) -> None:
    """Run an upstream trainer, from the checkpoint if there is one.

    A run that was stopped after its last step and before its .nemo file was written has no step left. Upstream's loop
    would return without writing the file; here it is written from the checkpoint.
    """
    if setup.resumed is not None:
        trainer.load_state_dict(setup.resumed)
    setup.progress.start(trainer.max_steps)
    if trainer.step < trainer.max_steps:
        try:
            trainer.fit()
        finally:
            setup.progress.finalize()
    elif (callback := setup.trainer.checkpoint_callback) is not None:
        _log.info("all %d steps are done: the model is written from the checkpoint", trainer.step)
        # With this interval, the callback writes no other checkpoint; upstream does the same after its last step.
        setup.trainer.val_check_interval = 0
        callback.on_train_end(setup.trainer, trainer.model)


def data_loader(
    cfg: DictConfig, sizes: DictConfig, dataset: Any, consumed: int, *, shuffle: bool, **arguments: Any
) -> Any:
    """Create upstream's loader of global batches, which skips the first `consumed` samples.

    `sizes` is the section with `micro_batch_size` and `global_batch_size`; `arguments` are passed to upstream.
    """
    from nemo_aligner.data.nlp.builders import build_dataloader

    return build_dataloader(
        cfg=cfg,
        dataset=dataset,
        consumed_samples=consumed,
        mbs=sizes.micro_batch_size,
        gbs=sizes.global_batch_size,
        load_gbs=True,
        use_random_sampler=shuffle,
        **arguments,
    )


def run_timer(cfg: DictConfig) -> Any:
    """Upstream's timer, which ends a run in time to save; with max_time_per_run=null it never does."""
    from nemo_aligner.utils.distributed import Timer

    return Timer(cfg.exp_manager.get("max_time_per_run") if cfg.exp_manager else None)


def freeze_objects() -> None:
    """Exclude all existing objects from garbage collection.

    PPO collects garbage several times a step, and each time would traverse the 800,000 objects that the imports
    created: 2.85 against 1.76 s a step on two cores.
    """
    gc.freeze()


def spawn_workers() -> None:
    """Make torch spawn data and checkpoint workers, as upstream's scripts do: CUDA does not survive a fork."""
    import torch.multiprocessing as multiprocessing

    multiprocessing.set_start_method("spawn", force=True)


def dataset_arguments(cfg: DictConfig, tokenizer: Any) -> dict[str, Any]:
    """The arguments that upstream's builders of reward model, DPO and PPO datasets share."""
    return {
        "cfg": cfg.model,
        "data_prefix": cfg.model.data.data_prefix,
        "data_impl": cfg.model.data.data_impl,
        "splits_string": cfg.model.data.splits_string,
        "seq_length": cfg.model.data.seq_length,
        "seed": cfg.model.seed,
        "tokenizer": tokenizer,
    }
