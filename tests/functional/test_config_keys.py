# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Every key of our configs is one that upstream 0.7.0 reads: a misspelt one would change nothing, without a word.

Upstream's own configs are not in its wheels, but what reads them is: each key must stand in the sources of the
installed packages as a name or as a text.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nemo_aligner", reason="the training extra is not installed")

from omegaconf import OmegaConf

from nemo_aligner_cai.training import config

PACKAGES = ("nemo_aligner", "nemo/collections/nlp", "nemo/core", "nemo/utils", "nemo/lightning", "megatron/core")
PACKAGES += ("lightning/pytorch/trainer",)
STAGES = ("sft", "reward_model", "ppo_critic", "ppo_actor", "dpo", "inference", "pretrain")
# Keys that upstream's scripts read, or our modules, but no package: with who does.
OTHERS = {
    "load_rm_head_weights": "train_reward_model.py",
    "reward_model_type": "train_reward_model.py",
    "train_random_sampler": "train_reward_model.py",
    "val_random_sampler": "train_reward_model.py",
    "model_mbs": "upstream's gpt_ppo_actor.yaml has it beside model_gbs",
    "num_val_samples": "train_gpt_ppo_actor.py",
    "val_rollout_micro_batch_size": "train_gpt_ppo_actor.py",
    "web_server": "megatron_gpt_eval.py",
    "log_requests": "training/inference_server.py",
    "append_eos": "training/pretrain.py",
    "gpt_model_file": "megatron_gpt_eval.py",
}


@cache
def words() -> frozenset[str]:
    """Every name, and every word of a text, in the sources of the packages."""
    found: set[str] = set()
    for package in PACKAGES:
        top, _, rest = package.partition("/")
        spec = importlib.util.find_spec(top)
        assert spec is not None
        assert spec.submodule_search_locations
        for file in Path(next(iter(spec.submodule_search_locations)), rest).rglob("*.py"):
            found.update(re.findall(r"[A-Za-z_]\w*", file.read_text(encoding="utf-8", errors="replace")))
    return frozenset(found)


def leaves(node: Any) -> Iterator[str]:
    """The keys of a configuration that hold a value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value) if isinstance(value, Mapping) else (str(key),)


def unknown(stage: str, overrides: list[str]) -> set[str]:
    cfg = config.compose(f"cai_{stage}", overrides)
    return {key for key in leaves(OmegaConf.to_container(cfg, resolve=False)) if key not in words() | OTHERS.keys()}


@pytest.mark.parametrize("hardware", ["8xh100", "cpu"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_key_is_read_by_somebody(stage: str, hardware: str) -> None:
    assert unknown(stage, [f"hardware={hardware}"]) == set()


@pytest.mark.parametrize("model", ["mistral_7b", "llama3_8b", "tiny"])
@pytest.mark.parametrize("stage", ["sft", "reward_model", "ppo_critic", "ppo_actor", "dpo"])
def test_so_is_every_key_of_a_models_settings(stage: str, model: str) -> None:
    assert (
        unknown(stage, [f"model={model}", *(["peft=lora"] if stage in ("sft", "dpo", "ppo_actor") else [])]) == set()
    )


def test_a_misspelt_key_would_be_named() -> None:
    assert unknown("sft", ["+model.optim.weigth_decay=0.1"]) == {"weigth_decay"}


def test_no_exception_is_left_over() -> None:
    used = set[str]()
    for stage in STAGES:
        cfg = config.compose(
            f"cai_{stage}", ["data=cai_blend"] if stage in ("sft", "reward_model", "ppo_actor") else []
        )
        used |= set(leaves(OmegaConf.to_container(cfg, resolve=False)))
    assert {key for key in OTHERS if key not in used or key in words()} == set()
