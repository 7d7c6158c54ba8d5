# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What every NeMo-Aligner stage does around its own model and trainer, in the order upstream's scripts do it.

configuration -> Lightning trainer and loggers -> model from a .nemo -> process groups -> data -> optimizer,
scheduler and checkpoint callback. Everything here is upstream's; only the assembly is ours.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.cpu.config import adapt_to_cpu

if TYPE_CHECKING:
    from omegaconf import DictConfig

PATIENCE = timedelta(days=20)
"""How long the processes of a server wait for work, where torch would end them after half an hour.

In milliseconds it fits into 31 bits.
"""


@dataclass(frozen=True)
class Setup:
    """A stage's Lightning trainer and its loggers.

    Attributes:
        trainer: builds processes, precision and checkpoints; upstream's own loops do the training.
        logger: upstream's wrapper over the trainer's loggers, one of which writes metrics.jsonl.
        progress: another of them, which logs a line now and then; it is to be told the number of steps.
        resumed: step, samples and epoch of the checkpoint this run goes on from; None in a new run.
    """

    trainer: Any
    logger: Any
    progress: Any
    resumed: dict[str, Any] | None

    @property
    def consumed_samples(self) -> int:
        """Samples seen before this run; the data loader starts after them."""
        return self.resumed["consumed_samples"] if self.resumed else 0


@dataclass(frozen=True)
class Training:
    """What an upstream trainer needs beside model and data."""

    optimizer: Any
    scheduler: Any
    ckpt_callback: Any


def set_up(cfg: DictConfig, restore_path: str, section: str) -> Setup:
    """Merge the checkpoint's model configuration below ours and create the trainer.

    Args:
        cfg: the stage's configuration; changed in place.
        restore_path: the .nemo file (or extracted folder) whose `model_config.yaml` is the base.
        section: the part of `trainer` that is upstream's loop, not Lightning's: "sft", "rm", "dpo" or "ppo".
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

    from nemo_aligner_cai.training.metrics import JsonlLogger, ProgressLogger
    from nemo_aligner_cai.training.random_state import RandomState

    cfg.model = load_and_override_model_config(restore_path, cfg.model)
    if not torch.cuda.is_available():
        adapt_to_cpu(cfg)
    if model_file.first_rank():
        forget_unfinished(Path(cfg.exp_manager.explicit_log_dir) / "checkpoints")
    trainer = resolve_and_create_trainer(cfg, section)
    trainer.callbacks.insert(0, RandomState())
    log_dir = exp_manager(trainer, cfg.exp_manager)
    if trainer.global_rank == 0:
        OmegaConf.save(cfg, Path(log_dir) / "config.yaml")
    progress = ProgressLogger()
    trainer.loggers = [*trainer.loggers, JsonlLogger(Path(log_dir)), progress]
    resumed = retrieve_custom_trainer_state_dict(trainer) if trainer.ckpt_path is not None else None
    return Setup(trainer=trainer, logger=CustomLoggerWrapper(trainer.loggers), progress=progress, resumed=resumed)


def forget_unfinished(folder: Path) -> None:
    """Remove the checkpoints that a run was killed while writing.

    NeMo does so when training begins, but looks for the one to go on from earlier, and stops where that is unfinished.
    """
    from nemo.utils.callbacks.nemo_model_checkpoint import NeMoModelCheckpoint

    if folder.is_dir():
        NeMoModelCheckpoint._remove_unfinished_checkpoints(folder)


def join_processes(cfg: DictConfig, setup: Setup, model: Any) -> None:
    """Start the process groups; data may be built only after this."""
    from nemo_aligner.utils.train_script_utils import init_distributed

    init_distributed(setup.trainer, model, cfg.model.get("transformer_engine", False))


def prepare_training(cfg: DictConfig, setup: Setup, model: Any, dataloader: Any, dataset: Any) -> Training:
    """Create optimizer, scheduler and checkpoint callback, and restore them from the checkpoint if there is one."""
    from nemo_aligner.utils.train_script_utils import (
        add_custom_checkpoint_callback,
        extract_optimizer_scheduler_from_ptl_model,
        init_using_ptl,
    )
    from omegaconf import OmegaConf

    init_using_ptl(setup.trainer, model, dataloader, dataset)
    optimizer, scheduler = extract_optimizer_scheduler_from_ptl_model(model)
    callback = add_custom_checkpoint_callback(setup.trainer, model)
    setup.logger.log_hyperparams(OmegaConf.to_container(cfg))
    freeze()
    return Training(optimizer=optimizer, scheduler=scheduler, ckpt_callback=callback)


def fit_supervised(
    cfg: DictConfig,
    section: str,
    setup: Setup,
    model: Any,
    dataset: Any,
    train_loader: Any,
    validation_loader: Any,
    *,
    loop: Any = None,
    **more: Any,
) -> None:
    """Train with upstream's loop for labelled data, on from the checkpoint if there is one.

    Args:
        cfg: the stage's configuration.
        section: the loop's part of `trainer`: "sft", "rm" or "dpo".
        setup: from `set_up`.
        model: an upstream model with a training step.
        dataset: what `train_loader` draws from.
        train_loader: yields global batches.
        validation_loader: the same, for validation.
        loop: upstream's class; None for its `SupervisedTrainer`.
        more: what that class takes besides.
    """
    from nemo_aligner.algorithms.supervised import SupervisedTrainer

    training = prepare_training(cfg, setup, model, train_loader, dataset)
    trainer = (loop or SupervisedTrainer)(
        cfg=cfg.trainer[section],
        model=model,
        optimizer=training.optimizer,
        scheduler=training.scheduler,
        train_dataloader=train_loader,
        val_dataloader=validation_loader,
        test_dataloader=None,
        logger=setup.logger,
        ckpt_callback=training.ckpt_callback,
        run_timer=run_timer(cfg),
        **more,
    )
    if setup.resumed is not None:
        trainer.load_state_dict(setup.resumed)
    setup.progress.total = trainer.max_steps
    trainer.fit()


def data_loader(cfg: DictConfig, sizes: DictConfig, dataset: Any, consumed: int, *, shuffle: bool, **more: Any) -> Any:
    """Upstream's loader of global batches.

    Args:
        cfg: the stage's configuration.
        sizes: the section with `micro_batch_size` and `global_batch_size`.
        dataset: what it draws from.
        consumed: samples to start after.
        shuffle: whether to draw at random.
        more: what upstream's `build_dataloader` takes besides.
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
        **more,
    )


def run_timer(cfg: DictConfig) -> Any:
    """Upstream's clock that ends a run in time to save; it never rings where max_time_per_run is null."""
    from nemo_aligner.utils.distributed import Timer

    return Timer(cfg.exp_manager.get("max_time_per_run") if cfg.exp_manager else None)


def freeze() -> None:
    """Keep what exists by now out of garbage collection.

    PPO collects garbage several times a step, and each time would walk the 800,000 objects that the imports made:
    2.85 against 1.76 s a step on two cores.
    """
    gc.freeze()


def spawn_workers() -> None:
    """Start data and checkpoint workers as fresh processes, as upstream's scripts do: CUDA does not survive a fork."""
    import torch.multiprocessing as multiprocessing

    multiprocessing.set_start_method("spawn", force=True)


def dataset_arguments(cfg: DictConfig, tokenizer: Any) -> dict[str, Any]:
    """What upstream's builders of reward-model, DPO and PPO datasets read from the configuration."""
    return {
        "cfg": cfg.model,
        "data_prefix": cfg.model.data.data_prefix,
        "data_impl": cfg.model.data.data_impl,
        "splits_string": cfg.model.data.splits_string,
        "seq_length": cfg.model.data.seq_length,
        "seed": cfg.model.seed,
        "tokenizer": tokenizer,
    }
