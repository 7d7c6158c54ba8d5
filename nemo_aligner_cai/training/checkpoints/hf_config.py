# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Converts a Hugging Face config.json to NeMo's `model` keys, without torch.

Input:  {"model_type": "mistral", "hidden_size": 4096, "num_attention_heads": 32, "rope_theta": 10000.0, ...}
Output: {"hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128, "rotary_base": 10000.0, ...}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.sections import first_problem
from nemo_aligner_cai.training.checkpoints.architectures import ARCHITECTURES, Architecture, architecture_of, shown

_FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "quantization_config": None}
_LLAMA3_ROPE = {
    "factor": "scale_factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "old_context_len",
}
"""The keys of Llama 3's position scaling: in config.json -> in NeMo."""
_Size = Annotated[int, Field(ge=1, lt=1 << 31)]
_Positive = Annotated[float, Field(gt=0)]


class _Lenient(BaseModel):
    # transformers adds keys with each version.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class _Rope(_Lenient):
    rope_theta: _Positive | None = None
    rope_type: str | None = None
    type: str | None = None
    factor: _Positive | None = None
    low_freq_factor: _Positive | None = None
    high_freq_factor: _Positive | None = None
    original_max_position_embeddings: _Size | None = None


class _HfConfig(_Lenient):
    """The keys of config.json that are read; null is absent."""

    hidden_size: _Size
    intermediate_size: _Size
    max_position_embeddings: _Size
    num_attention_heads: _Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=10_000)]
    vocab_size: _Size
    num_key_value_heads: _Size | None = None
    head_dim: _Size | None = None
    sliding_window: _Size | None = None
    use_sliding_window: bool | None = None
    tie_word_embeddings: bool | None = None
    initializer_range: _Positive | None = None
    rms_norm_eps: _Positive | None = None
    rope_theta: _Positive | None = None
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None


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
        """Read the sizes from the contents of a config.json that `model_settings` has accepted."""
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


def model_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """NeMo's `model` keys for the contents of a config.json. `where` names config.json in errors.

    Raises:
        UsageError: a key has a wrong value, or NeMo 2.2.1 does not support the architecture or a setting.
    """
    architecture = architecture_of(settings, where)
    try:
        config = _HfConfig.model_validate(settings)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error)}") from error
    for key, wanted in {**_FIXED, **(architecture.fixed or {})}.items():
        if settings.get(key, wanted) not in (wanted, None):
            raise UsageError(f"{where}: {key}={shown(settings[key])}: must be {wanted}, or absent")
    shape = Shape.of(settings)
    if shape.heads % shape.groups:
        raise UsageError(
            f"{where}: num_attention_heads={shape.heads} is not a multiple of num_key_value_heads={shape.groups}"
        )
    if config.head_dim is None and config.hidden_size % shape.heads:
        raise UsageError(
            f"{where}: hidden_size={config.hidden_size} is not a multiple of num_attention_heads={shape.heads}, and "
            "there is no head_dim"
        )
    positions = _positions(settings, architecture, config)
    return {
        "encoder_seq_length": positions,
        "max_position_embeddings": positions,
        "num_layers": shape.layers,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.intermediate_size,
        "num_attention_heads": shape.heads,
        "num_query_groups": shape.groups,
        "kv_channels": shape.head_dim,
        "init_method_std": config.initializer_range or 0.02,
        "normalization": "rmsnorm",
        "layernorm_epsilon": config.rms_norm_eps or architecture.layernorm_epsilon,
        "activation": "fast-swiglu",
        "bias": False,
        **({"qkv_bias": True} if architecture.qkv_bias else {}),
        **_rope(config, settings, where),
    }


def _positions(settings: Mapping[str, Any], architecture: Architecture, config: _HfConfig) -> int:
    # Up to its window, sliding-window attention is full attention.
    return min(architecture.window(settings) or config.max_position_embeddings, config.max_position_embeddings)


def _rope(config: _HfConfig, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    # transformers 5 has rope_parameters instead of rope_scaling and rope_theta.
    scaling = config.rope_parameters or config.rope_scaling or _Rope()
    found: dict[str, Any] = {"rotary_base": scaling.rope_theta or config.rope_theta or 10000.0}
    kind = scaling.rope_type or scaling.type or "default"
    if kind == "default":
        return found
    values = {new: getattr(scaling, key) for key, new in _LLAMA3_ROPE.items()}
    if kind != "llama3" or None in values.values():
        given = settings.get("rope_parameters") or settings.get("rope_scaling")
        raise UsageError(
            f"{where}: rope_scaling={shown(given)}: only llama3 is supported, with {', '.join(_LLAMA3_ROPE)}"
        )
    # Read by NeMo's `mcore_model_customize`; Megatron-Core's own rope_scaling supports a factor only.
    return found | {"scale_positional_embedding": True} | values
