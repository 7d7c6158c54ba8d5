# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Memory and length limits of a served model, checked before a batch starts."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

_LOGITS_COPIES = 3
_USABLE_SHARE = 0.8


def fits(model: Any, rows: int, length: int, *, logprobs: bool) -> bool:
    """True if the logits of all positions and the KV cache of a batch fit into the free memory."""
    cfg = model.cfg
    logits = rows * length * model.padded_vocab_size * 4 * (_LOGITS_COPIES if logprobs else 1)
    size = cfg.get("kv_channels") or cfg.hidden_size // cfg.num_attention_heads
    heads = cfg.get("num_query_groups") or cfg.num_attention_heads
    cache = rows * length * cfg.num_layers * 2 * heads * size * 4
    return logits + cache <= _USABLE_SHARE * _free_bytes()


def _free_bytes() -> int:
    """Free memory of the device, or of this machine within the limit of its control group."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    import psutil

    free = psutil.virtual_memory().available
    folder = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        # Without a limit the file contains "max", which is not a number.
        free = min(free, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    return free


def context_length(cfg: Any) -> int:
    """The most positions of a model."""
    length = int(cfg.encoder_seq_length)
    if cfg.get("position_embedding_type", "learned_absolute") == "learned_absolute":
        return length
    # SFT may have used shorter sequences than the model supports.
    return max(length, int(cfg.get("max_position_embeddings") or 0))
