# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Converts the weights of the architectures in `architectures.py` between Hugging Face's layout and Megatron-Core's.

Megatron has one matrix for query, key and value, which contains the queries, the key and the value of each
grouped-query attention group in turn, and one matrix for the gate and the up projection, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checkpoints.hf_config import Shape

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


def _fuse(shape: Shape, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Fuse (heads * head_dim, in) and 2 x (groups * head_dim, in) into ((heads + 2 groups) * head_dim, in).

    Biases have no dimension `in`.
    """
    parts = [part.unflatten(0, (shape.groups, -1)) for part in (query, key, value)]
    return torch.cat(parts, dim=1).flatten(0, 1)


def _split(shape: Shape, fused: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Invert `_fuse`."""
    queries = shape.heads // shape.groups * shape.head_dim
    grouped = fused.unflatten(0, (shape.groups, -1))
    return tuple(part.flatten(0, 1) for part in grouped.split([queries, shape.head_dim, shape.head_dim], dim=1))


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
            yield prefix + _FUSED_QKV, _fuse(shape, *read(hf_prefix + _HF_QKV).split(shape.widths))
            yield prefix + _FUSED_GATED, read(hf_prefix + _HF_GATED)
        else:
            yield prefix + _FUSED_QKV, _fuse(shape, *(read(hf_prefix + name) for name in _QKV))
            yield prefix + _FUSED_GATED, torch.cat([read(hf_prefix + name) for name in _GATED])
        if shape.qkv_bias:
            yield prefix + _FUSED_BIAS, _fuse(shape, *(read(hf_prefix + name) for name in _QKV_BIAS))
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
        yield _HF_QKV, torch.cat(_split(shape, part))
    elif name == _FUSED_QKV:
        yield from zip(_QKV, _split(shape, part), strict=True)
    elif name == _FUSED_GATED and shape.is_fused:
        yield _HF_GATED, part
    elif name == _FUSED_GATED:
        yield from zip(_GATED, part.chunk(2), strict=True)
    elif name == _FUSED_BIAS and shape.qkv_bias:
        yield from zip(_QKV_BIAS, _split(shape, part), strict=True)
    else:
        raise UsageError(f"{name}: this architecture has no such weight")
