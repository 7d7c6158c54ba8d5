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
"""Where a Llama or Mistral model's weights stand in Hugging Face's layout and in Megatron-Core's.

Megatron keeps query, key and value in one matrix, for each group of query heads that share a key the group's queries,
its key and its value, and the two halves of a gated linear unit in another, the gate first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nemo_aligner_cai.errors import UsageError

KINDS = ("llama", "mistral")
_LLAMA3_ROPE = {
    "factor": "scale_factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "old_context_len",
}
"""Llama 3's scaling of positions: its key in config.json -> NeMo's."""


@dataclass(frozen=True)
class Shape:
    """The sizes that decide how weights are laid out.

    Attributes:
        layers: transformer layers.
        heads: query heads.
        groups: of query heads that share a key and a value; as many as heads without grouped-query attention.
        head_dim: of each head.
        vocabulary: rows of the embedding.
    """

    layers: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Shape:
        """From the contents of a config.json."""
        heads = settings["num_attention_heads"]
        return cls(
            layers=settings["num_hidden_layers"],
            heads=heads,
            groups=settings.get("num_key_value_heads") or heads,
            head_dim=settings.get("head_dim") or settings["hidden_size"] // heads,
            vocabulary=settings["vocab_size"],
        )

    def fuse(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Shapes (heads * head_dim, in), (groups * head_dim, in) twice -> ((heads + 2 groups) * head_dim, in)."""
        parts = [part.unflatten(0, (self.groups, -1)) for part in (query, key, value)]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def split(self, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The inverse of `fuse`."""
        queries = self.heads // self.groups * self.head_dim
        grouped = fused.unflatten(0, (self.groups, -1))
        return tuple(part.flatten(0, 1) for part in grouped.split([queries, self.head_dim, self.head_dim], dim=1))


def model_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """NeMo's `model` keys for the contents of a config.json.

    Args:
        settings: what config.json says.
        where: its name in errors.

    Raises:
        UsageError: an architecture or a setting for which NeMo 2.2.1 has no equal.
    """
    if settings.get("model_type") not in KINDS:
        raise UsageError(f"{where}: model_type={settings.get('model_type')}: only {' and '.join(KINDS)} are known")
    for key, wanted in {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}.items():
        if settings.get(key, wanted) != wanted:
            raise UsageError(f"{where}: {key}={settings[key]}: only {wanted} is known")
    shape = Shape.of(settings)
    # Within the window of a sliding attention it is a full one.
    positions = settings.get("sliding_window") or settings["max_position_embeddings"]
    return {
        "encoder_seq_length": positions,
        "max_position_embeddings": positions,
        "num_layers": shape.layers,
        "hidden_size": settings["hidden_size"],
        "ffn_hidden_size": settings["intermediate_size"],
        "num_attention_heads": shape.heads,
        "num_query_groups": shape.groups,
        "kv_channels": shape.head_dim,
        "init_method_std": settings.get("initializer_range", 0.02),
        "normalization": "rmsnorm",
        "layernorm_epsilon": settings["rms_norm_eps"],
        "activation": "fast-swiglu",
        "bias": False,
        "rotary_base": settings.get("rope_theta", 10000.0),
        **_rope(settings.get("rope_scaling"), where),
    }


def _rope(scaling: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    kind = None if scaling is None else scaling.get("rope_type", scaling.get("type"))
    if scaling is None or kind == "default":
        return {}
    if kind == "llama3":
        return {"scale_positional_embedding": True} | {new: scaling[key] for key, new in _LLAMA3_ROPE.items()}
    raise UsageError(f"{where}: rope_scaling={dict(scaling)}: only llama3 is known")


_QKV = tuple(f"self_attn.{name}_proj.weight" for name in ("q", "k", "v"))
_GATED = ("mlp.gate_proj.weight", "mlp.up_proj.weight")
_FUSED_QKV, _FUSED_GATED = "self_attention.linear_qkv.weight", "mlp.linear_fc1.weight"
# Megatron's name -> Hugging Face's.
_SAME = {
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
    "input_layernorm.weight": "input_layernorm.weight",
    "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
}
# In a checkpoint the norms have the names of Transformer Engine's fused layers, whatever layers wrote it.
_STORED = _SAME | {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight",
}
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_OUTSIDE = {
    "embedding.word_embeddings.weight": _EMBEDDING,
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": _OUTPUT,
}


def weight_names(shape: Shape, *, tied: bool) -> set[str]:
    """The names of all weights in Hugging Face's layout."""
    inside = (*_QKV, *_GATED, *_SAME.values())
    names = {f"model.layers.{layer}.{name}" for layer in range(shape.layers) for name in inside}
    return names | set(_OUTSIDE.values()) - ({_OUTPUT} if tied else set())


def to_megatron(
    read: Callable[[str], torch.Tensor], shape: Shape, *, tied: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Megatron's weights by name, one after the other.

    Args:
        read: gives the weight of a name in Hugging Face's layout.
        shape: of the model.
        tied: whether the output layer is the embedding; it gets a copy, since a reward model replaces it.
    """
    for ours, theirs in _OUTSIDE.items():
        yield ours, read(_EMBEDDING if tied and theirs == _OUTPUT else theirs)
    for layer in range(shape.layers):
        ours, theirs = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        yield ours + _FUSED_QKV, shape.fuse(*(read(theirs + name) for name in _QKV))
        yield ours + _FUSED_GATED, torch.cat([read(theirs + name) for name in _GATED])
        for name, other in _SAME.items():
            yield ours + name, read(theirs + other)


def to_huggingface(name: str, weight: torch.Tensor, shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """Hugging Face's weights for one of a checkpoint's; those of all layers stand in one, with the layer in front.

    Raises:
        UsageError: a weight that no Llama or Mistral has.
    """
    if name in _OUTSIDE:
        yield _OUTSIDE[name], weight[: shape.vocabulary] if weight.dim() == 2 else weight
        return
    inside = name.removeprefix("decoder.layers.")
    for layer, part in enumerate(weight):
        theirs = f"model.layers.{layer}."
        if inside in _STORED:
            yield theirs + _STORED[inside], part
        elif inside == _FUSED_QKV:
            yield from ((theirs + one, piece) for one, piece in zip(_QKV, shape.split(part), strict=True))
        elif inside == _FUSED_GATED:
            yield from ((theirs + one, piece) for one, piece in zip(_GATED, part.chunk(2), strict=True))
        else:
            raise UsageError(f"{name}: no Llama or Mistral has such a weight")
