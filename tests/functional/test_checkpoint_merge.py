# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a stage keeps of the configuration in its checkpoint, merged as NeMo-Aligner merges it."""

import dataclasses
import importlib.util
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

if importlib.util.find_spec("nemo_aligner") is None:
    pytest.skip("the training extra is not installed", allow_module_level=True)

from nemo_aligner_cai.packaged_files import MODEL
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.checkpoints.nemo_archive import MODEL_CONFIG
from nemo_aligner_cai.training.checks import model_file, model_needs

STAGES = ("sft", "reward_model", "ppo_critic", "ppo_actor", "dpo")
#: Of the keys that NeMo builds a model from, those that leave its function unchanged: precision, memory, kernels,
#: regularization, processes.
NO_ARCHITECTURE = re.compile(
    r"precision|fp16|bf16|fp8\w*|megatron_amp_O2|activations_checkpoint_\w+|\w+_dropout|\w+_fusion|use_flash_attention|"
    r"transformer_engine|persist_layer_norm|use_cpu_initialization|\w+_parallel|\w+_parallel_size"
)
#: A reward model has no output layer to share the embeddings with.
HEAD = {"reward_model": {"share_embeddings_and_output_weights"}}


def merged(stage: str, source: Path, overrides: list[str]) -> Any:
    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    from nemo_aligner.utils.utils import load_and_override_model_config

    return load_and_override_model_config(str(source), config.compose(f"cai_{stage}", overrides).model)


@cache
def read_by_nemo() -> frozenset[str]:
    """The keys that NeMo's GPT model, and Megatron's configuration of it, are built from."""
    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    from megatron.core.transformer.transformer_config import TransformerConfig
    from nemo.collections.nlp.models.language_modeling.megatron_base_model import MegatronBaseModel
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import (
        MegatronGPTModel,
        mcore_model_customize,
    )

    readers = (
        MegatronGPTModel.model_provider_func,
        mcore_model_customize,
        MegatronGPTModel.build_transformer_config,
        MegatronBaseModel.build_transformer_config,
    )
    sources = "".join(inspect.getsource(reader) for reader in readers)
    fields = {field.name for field in dataclasses.fields(TransformerConfig)}
    return frozenset(fields.union(re.findall(r"cfg\.get\(\s*['\"](\w+)", sources)))


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_inherits_the_length_of_a_schedule(stage: str) -> None:
    assert model_file.model_config(MODEL)["optim"]["sched"]["max_steps"] == 4000
    assert "max_steps" not in merged(stage, MODEL, []).optim.sched
    assert merged(stage, MODEL, ["++model.optim.sched.max_steps=7"]).optim.sched.max_steps == 7


@pytest.mark.parametrize("machine", ["8xh100", "1xgpu", "cpu"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_keeps_the_architecture_of_its_checkpoint(stage: str, machine: str, tmp_path: Path) -> None:
    architecture = {key for key in read_by_nemo() if not NO_ARCHITECTURE.fullmatch(key)} - HEAD.get(stage, set())
    assert {"seq_len_interpolation_factor", "rotary_base", "normalization", "window_size"} < architecture
    stored = model_file.model_config(MODEL) | dict.fromkeys(architecture, "the checkpoint's")
    (tmp_path / MODEL_CONFIG).write_text(yaml.safe_dump(stored), encoding="utf-8")
    model = merged(stage, tmp_path, [f"hardware={machine}"])
    assert {key for key in architecture if model.get(key) != "the checkpoint's"} == set()


def test_every_change_that_reward_models_lack_is_known() -> None:
    assert read_by_nemo()
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import mcore_model_customize

    source = inspect.getsource(mcore_model_customize)
    conditions = re.findall(r"^    if (.*):$", source, re.MULTILINE)
    read = {".".join(re.findall(r"get\(\"(\w+)\"", condition)) for condition in conditions}
    assert read == set(model_needs.NOT_IN_HEADS)
