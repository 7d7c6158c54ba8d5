# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Merge LoRA adapters into their base model: what SFT, DPO or PPO saves with peft.peft_scheme=lora is adapters alone.

    cai merge-lora base.nemo results/sl_cai/checkpoints/cai_sft.nemo merged.nemo

Each adapted weight W of shape (out, in) becomes W + (alpha / r) B A, with A of shape (r, in) and B of shape (out, r)
(Hu et al., arXiv 2106.09685). NeMo's adapters have alpha = r unless they are told otherwise, and nothing here does.
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
from nemo_aligner_cai.training.checks import model_file, model_kind, model_needs
from nemo_aligner_cai.training.launch.stage import Stage, start

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
    """Raise UsageError for adapters of another model or of several processes, and for an output that exists."""
    base, adapters = model_file.nemo_model(cfg, "gpt_model_file"), model_file.nemo_model(cfg, "adapter_file")
    model_needs.check(cfg, "gpt_model_file", tokenizer="tokenizer.type")
    check_new(cfg.output)
    if (kind := model_kind.kind_of(adapters)) in (model_kind.REWARD_MODEL, model_kind.LANGUAGE_MODEL):
        raise UsageError(f"adapter_file: {adapters} holds {kind}, not adapters; the base comes first")
    if not adapters.is_file() or _WEIGHTS not in model_file.contents(adapters).names:
        raise UsageError(
            f"adapter_file: {adapters} has no {_WEIGHTS}: it holds a whole model, or adapters that several tensor or "
            "pipeline parallel processes have saved in parts"
        )
    theirs, ours = model_file.model_config(adapters), model_file.model_config(base)
    if other := [
        f"{key}={theirs.get(key)}, not {ours.get(key)}" for key in _SHAPE if theirs.get(key) != ours.get(key)
    ]:
        raise UsageError(f"adapter_file: {adapters} was trained on another model than {base}: {', '.join(other)}")


def merge(cfg: DictConfig) -> None:
    """Load the base model, add the adapters to its weights, and save it as a .nemo model of its own."""
    import torch

    from nemo_aligner_cai.training.checkpoints.save import save_nemo

    model = inference_server.load_model(cfg)
    weights = {name.replace("module.", ""): weight for name, weight in model.named_parameters()}
    adapters = _adapters(Path(cfg.adapter_file))
    with torch.no_grad():
        for name, (down, up) in adapters.items():
            if name not in weights:
                raise UsageError(f"adapter_file: {cfg.gpt_model_file} has no weight {name}")
            weight = weights[name]
            weight += (up.float() @ down.float()).to(weight.device, weight.dtype)
    _keep_template(model.cfg, model_file.model_config(Path(cfg.adapter_file)))
    save_nemo(model, Path(cfg.output))


def _keep_template(settings: Any, trained: dict[str, Any]) -> None:
    """Have the model's settings say which chat template the adapters were trained with."""
    from omegaconf import OmegaConf, open_dict

    data = trained.get("data")
    if isinstance(data, dict):
        kept = {"data": {key: data[key] for key in ("chat", "chat_prompt_tokens") if key in data}}
        with open_dict(settings):
            settings.merge_with(OmegaConf.create(kept))


def _adapters(path: Path) -> dict[str, tuple[Any, Any]]:
    """Name of the adapted weight -> A and B."""
    from nemo_aligner_cai.training.checkpoints.stored_tensors import load_tensors

    with tarfile.open(path) as archive:
        member = next(member for member in archive if member.name.removeprefix("./") == _WEIGHTS)
        file = archive.extractfile(member)
        assert file is not None  # `check` has seen it
        state = load_tensors(io.BytesIO(file.read()), f"{path}: {_WEIGHTS}")
    found: dict[str, tuple[Any, Any]] = {}
    for key in state:
        place = re.fullmatch(r"(model\.(?:module\.)?decoder\.layers\.\d+\.)(.+)\.linear_in\.weight", key)
        if place and place[2] in _ADAPTED:
            up = state[key.replace("linear_in", "linear_out")]
            found[place[1].replace("module.", "") + _ADAPTED[place[2]]] = (state[key], up)
    if 2 * len(found) != len(state):
        raise UsageError(f"adapter_file: {path} has other weights than LoRA's: {', '.join(sorted(state)[:3])}, ...")
    return found


STAGE = Stage(config="cai_merge_lora", check=check, work=merge, output="output")

if __name__ == "__main__":
    start(STAGE)
