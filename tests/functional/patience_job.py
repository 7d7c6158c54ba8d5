# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""A job of its own process: how long its processes would wait for each other, in seconds, into +out=FILE.

The overrides are those of the inference server, or with --config-name=cai_ppo_critic those of the critic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training import critic_server, inference_server
from nemo_aligner_cai.training.run import Stage

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
