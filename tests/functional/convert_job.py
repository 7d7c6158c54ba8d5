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
"""A job of its own process that converts a folder: `cai checkpoint to-nemo` without its ten seconds of imports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.training import checkpoint
from nemo_aligner_cai.training.run import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig


def work(cfg: DictConfig) -> None:
    checkpoint.to_nemo(Path(cfg.source), Path(cfg.gpt_model_file), "bf16", cfg.tokenizer_name)


STAGE = Stage(config="cai_inference", check=lambda cfg: None, work=work)
