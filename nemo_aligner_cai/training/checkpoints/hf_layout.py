# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Converts the weights of the architectures in `architectures.py` between Hugging Face's layout and Megatron-Core's.

Megatron has one matrix for query, key and value, which contains the queries, the key and the value of each
grouped-query attention group in turn, and one matrix for the gate and the up projection, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checkpoints.architectures import ARCHITECTURES, architecture_of

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
        qkv_bias: see `architectures.Architecture`.
        is_fused: see `architectures.Architecture`.
    """

    layers: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int
    qkv_bias: bool = False
    is_fused: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Shape:
        """Read the sizes from the contents of a config.json."""
        heads, architecture = settings["num_attention_heads"], ARCHITECTURES[settings["model_type"]]
        return cls(
            layers=settings["num_hidden_layers"],
            heads=heads,
            groups=settings.get("num_key_value_heads") or heads,
            head_dim=settings.get("head_dim") or settings["hidden_size"] // heads,
            vocabulary=settings["vocab_size"],
            qkv_bias=architecture.qkv_bias,
            is_fused=architecture.is_fused,
        )

    @property
    def widths(self) -> tuple[int, int, int]:
        """The rows of query, key and value."""
        return self.heads * self.head_dim, self.groups * self.head_dim, self.groups * self.head_dim

    def fuse(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Fuse (heads * head_dim, in) and 2 x (groups * head_dim, in) into ((heads + 2 groups) * head_dim, in).

        Biases have no dimension `in`.
        """
        parts = [part.unflatten(0, (self.groups, -1)) for part in (query, key, value)]
        return torch.cat(parts, dim=1).flatten(0, 1)

    def split(self, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Invert `fuse`."""
        queries = self.heads // self.groups * self.head_dim
        grouped = fused.unflatten(0, (self.groups, -1))
        return tuple(part.flatten(0, 1) for part in grouped.split([queries, self.head_dim, self.head_dim], dim=1))


def model_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """NeMo's `model` keys for the contents of a config.json. `where` names config.json in errors.

    Raises:
        UsageError: NeMo 2.2.1 does not support the architecture or a setting.
    """
    architecture = architecture_of(settings, where)
    for key in _SIZES:
        if not isinstance(settings.get(key), int) or settings[key] < 1:
            raise UsageError(f"{where}: {key}={settings.get(key)}: must be a positive integer")
    for key, wanted in {**_FIXED, **(architecture.fixed or {})}.items():
        if settings.get(key, wanted) not in (wanted, None):
            raise UsageError(f"{where}: {key}={settings[key]}: must be {wanted}, or absent")
    shape = Shape.of(settings)
    if shape.heads % shape.groups:
        raise UsageError(
            f"{where}: num_attention_heads={shape.heads} is not a multiple of num_key_value_heads={shape.groups}"
        )
    # Up to its window, sliding-window attention is full attention.
    window = architecture.window(settings)
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
        "layernorm_epsilon": settings.get("rms_norm_eps", architecture.layernorm_epsilon),
        "activation": "fast-swiglu",
        "bias": False,
        **({"qkv_bias": True} if architecture.qkv_bias else {}),
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
_QKV_BIAS = tuple(f"self_attn.{name}_proj.bias" for name in ("q", "k", "v"))
_GATED = ("mlp.gate_proj.weight", "mlp.up_proj.weight")
# Of architectures whose weights are fused. Queries of all heads are first, unlike in Megatron.
_HF_QKV, _HF_GATED = "self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight"
_FUSED_QKV, _FUSED_GATED = "self_attention.linear_qkv.weight", "mlp.linear_fc1.weight"
_FUSED_BIAS = "self_attention.linear_qkv.bias"
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
    layer_shapes: dict[str, tuple[int, ...]] = {
        "self_attn.o_proj.weight": (hidden, shape.widths[0]),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if shape.is_fused:
        layer_shapes |= {_HF_QKV: (sum(shape.widths), hidden), _HF_GATED: (2 * inner, hidden)}
    else:
        layer_shapes |= {name: (width, hidden) for name, width in zip(_QKV, shape.widths, strict=True)}
        layer_shapes |= dict.fromkeys(_GATED, (inner, hidden))
    if shape.qkv_bias:
        layer_shapes |= {name: (width,) for name, width in zip(_QKV_BIAS, shape.widths, strict=True)}
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
        if shape.is_fused:
            yield prefix + _FUSED_QKV, shape.fuse(*read(hf_prefix + _HF_QKV).split(shape.widths))
            yield prefix + _FUSED_GATED, read(hf_prefix + _HF_GATED)
        else:
            yield prefix + _FUSED_QKV, shape.fuse(*(read(hf_prefix + name) for name in _QKV))
            yield prefix + _FUSED_GATED, torch.cat([read(hf_prefix + name) for name in _GATED])
        if shape.qkv_bias:
            yield prefix + _FUSED_BIAS, shape.fuse(*(read(hf_prefix + name) for name in _QKV_BIAS))
        for name, hf_name in _SAME.items():
            yield prefix + name, read(hf_prefix + hf_name)


def to_huggingface(name: str, weight: torch.Tensor, shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the Hugging Face weights of one checkpoint weight, which stacks all layers in its first dimension.

    Raises:
        UsageError: the architecture has no such weight.
    """
    if name in _OUTSIDE_LAYERS:
        yield _OUTSIDE_LAYERS[name], weight[: shape.vocabulary] if weight.dim() == 2 else weight
        return
    layer_name = name.removeprefix("decoder.layers.")
    for layer, part in enumerate(weight):
        prefix = f"model.layers.{layer}."
        if layer_name in _STORED:
            yield prefix + _STORED[layer_name], part
        else:
            yield from ((prefix + hf_name, piece) for hf_name, piece in _split_fused(layer_name, part, shape))


def _split_fused(name: str, part: torch.Tensor, shape: Shape) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the Hugging Face weights of one of a layer's fused weights."""
    if name == _FUSED_QKV and shape.is_fused:
        yield _HF_QKV, torch.cat(shape.split(part))
    elif name == _FUSED_QKV:
        yield from zip(_QKV, shape.split(part), strict=True)
    elif name == _FUSED_GATED and shape.is_fused:
        yield _HF_GATED, part
    elif name == _FUSED_GATED:
        yield from zip(_GATED, part.chunk(2), strict=True)
    elif name == _FUSED_BIAS and shape.qkv_bias:
        yield from zip(_QKV_BIAS, shape.split(part), strict=True)
    else:
        raise UsageError(f"{name}: this architecture has no such weight")
