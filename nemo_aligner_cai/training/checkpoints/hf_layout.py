# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Converts the weights of Llama and Mistral models between Hugging Face's layout and Megatron-Core's.

Megatron has one matrix for query, key and value, which contains the queries, the key and the value of each
grouped-query attention group in turn, and one matrix for the gate and the up projection, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nemo_aligner_cai.errors import UsageError

KINDS = ("llama", "mistral")
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)
_FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}
_LLAMA3_ROPE = {
    "factor": "scale_factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "old_context_len",
}
"""The keys of Llama 3's position scaling: in config.json -> in NeMo."""


@dataclass(frozen=True)
class Shape:
    """The sizes that determine the layout of the weights.

    Attributes:
        layers: number of transformer layers.
        heads: number of query heads.
        groups: number of key-value heads; equal to `heads` without grouped-query attention.
        head_dim: size of each head.
        vocabulary: number of rows of the embedding.
    """

    layers: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Shape:
        """Read the sizes from the contents of a config.json."""
        heads = settings["num_attention_heads"]
        return cls(
            layers=settings["num_hidden_layers"],
            heads=heads,
            groups=settings.get("num_key_value_heads") or heads,
            head_dim=settings.get("head_dim") or settings["hidden_size"] // heads,
            vocabulary=settings["vocab_size"],
        )

    def fuse(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Fuse (heads * head_dim, in) and 2 x (groups * head_dim, in) into ((heads + 2 groups) * head_dim, in)."""
        parts = [part.unflatten(0, (self.groups, -1)) for part in (query, key, value)]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def split(self, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Invert `fuse`."""
        queries = self.heads // self.groups * self.head_dim
        grouped = fused.unflatten(0, (self.groups, -1))
        return tuple(part.flatten(0, 1) for part in grouped.split([queries, self.head_dim, self.head_dim], dim=1))


def model_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """NeMo's `model` keys for the contents of a config.json.

    Args:
        settings: the contents of config.json.
        where: its name in errors.

    Raises:
        UsageError: NeMo 2.2.1 does not support the architecture or a setting.
    """
    if settings.get("model_type") not in KINDS:
        raise UsageError(f"{where}: model_type={settings.get('model_type')}: only {' and '.join(KINDS)} are supported")
    for key in _SIZES:
        if not isinstance(settings.get(key), int) or settings[key] < 1:
            raise UsageError(f"{where}: {key}={settings.get(key)}: must be a positive integer")
    for key, wanted in _FIXED.items():
        if settings.get(key, wanted) not in (wanted, None):
            raise UsageError(f"{where}: {key}={settings[key]}: must be {wanted}, or absent")
    shape = Shape.of(settings)
    if shape.heads % shape.groups:
        raise UsageError(
            f"{where}: num_attention_heads={shape.heads} is not a multiple of num_key_value_heads={shape.groups}"
        )
    # Up to its window, sliding-window attention is full attention. Transformers' default for Mistral is 4096.
    window = settings.get("sliding_window", 4096 if settings["model_type"] == "mistral" else None)
    positions = min(window or settings["max_position_embeddings"], settings["max_position_embeddings"])
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
        "layernorm_epsilon": settings.get("rms_norm_eps", 1e-6),
        "activation": "fast-swiglu",
        "bias": False,
        **_rope(settings, where),
    }


def _rope(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    # transformers 5 has rope_parameters instead of rope_scaling and rope_theta.
    scaling = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    found = {"rotary_base": scaling.get("rope_theta", settings.get("rope_theta", 10000.0))}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return found
    if kind != "llama3" or not _LLAMA3_ROPE.keys() <= scaling.keys():
        raise UsageError(
            f"{where}: rope_scaling={dict(scaling)}: only llama3 is supported, with {', '.join(_LLAMA3_ROPE)}"
        )
    # Read by NeMo's `mcore_model_customize`; Megatron-Core's own rope_scaling supports a factor only.
    return found | {"scale_positional_embedding": True} | {new: scaling[key] for key, new in _LLAMA3_ROPE.items()}


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
# In checkpoints, norms always have the names of Transformer Engine's fused layers.
_STORED = _SAME | {
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight",
}
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_OUTSIDE_LAYERS = {
    "embedding.word_embeddings.weight": _EMBEDDING,
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": _OUTPUT,
}


def weight_shapes(settings: Mapping[str, Any], *, tied: bool) -> dict[str, tuple[int, ...]]:
    """The shape of each Hugging Face weight of a model with this config.json."""
    shape, hidden, inner = Shape.of(settings), settings["hidden_size"], settings["intermediate_size"]
    queries, keys = shape.heads * shape.head_dim, shape.groups * shape.head_dim
    layer_shapes = {
        **dict(zip(_QKV, ((queries, hidden), (keys, hidden), (keys, hidden)), strict=True)),
        **dict.fromkeys(_GATED, (inner, hidden)),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {_EMBEDDING: (shape.vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        shapes[_OUTPUT] = (shape.vocabulary, hidden)
    layers = range(shape.layers)
    return shapes | {f"model.layers.{layer}.{name}": of for layer in layers for name, of in layer_shapes.items()}


def to_megatron(
    read: Callable[[str], torch.Tensor], shape: Shape, *, tied: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield Megatron's weights with their names.

    Args:
        read: returns the Hugging Face weight of a name.
        shape: of the model.
        tied: the output layer shares the embedding's weight; it gets a copy, since a reward model replaces it.
    """
    for name, hf_name in _OUTSIDE_LAYERS.items():
        yield name, read(_EMBEDDING if tied and hf_name == _OUTPUT else hf_name)
    for layer in range(shape.layers):
        prefix, hf_prefix = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        yield prefix + _FUSED_QKV, shape.fuse(*(read(hf_prefix + name) for name in _QKV))
        yield prefix + _FUSED_GATED, torch.cat([read(hf_prefix + name) for name in _GATED])
        for name, hf_name in _SAME.items():
            yield prefix + name, read(hf_prefix + hf_name)


def to_huggingface(name: str, weight: torch.Tensor, shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the Hugging Face weights of one checkpoint weight, which stacks all layers in its first dimension.

    Raises:
        UsageError: Llama and Mistral have no such weight.
    """
    if name in _OUTSIDE_LAYERS:
        yield _OUTSIDE_LAYERS[name], weight[: shape.vocabulary] if weight.dim() == 2 else weight
        return
    layer_name = name.removeprefix("decoder.layers.")
    for layer, part in enumerate(weight):
        prefix = f"model.layers.{layer}."
        if layer_name in _STORED:
            yield prefix + _STORED[layer_name], part
        elif layer_name == _FUSED_QKV:
            yield from ((prefix + hf_name, piece) for hf_name, piece in zip(_QKV, shape.split(part), strict=True))
        elif layer_name == _FUSED_GATED:
            yield from ((prefix + hf_name, piece) for hf_name, piece in zip(_GATED, part.chunk(2), strict=True))
        else:
            raise UsageError(f"{name}: Llama and Mistral have no such weight")
