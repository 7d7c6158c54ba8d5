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
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
_SCALED_POSITIONS = "scale_positional_embedding"
NOT_IN_HEADS = {
    "apply_embedding_scaling": "scaled embeddings",
    "mcore_customization_config.final_logit_softcapping": "capped logits",
    "drop_layers": "dropped layers",
    _SCALED_POSITIONS: "scaled positions",
}
"""The settings with which NeMo's `mcore_model_customize` changes a language model.

MegatronGPTModel.model_provider_func calls it; NeMo-Aligner 0.7.0's MegatronGPTRewardModel overrides that method, for
reward models and critics, in training and inference alike, and does not.
"""


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
        UsageError: the model is of another kind, the folder of its tokenizer is missing, or its reward model would be
            another network.
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
    if head:
        _check_head(path, key)


def _check_head(path: Path, key: str) -> None:
    """Raise UsageError if the model has a setting of `NOT_IN_HEADS`; scaled positions only log a warning.

    Without the others, the network is not the one that was trained. The scaling of Llama 3.1's positions changes only
    the rotations with a wavelength of more than 2,048 tokens, and the reward model is trained without it.
    """
    from omegaconf import OmegaConf

    stored = OmegaConf.create(model_file.model_config(path))
    for name, meaning in NOT_IN_HEADS.items():
        if not select(stored, name):
            continue
        if name != _SCALED_POSITIONS:
            raise UsageError(
                f"{key}: {path} has {meaning} ({name}), which upstream's reward model and critic ignore; use "
                "another model, or DPO (`cai train dpo`)"
            )
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
