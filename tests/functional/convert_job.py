# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A job of its own process that converts a folder: `cai checkpoint to-nemo` without its ten seconds of imports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.training import convert_checkpoint
from nemo_aligner_cai.training.launch.stage_main import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig


def work(cfg: DictConfig) -> None:
    convert_checkpoint.to_nemo(Path(cfg.source), Path(cfg.gpt_model_file), "bf16", cfg.tokenizer_name)


STAGE = Stage(config="cai_inference", check=lambda cfg: None, work=work)
