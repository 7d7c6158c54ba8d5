# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The kind of model in a .nemo file, told before it is loaded: NeMo fails late at a wrong one, or trains it.

target: nemo_aligner.models.nlp.gpt.gpt_sft_model.GPTSFTModel                           a language model
target: nemo_aligner.models.nlp.gpt.megatron_gpt_reward_model.MegatronGPTRewardModel    a reward model
peft: {peft_scheme: lora}, and weights in one file                                      adapters
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file

LANGUAGE_MODEL, REWARD_MODEL, ADAPTERS = "a language model", "a reward model or critic", "adapters"
_ADAPTER_WEIGHTS = "model_weights.ckpt"
_FIXES = {
    LANGUAGE_MODEL: "a language model is needed, such as `cai train sft` saves",
    REWARD_MODEL: "a reward model is needed, such as `cai train reward-model` saves",
}


def kind_of(path: Path) -> str | None:
    """The kind of a .nemo model, or its class if it is of another kind; None if its file does not say."""
    settings = model_file.model_config(path)
    peft = settings.get("peft")
    scheme = peft.get("peft_scheme") if isinstance(peft, Mapping) else None
    if scheme not in (None, "none") and any(
        Path(name).name == _ADAPTER_WEIGHTS for name in model_file.contents(path).names
    ):
        return ADAPTERS
    name = str(settings.get("target") or "").rpartition(".")[2]
    if "Reward" in name or "Critic" in name:
        return REWARD_MODEL
    if "GPT" in name:
        return LANGUAGE_MODEL
    return f"a {name}" if name else None


def check(path: Path, key: str, kinds: Sequence[str] = (LANGUAGE_MODEL,)) -> None:
    """Raise UsageError if the .nemo model at `path`, given at `key`, is of none of these kinds."""
    kind = kind_of(path)
    if kind is None or kind in kinds:
        return
    fix = "`cai merge-lora` makes a model of them and their base" if kind == ADAPTERS else _FIXES[kinds[0]]
    raise UsageError(f"{key}: {path} holds {kind}: {fix}")
