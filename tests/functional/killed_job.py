# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A job of its own process: SFT that is killed after its last checkpoint, while its .nemo file is being written."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training import sft
from nemo_aligner_cai.training.launch.stage_main import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig


def work(cfg: DictConfig) -> None:
    from nemo.utils.callbacks.dist_ckpt_io import DistributedCheckpointIO

    save = DistributedCheckpointIO.save_checkpoint

    def save_or_die(self: Any, state: Any, path: Any, *args: Any, **more: Any) -> Any:
        saved = save(self, state, path, *args, **more)
        if Path(path).name == "model_weights":
            os.kill(os.getpid(), signal.SIGKILL)
        return saved

    DistributedCheckpointIO.save_checkpoint = save_or_die
    sft.train(cfg)


STAGE = Stage(config="cai_sft", check=sft.check, work=work, output="exp_manager.explicit_log_dir")
