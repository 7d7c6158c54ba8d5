# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
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
    for key in _SIZES:
        if not isinstance(settings.get(key), int) or settings[key] < 1:
            raise UsageError(f"{where}: {key}={settings.get(key)}: a whole number is needed, at least 1")
    for key, wanted in _FIXED.items():
        if settings.get(key, wanted) not in (wanted, None):
            raise UsageError(f"{where}: {key}={settings[key]}: it must be {wanted}, or absent")
    shape = Shape.of(settings)
    if shape.heads % shape.groups:
        raise UsageError(
            f"{where}: num_attention_heads={shape.heads} is no multiple of num_key_value_heads={shape.groups}"
        )
    # Within the window of a sliding attention it is a full one. Transformers gives a Mistral that says nothing 4,096.
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
    # transformers 5 keeps under rope_parameters what earlier ones have in two places.
    scaling = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    found = {"rotary_base": scaling.get("rope_theta", settings.get("rope_theta", 10000.0))}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return found
    if kind != "llama3" or not _LLAMA3_ROPE.keys() <= scaling.keys():
        raise UsageError(
            f"{where}: rope_scaling={dict(scaling)}: only llama3 is known, with {', '.join(_LLAMA3_ROPE)}"
        )
    # Read by NeMo's `mcore_model_customize` alone; Megatron-Core's own rope_scaling has a factor and nothing else.
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


def weight_shapes(settings: Mapping[str, Any], *, tied: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights by their names in Hugging Face's layout, for the contents of a config.json."""
    shape, hidden, inner = Shape.of(settings), settings["hidden_size"], settings["intermediate_size"]
    queries, keys = shape.heads * shape.head_dim, shape.groups * shape.head_dim
    inside = {
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
    return shapes | {
        f"model.layers.{layer}.{name}": of for layer in range(shape.layers) for name, of in inside.items()
    }


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
