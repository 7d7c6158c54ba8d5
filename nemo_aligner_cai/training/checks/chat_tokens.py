# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The chat template of a stage: the tokens that its configuration sets, and else those of its initial model.

Input:  {turn_start: <turn>} in the configuration, data.chat_prompt_tokens in the model_config.yaml of the checkpoint
Output: model.data.chat_prompt_tokens with all tokens, to which the checks of the data and the stop strings refer
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from nemo_aligner_cai.chat import NEMO_CHAT, NemoChatTemplate
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
KEY = "model.data.chat_prompt_tokens"


def chat_template(cfg: DictConfig) -> NemoChatTemplate:
    """The chat template with the tokens of `model.data.chat_prompt_tokens`, by default the tutorial's."""
    return NemoChatTemplate.from_config(select(cfg, KEY), KEY)


def complete(cfg: DictConfig, model_key: str) -> None:
    """Set the tokens that the configuration does not set to those of the model at `model_key`.

    Upstream merges the two configurations in the same way when it loads the model. A model that was not trained with
    NeMo's chat template has the tutorial's tokens.

    Raises:
        UsageError: NeMo has no such token, or a token is not a non-empty string.
    """
    from omegaconf import OmegaConf

    path = model_file.nemo_model(cfg, model_key)
    trained = NemoChatTemplate.of_model(model_file.model_config(path).get("data"), f"{model_key}: {path}")
    chat_template(cfg)  # raises
    configured = cast(Mapping[str, str], select(cfg, KEY) or {})
    tokens = asdict((trained or NEMO_CHAT).tokens)
    replaced = {name: token for name, token in configured.items() if trained is not None and token != tokens[name]}
    if replaced:
        kept = {name: tokens[name] for name in replaced}
        _log.warning("%s: %s was trained with %s, and this stage uses %s instead", KEY, path, kept, replaced)
    if (tokens := tokens | dict(configured)) != asdict(NEMO_CHAT.tokens):
        _log.info("%s: the rendered texts of the data must have %s", KEY, tokens)
    OmegaConf.update(cfg, KEY, tokens, force_add=True)
