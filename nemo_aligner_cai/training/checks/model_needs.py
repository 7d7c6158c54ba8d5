# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a .nemo model needs that is not in its file, or that a stage does not give it; said before it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file, model_kind
from nemo_aligner_cai.training.checks import tokenizer as model_tokenizer

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def check(
    cfg: DictConfig,
    key: str,
    *,
    tokenizer: str = "model.tokenizer.type",
    head: bool = False,
    kinds: Sequence[str] = (model_kind.LANGUAGE_MODEL,),
) -> None:
    """Check the model at `key`.

    Args:
        cfg: the stage's configuration.
        key: where the .nemo file is.
        tokenizer: the key that names another folder for a tokenizer in Hugging Face's form.
        head: whether it is loaded as a reward model or critic.
        kinds: the kinds of model that it may be, of `model_kind`.

    Raises:
        UsageError: it is of another kind, or its tokenizer is in a folder that is not here.
    """
    path = model_file.nemo_model(cfg, key)
    model_kind.check(path, key, kinds)
    stored = model_file.model_config(path)
    wanted = model_tokenizer.settings(cfg, path, tokenizer.rpartition(".")[0])
    if wanted.get("library") == "huggingface":
        _tokenizer_is_here(path, str(wanted.get("type")), tokenizer)
    if head and stored.get("scale_positional_embedding"):
        # `mcore_model_customize`, which scales them, is called by MegatronGPTModel.model_provider_func;
        # NeMo-Aligner 0.7.0's MegatronGPTRewardModel has a model_provider_func of its own.
        _log.warning(
            "%s: its positions are scaled (Llama 3.1 and later), which upstream's reward model and critic leave out, "
            "in training and in use alike",
            path,
        )


def _tokenizer_is_here(path: Path, name: str, key: str) -> None:
    # A relative name may be one on the hub.
    if name.startswith("/") and not Path(name).is_dir():
        raise UsageError(
            f"{path}: its tokenizer is in the folder {name}, which is not here: a .nemo file cannot carry one in "
            f"Hugging Face's form; give ++{key}=FOLDER, one with tokenizer.json"
        )


def leave_out_window(model: Any) -> str | None:
    """Turn off the sliding attention of a model that no sequence is too long for, in place.

    Only Transformer Engine has one (`DotProductAttention` of Megatron-Core stops at it). Upstream's converter writes
    it for Mistral-7B v0.1, beside a sequence length that is within it.

    Args:
        model: a NeMo `model` configuration.

    Returns:
        The line to log; None where there was nothing to do.

    Raises:
        UsageError: sequences may be longer than it.
    """
    window, length = model.get("window_size"), model.get("encoder_seq_length")
    if window is None:
        return None
    if length is None or length > window[0]:
        raise UsageError(
            f"model.encoder_seq_length={length} is more than model.window_size={list(window)}: a sliding attention "
            f"needs Transformer Engine; give model.encoder_seq_length={window[0]}"
        )
    model.window_size = None
    return f"no GPU here: model.window_size={list(window)} left out; model.encoder_seq_length={length} is within it"
