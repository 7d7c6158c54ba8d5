# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Every key of our configs is one that upstream 0.7.0 reads: a misspelt one would change nothing, without a word.

Upstream's own configs are not in its wheels, but what reads them is: each key must stand in the sources of the
installed packages as an attribute, a text, a field or an argument.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPO_ROOT

# Importing NeMo-Aligner takes ten seconds, and only its files are read here.
if importlib.util.find_spec("nemo_aligner") is None:
    pytest.skip("the training extra is not installed", allow_module_level=True)

from omegaconf import OmegaConf

from nemo_aligner_cai.training import config

CONF = REPO_ROOT / "examples" / "nlp" / "gpt" / "conf"
PACKAGES = ("nemo_aligner", "nemo/collections/nlp", "nemo/core", "nemo/utils", "nemo/lightning", "megatron/core")
PACKAGES += ("lightning/pytorch/trainer",)
STAGES = ("sft", "reward_model", "ppo_critic", "ppo_actor", "dpo", "inference", "pretrain")
# The attribute .name, the beginning of a text 'name, the field or argument name: and name=. A word of a comment or of
# a docstring's prose is no reader.
READ = re.compile(r"""(?<=[.'"])[A-Za-z_]\w*|[A-Za-z_]\w*(?=\s*[:=])""")
# Keys that upstream's scripts read, or our modules, but no package: with who does.
OTHERS = {
    "system_message": "data_processor, read by training/data_processors.py",
    "load_rm_head_weights": "train_reward_model.py",
    "reward_model_type": "train_reward_model.py",
    "train_random_sampler": "train_reward_model.py",
    "val_random_sampler": "train_reward_model.py",
    "num_rollout_samples": "train_gpt_ppo_actor.py",
    "num_val_samples": "train_gpt_ppo_actor.py",
    "val_rollout_micro_batch_size": "train_gpt_ppo_actor.py",
    "web_server": "megatron_gpt_eval.py",
    "log_requests": "training/inference_server.py",
    "max_model_len": "training/inference_server.py",
    "append_eos": "training/pretrain.py",
    "gpt_model_file": "megatron_gpt_eval.py",
    "pretrained_checkpoint": "train_reward_model.py, serve_ppo_critic.py, train_gpt_ppo_actor.py, train_gpt_dpo.py",
    "remote_critic_rm": "train_gpt_ppo_actor.py",
    "corpus": "training/pretrain.py",
}


@cache
def names() -> frozenset[str]:
    """Every name that the sources of the packages may read a key by."""
    found: set[str] = set()
    for package in PACKAGES:
        top, _, rest = package.partition("/")
        spec = importlib.util.find_spec(top)
        assert spec is not None
        assert spec.submodule_search_locations
        for file in Path(next(iter(spec.submodule_search_locations)), rest).rglob("*.py"):
            found.update(READ.findall(file.read_text(encoding="utf-8", errors="replace")))
    return frozenset(found)


def keys(node: Any) -> Iterator[str]:
    """The keys of a configuration, of sections and of values."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            yield from keys(value)


def composed(stage: str, overrides: list[str]) -> set[str]:
    return set(keys(OmegaConf.to_container(config.compose(f"cai_{stage}", overrides), resolve=False)))


def unknown(stage: str, overrides: list[str]) -> set[str]:
    return composed(stage, overrides) - names() - OTHERS.keys()


def choices() -> list[tuple[str, list[str]]]:
    """Each stage with as few choices as have every option of every group that it has."""
    found: list[tuple[str, list[str]]] = []
    for stage in STAGES:
        entries = yaml.safe_load((CONF / f"cai_{stage}.yaml").read_text(encoding="utf-8"))["defaults"]
        groups = [group for entry in entries if entry != "_self_" for group in entry if " " not in group]
        options = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in groups}
        for number in range(max(map(len, options.values()))):
            found.append((stage, [f"{group}={of[number % len(of)]}" for group, of in options.items()]))
    return found


@pytest.mark.parametrize(("stage", "overrides"), choices(), ids=lambda value: value if value in STAGES else None)
def test_every_key_is_read_by_somebody(stage: str, overrides: list[str]) -> None:
    assert unknown(stage, overrides) == set()


def test_every_option_of_every_group_is_among_them() -> None:
    asked = {choice for _, overrides in choices() for choice in overrides}
    for group in ("data", "data_processor", "hardware", "model", "peft"):
        for path in (CONF / group).glob("*.yaml"):
            assert f"{group}={path.stem}" in asked


#: Sections whose keys are read in few places: the stage, the path, and upstream's files in `nemo_aligner`.
SECTIONS = [
    ("sft", "trainer.sft", ["algorithms/supervised.py"]),
    ("reward_model", "trainer.rm", ["algorithms/supervised.py"]),
    ("dpo", "trainer.dpo", ["algorithms/dpo.py"]),
    ("dpo", "model.dpo", ["models/nlp/gpt/megatron_gpt_dpo_model.py"]),
    ("ppo_critic", "trainer.ppo", ["algorithms/critic_server_trainer.py"]),
    ("ppo_actor", "trainer.ppo", ["algorithms/ppo.py"]),
    ("ppo_actor", "model.ppo", ["models/nlp/gpt/megatron_gpt_ppo_actor.py"]),
]


@pytest.mark.parametrize(("stage", "path", "files"), SECTIONS, ids=lambda value: value if "." in value else None)
def test_the_keys_of_a_section_are_read_in_that_section(stage: str, path: str, files: list[str]) -> None:
    """By upstream, by us, or by another key of the configuration."""
    section = config.select(config.compose(f"cai_{stage}", []), path)
    (folder,) = importlib.util.find_spec("nemo_aligner").submodule_search_locations  # type: ignore[union-attr]
    upstream = "".join(Path(folder, file).read_text(encoding="utf-8") for file in files)
    ours = "".join(file.read_text(encoding="utf-8") for file in (REPO_ROOT / "nemo_aligner_cai/training").glob("*.py"))
    written = (CONF / f"cai_{stage}.yaml").read_text(encoding="utf-8")
    last = path.rpartition(".")[2]
    unread = {
        key
        for key in section
        if not re.search(rf"""cfg\.(ppo\.|dpo\.)?{key}\b|get\(['"]{key}['"]""", upstream)
        and not re.search(rf"""\b{last}\.(get\(")?{key}\b""", ours)
        and not re.search(rf"""\$\{{({path})?\.{key}\b|\$\{{\.{last}\.{key}\b""", written)
    }
    assert unread == set()


def test_a_misspelt_key_would_be_named() -> None:
    assert unknown("sft", ["+model.optim.weigth_decay=0.1", "+model.optin.lr=1"]) == {"weigth_decay", "optin"}


def test_no_exception_is_left_over() -> None:
    used = set[str]().union(*(composed(stage, []) for stage in STAGES))
    assert {key for key in OTHERS if key not in used or key in names()} == set()
