# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The log folder of a training run: finished or resumable earlier runs, and the saved model.

<explicit_log_dir>/config.yaml                              the settings of the run
<explicit_log_dir>/checkpoints/<name>--...step=50...-last   the checkpoint from which the next run resumes: a folder;
                                                            of adapters a file, or one for each model-parallel process
<explicit_log_dir>/checkpoints/<name>.nemo                  the model, saved after the last step
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
_LOG_DIR = "exp_manager.explicit_log_dir"
_CHECKPOINTS = ("*-last", "*-last.ckpt", "*_rank_*/*-last.ckpt")
_SOURCES = ("model.restore_from_path", "pretrained_checkpoint.restore_from_path")
_DATA = ("model.data.train_ds.file_path", "model.data.validation_ds.file_path", "model.data.data_prefix")
_RATES = ("model.optim.lr", "model.optim.sched")


def last_checkpoints(log_dir: Path) -> dict[str, list[Path]]:
    """The files or folders of each checkpoint from which NeMo would resume, by its name; finished or not."""
    found: dict[str, list[Path]] = {}
    for pattern in _CHECKPOINTS:
        for path in (log_dir / "checkpoints").glob(pattern):
            found.setdefault(path.name.removesuffix(".ckpt"), []).append(path)
    return found


def unfinished_mark(log_dir: Path, name: str) -> Path:
    """The file that exists while NeMo writes or removes a checkpoint, also after a stop in the middle of it."""
    return log_dir / "checkpoints" / f"{name}-unfinished"


def last_step(log_dir: Path) -> int | None:
    """The step of the checkpoint from which NeMo would resume; None unless there is exactly one."""
    finished = [name for name in last_checkpoints(log_dir) if not unfinished_mark(log_dir, name).exists()]
    step = re.search(r"step=(\d+)", finished[0]) if len(finished) == 1 else None
    return int(step[1]) if step else None


def saved_models(log_dir: Path) -> list[Path]:
    """The .nemo files of a log folder, newest last."""
    return sorted((log_dir / "checkpoints").glob("*.nemo"), key=lambda path: path.stat().st_mtime)


def check_earlier_run(cfg: DictConfig, section: str, planned: int | None) -> None:
    """Refuse a finished earlier run in the same log folder, and log what an unfinished one resumes from.

    `planned` are the steps of the whole run, None if unknown; `section` is that of `trainer`.

    Raises:
        UsageError: the earlier run is finished. NeMo would load its model, train nothing and exit with 0.
    """
    folder = select(cfg, _LOG_DIR)
    if folder is None or not select(cfg, "exp_manager.resume_if_exists"):
        return
    log_dir = Path(str(folder))
    step, models = last_step(log_dir), saved_models(log_dir)
    if step is None:
        return
    if planned is not None and step >= planned and models:
        raise UsageError(
            f"{_LOG_DIR}={folder}: contains a finished run of {step} steps with the model {models[-1]}; nothing would "
            f"be trained. Use another folder, or set more than {step} steps to resume at the last learning rate of "
            f"its schedule (trainer.{section}.max_steps, trainer.{section}.max_epochs)"
        )
    changed = _changed(cfg, log_dir)
    _log.warning(
        "%s: resuming at step %d, with the weights and the learning-rate schedule of its checkpoint%s",
        folder,
        step,
        f"; changed since: {', '.join(changed)}" if changed else "",
    )


def _changed(cfg: DictConfig, log_dir: Path) -> list[str]:
    from omegaconf import OmegaConf

    path = log_dir / "config.yaml"
    if not path.is_file():
        return []
    earlier: Any = OmegaConf.load(path)
    return [key for key in (*_SOURCES, *_DATA, *_RATES) if select(earlier, key) != select(cfg, key)]


def report(cfg: DictConfig, output: str, began: float) -> None:
    """Log the path of the trained model, as the last line of a training run.

    `output` is the key of the log folder or of the output file; `began` is in seconds since the epoch.
    """
    place = Path(str(select(cfg, output)))
    # Some file systems store whole seconds.
    models = saved_models(place) if output == _LOG_DIR else [place]
    if models and models[-1].stat().st_mtime >= int(began):
        _log.info("saved: %s", models[-1])
        return
    step = last_step(place)
    where = ""
    if step is not None:
        where = (
            f"; the last checkpoint is of step {step}, from which the same command resumes. NeMo-Aligner's scripts "
            f"write the model only after a step: with them, if that was the last, plan one more (max_steps={step + 1})"
        )
    _log.warning("nothing saved: this run wrote no .nemo file in %s%s", place / "checkpoints", where)
