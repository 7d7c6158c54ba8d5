# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The architectures of Hugging Face that NeMo 2.2.1's MegatronGPTModel can represent, and why others are refused.

The tables in README.md and docs/compatibility.rst are compared with this module by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.training.checkpoints.json_object import read_json_object

_SHOWN = 100
"""Characters of a value in an error message."""


@dataclass(frozen=True)
class Architecture:
    """The differences of an architecture from Llama.

    Attributes:
        models: the models that have it.
        qkv_bias: query, key and value have biases (NeMo's `qkv_bias`).
        is_fused: one weight for query, key and value, and one for the gate and the up projection.
        layernorm_epsilon: transformers' default of rms_norm_eps.
        sliding_window: transformers' default of sliding_window.
        window_switch: the key that must be true for sliding_window to apply; None if it always applies.
        fixed: further keys of config.json that must have these values, or be absent.
    """

    models: str
    qkv_bias: bool = False
    is_fused: bool = False
    layernorm_epsilon: float = 1e-6
    sliding_window: int | None = None
    window_switch: str | None = None
    fixed: Mapping[str, Any] | None = None

    def window(self, settings: Mapping[str, Any]) -> int | None:
        """The size of the attention window, or None."""
        if self.window_switch is not None and not settings.get(self.window_switch):
            return None
        return settings.get("sliding_window", self.sliding_window)


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("Llama 2, 3, 3.1, 3.2 (text), SmolLM2"),
    "mistral": Architecture("Mistral 7B", sliding_window=4096),
    "qwen2": Architecture("Qwen2, Qwen2.5", qkv_bias=True, sliding_window=4096, window_switch="use_sliding_window"),
    "phi3": Architecture(
        "Phi-3 mini and medium with 4k positions, Phi-4",
        is_fused=True,
        layernorm_epsilon=1e-5,
        fixed={"partial_rotary_factor": 1.0},
    ),
}
"""model_type in config.json -> architecture."""

REFUSED: Mapping[str, str] = {
    "qwen3": "NeMo 2.2.1's GPT layers have no normalization of queries and keys; Qwen2.5 works",
    "gemma": "NeMo 2.2.1 scales its embeddings in mcore_model_customize, which upstream's reward model and critic do "
    "not call; Llama, Mistral or Qwen2.5 works",
    "gemma2": "NeMo 2.2.1 caps its logits in Transformer Engine's layers and in mcore_model_customize, which "
    "upstream's reward model and critic do not call; Llama, Mistral or Qwen2.5 works",
    "mixtral": "mixtures of experts are not supported; Mistral 7B works",
}
"""model_type in config.json -> why it is refused, and what works."""


def read_settings(folder: Path) -> dict[str, Any]:
    """The contents of a folder's config.json; raises UsageError if it is missing or invalid."""
    if not folder.exists():
        raise NotHere(f"{folder}: there is no such folder", folder)
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder}: not a Hugging Face model: it has no config.json")
    return read_json_object(file)


def context_length(folder: Path) -> int | None:
    """The context of a folder's model, in tokens; None if config.json does not name it. Raises UsageError."""
    length = read_settings(folder).get("max_position_embeddings")
    if length is not None and (type(length) is not int or length < 1):
        raise UsageError(f"{folder / 'config.json'}: max_position_embeddings: must be a positive integer")
    return length


def shown(value: object) -> str:
    """Return a value of a config.json for an error message: printable, and cut."""
    return printable(str(value))[:_SHOWN]


def architecture_of(settings: Mapping[str, Any], where: str) -> Architecture:
    """Return the architecture of a model. `where` names config.json in errors.

    Raises:
        UsageError: it is not supported.
    """
    kind = shown(settings.get("model_type"))
    if kind in REFUSED:
        raise UsageError(f"{where}: model_type={kind}: {REFUSED[kind]}")
    if kind not in ARCHITECTURES:
        raise UsageError(f"{where}: model_type={kind}: only {', '.join(ARCHITECTURES)} are supported")
    return ARCHITECTURES[kind]
