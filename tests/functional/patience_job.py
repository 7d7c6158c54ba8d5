# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A job of its own process: how long its processes would wait for each other, in seconds, into +out=FILE.

The overrides are those of the inference server, or with --config-name=cai_ppo_critic those of the critic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training import critic_server, inference_server
from nemo_aligner_cai.training.launch.stage_main import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig


def work(cfg: DictConfig) -> None:
    import torch
    from nemo_aligner.algorithms.critic_server_trainer import CriticServerTrainer

    if "gpt_model_file" in cfg:
        inference_server.load_model(cfg)
    else:
        CriticServerTrainer.run_server = lambda _: None
        critic_server.serve(cfg)
    group: Any = torch.distributed.group.WORLD
    timeout = group._get_backend(torch.device("cpu")).options._timeout
    Path(cfg.out).write_text(str(timeout.total_seconds()))


STAGE = Stage(config="cai_inference", check=lambda _: None, work=work)
