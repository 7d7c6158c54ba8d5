# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A job of its own process for the converter's tests: the logits of a .nemo model, and the states it has for TE.

The overrides are those of the inference server, and +ids=FILE, tokens of shape (batch, length), and +out=FILE, which
gets logits of shape (batch, length, padded vocabulary).
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.training import inference_server
from nemo_aligner_cai.training.launch.stage_main import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig

TE_STATES = ("layers.self_attention.core_attention._extra_state", "final_layernorm._extra_state")


def work(cfg: DictConfig) -> None:
    import torch

    model = inference_server.load_model(cfg)
    ids = torch.load(cfg.ids)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    mask = torch.triu(torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool), 1)[None, None]
    with torch.no_grad():
        logits = model.model(ids, positions, mask)
    if cfg.get("te_states"):
        assert te_states(Path(cfg.gpt_model_file), model.cfg.num_layers) == [None] * (model.cfg.num_layers + 1)
    torch.save(logits, cfg.out)


def te_states(path: Path, layers: int) -> list[object]:
    """What Megatron-Core reads for a model of TE's layers, which asks for these with NeMo's strictness."""
    from megatron.core import dist_checkpointing
    from megatron.core.transformer.utils import make_sharded_object_for_checkpoint

    attention, norm = (f"model.decoder.{name}" for name in TE_STATES)
    asked = {"norm": make_sharded_object_for_checkpoint(None, norm)}
    for layer in range(layers):
        asked[str(layer)] = make_sharded_object_for_checkpoint(None, attention, [(0, layer, layers)])
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        found = dist_checkpointing.load(asked, str(Path(folder) / "model_weights"), strict="assume_ok_unexpected")
    return [found[name] for name in asked]


STAGE = Stage(config="cai_inference", check=inference_server.check, work=work)
