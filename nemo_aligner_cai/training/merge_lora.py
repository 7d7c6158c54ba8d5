# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Merge LoRA adapters, which SFT, DPO and PPO save with peft.peft_scheme=lora, into their base model.

    cai merge-lora base.nemo results/sl_cai/checkpoints/cai_sft.nemo merged.nemo

Each adapted weight W of shape (out, in) becomes W + (alpha / r) B A, with A of shape (r, in) and B of shape (out, r)
(Hu et al., arXiv 2106.09685); alpha is `peft.lora_tuning.alpha` of the adapters, by default r.
"""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.output_paths import check_new
from nemo_aligner_cai.training import inference_server
from nemo_aligner_cai.training.checkpoints import nemo_archive
from nemo_aligner_cai.training.checkpoints.save import save_nemo
from nemo_aligner_cai.training.checks import model_file, model_kind, model_needs
from nemo_aligner_cai.training.config import select
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WEIGHTS = "model_weights.ckpt"
_ADAPTED = {
    "self_attention.adapter_layer.lora_kqv_adapter": "self_attention.linear_qkv.weight",
    "self_attention.adapter_layer.lora_dense_attention_adapter": "self_attention.linear_proj.weight",
    "mlp.adapter_layer.lora_hto4h_adapter": "mlp.linear_fc1.weight",
    "mlp.adapter_layer.lora_4htoh_adapter": "mlp.linear_fc2.weight",
}
_SHAPE = ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "ffn_hidden_size")


def check(cfg: DictConfig) -> None:
    """Raise UsageError if the adapters are of another model or of several processes, or the output exists."""
    base, adapters = model_file.nemo_model(cfg, "gpt_model_file"), model_file.nemo_model(cfg, "adapter_file")
    model_needs.check(cfg, "gpt_model_file", tokenizer="tokenizer.type")
    check_new(cfg.output)
    model_kind.check(adapters, "adapter_file", (model_kind.ADAPTERS,))
    if not adapters.is_file() or _WEIGHTS not in nemo_archive.read(adapters).names:
        raise UsageError(
            f"adapter_file: {adapters} has no {_WEIGHTS}: it holds a whole model, or adapters that several tensor- "
            "or pipeline-parallel processes have saved, which NeMo's "
            "scripts/nlp_language_modeling/merge_lora_weights/merge.py merges"
        )
    trained, given = model_file.model_config(adapters), model_file.model_config(base)
    different = [key for key in _SHAPE if trained.get(key) != given.get(key)]
    if different:
        values = ", ".join(f"{key}={trained.get(key)}, not {given.get(key)}" for key in different)
        raise UsageError(f"adapter_file: {adapters} was trained on another model than {base}: {values}")


def merge(cfg: DictConfig) -> None:
    """Load the base model, add the adapters to its weights, and save the result as a .nemo model."""
    import torch
    from omegaconf import OmegaConf

    model = inference_server.load_model(cfg)
    weights = {name.replace("module.", ""): weight for name, weight in model.named_parameters()}
    adapters, trained = _adapters(Path(cfg.adapter_file)), model_file.model_config(Path(cfg.adapter_file))
    # By default alpha is the rank, the first dimension of A.
    alpha = select(OmegaConf.create(trained), "peft.lora_tuning.alpha")
    with torch.no_grad():
        for name, (down, up) in adapters.items():
            if name not in weights:
                raise UsageError(f"adapter_file: {cfg.gpt_model_file} has no weight {name}")
            weight = weights[name]
            scale = 1.0 if alpha is None else alpha / down.shape[0]
            weight += (scale * up.float() @ down.float()).to(weight.device, weight.dtype)
    _copy_template(model.cfg, trained)
    save_nemo(model, Path(cfg.output))


def _copy_template(settings: Any, trained: dict[str, Any]) -> None:
    """Copy the chat template that the adapters were trained with into the settings of the merged model."""
    from omegaconf import OmegaConf, open_dict

    data = trained.get("data")
    if isinstance(data, dict):
        template = {"data": {key: data[key] for key in ("chat", "chat_prompt_tokens") if key in data}}
        with open_dict(settings):
            settings.merge_with(OmegaConf.create(template))


def _adapters(path: Path) -> dict[str, tuple[Any, Any]]:
    """Map the name of each adapted weight to A and B."""
    from nemo_aligner_cai.training.checkpoints.stored_tensors import load_tensors

    with tarfile.open(path) as archive:
        member = next(member for member in archive if member.name.removeprefix("./") == _WEIGHTS)
        file = archive.extractfile(member)
        assert file is not None  # `check` has listed it
        state = load_tensors(io.BytesIO(file.read()), f"{path}: {_WEIGHTS}")
    found: dict[str, tuple[Any, Any]] = {}
    for key in state:
        parts = re.fullmatch(r"(model\.(?:module\.)?decoder\.layers\.\d+\.)(.+)\.linear_in\.weight", key)
        if parts and parts[2] in _ADAPTED:
            up = state[key.replace("linear_in", "linear_out")]
            found[parts[1].replace("module.", "") + _ADAPTED[parts[2]]] = (state[key], up)
    if 2 * len(found) != len(state):
        raise UsageError(
            f"adapter_file: {path} has weights that are not LoRA adapters: {', '.join(sorted(state)[:3])}, ..."
        )
    return found


STAGE = Stage(config="cai_merge_lora", check=check, work=merge, output="output")

if __name__ == "__main__":
    start(STAGE)
