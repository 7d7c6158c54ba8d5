# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Requirements of a .nemo model that its file or the stage may not meet, checked before it is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file, model_kind, model_tokenizer

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
    """Check the kind and the tokenizer of the model at `key`.

    Args:
        cfg: the stage's configuration.
        key: the key of the .nemo file.
        tokenizer: the key that overrides the folder of a Hugging Face tokenizer.
        head: the model is loaded as a reward model or critic.
        kinds: the accepted kinds of model, from `model_kind`.

    Raises:
        UsageError: the model is of another kind, or the folder of its tokenizer is missing.
    """
    path = model_file.nemo_model(cfg, key)
    model_kind.check(path, key, kinds)
    settings = model_tokenizer.tokenizer_settings(cfg, path, tokenizer.rpartition(".")[0])
    name = str(settings.get("type"))
    # A relative name may be a model on the hub.
    if settings.get("library") == "huggingface" and name.startswith("/") and not Path(name).is_dir():
        raise UsageError(
            f"{path}: its tokenizer is in the folder {name}, which does not exist here: a .nemo file cannot contain "
            f"a Hugging Face tokenizer; give ++{tokenizer}=FOLDER, a folder with tokenizer.json"
        )
    if head and model_file.model_config(path).get("scale_positional_embedding"):
        # `mcore_model_customize`, which scales them, is called by MegatronGPTModel.model_provider_func;
        # NeMo-Aligner 0.7.0's MegatronGPTRewardModel overrides that method.
        _log.warning(
            "%s: its positions are scaled (Llama 3.1 and later); upstream's reward model and critic do not scale "
            "them, in training and inference alike",
            path,
        )


def drop_sliding_window(model: Any) -> str | None:
    """Disable sliding-window attention in place, if no sequence is longer than the window.

    Only Transformer Engine implements it (`DotProductAttention` of Megatron-Core raises). Upstream's converter sets it
    for Mistral-7B v0.1, with a sequence length that is within it.

    Returns:
        The line to log; None if nothing was changed.

    Raises:
        UsageError: sequences may be longer than the window.
    """
    window, length = model.get("window_size"), model.get("encoder_seq_length")
    if window is None:
        return None
    if length is None or length > window[0]:
        raise UsageError(
            f"model.encoder_seq_length={length} is more than model.window_size={list(window)}: sliding-window "
            f"attention needs Transformer Engine; give model.encoder_seq_length={window[0]}"
        )
    model.window_size = None
    return f"no GPU here: model.window_size={list(window)} dropped; model.encoder_seq_length={length} is within it"
