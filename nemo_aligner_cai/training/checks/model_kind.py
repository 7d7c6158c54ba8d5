# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The kind of model in a .nemo file, found before it is loaded: NeMo fails late on a wrong one, or trains it.

target: nemo_aligner.models.nlp.gpt.gpt_sft_model.GPTSFTModel                           a language model
target: nemo_aligner.models.nlp.gpt.megatron_gpt_reward_model.MegatronGPTRewardModel    a reward model
peft: {peft_scheme: lora}, and weights in one file                                      adapters
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checkpoints import nemo_archive
from nemo_aligner_cai.training.checks import model_file

LANGUAGE_MODEL, REWARD_MODEL, ADAPTERS = "a language model", "a reward model or critic", "adapters"
_ADAPTER_WEIGHTS = "model_weights.ckpt"
_FIXES = {
    ADAPTERS: "adapters are needed; give the base model first",
    LANGUAGE_MODEL: "a language model is needed, such as `cai train sft` saves",
    REWARD_MODEL: "a reward model is needed, such as `cai train reward-model` saves",
}


def kind_of(path: Path) -> str | None:
    """The kind of a .nemo model, its class name if the kind is unknown, or None if its file does not tell."""
    settings = model_file.model_config(path)
    peft = settings.get("peft")
    scheme = peft.get("peft_scheme") if isinstance(peft, Mapping) else None
    names = nemo_archive.read(path).names
    if scheme not in (None, "none") and any(Path(name).name == _ADAPTER_WEIGHTS for name in names):
        return ADAPTERS
    class_name = str(settings.get("target") or "").rpartition(".")[2]
    if "Reward" in class_name or "Critic" in class_name:
        return REWARD_MODEL
    if "GPT" in class_name:
        return LANGUAGE_MODEL
    return f"a {class_name}" if class_name else None


def check(path: Path, key: str, kinds: Sequence[str] = (LANGUAGE_MODEL,)) -> None:
    """Raise UsageError if the .nemo model at `path`, given at `key`, has none of these kinds."""
    kind = kind_of(path)
    if kind is None or kind in kinds:
        return
    fix = "`cai merge-lora` merges them into their base model" if kind == ADAPTERS else _FIXES[kinds[0]]
    raise UsageError(f"{key}: {path} holds {kind}: {fix}")
