# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny models of the architectures beyond Llama and Mistral: the same logits in NeMo, and the same weights back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.training.launch import jobs
from tests.functional.conftest import ENV, TIMEOUT_S, Lab
from tests.functional.test_checkpoint_conversion import assert_same_logits

MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"use_sliding_window": False, "rms_norm_eps": 1e-5},
    "phi3": {"sliding_window": 64, "pad_token_id": 0},
}


@pytest.mark.parametrize("kind", MODELS)
def test_logits_and_weights_are_the_same(kind: str, lab: Lab, tmp_path: Path) -> None:
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoConfig, AutoModelForCausalLM

    folder, nemo, back = tmp_path / "folder", tmp_path / "model.nemo", tmp_path / "back"
    vocabulary = SentencePieceProcessor(model_file=str(lab.folder / "tokenizer.model")).vocab_size()
    torch.manual_seed(1)
    settings = AutoConfig.for_model(
        kind,
        **MODELS[kind],
        hidden_size=64,
        intermediate_size=112,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        vocab_size=vocabulary,
        initializer_range=0.2,
    )
    made = AutoModelForCausalLM.from_config(settings)
    with torch.no_grad():
        # A fresh model has biases of zero, with which a lost bias would not be noticed.
        for name, weight in made.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.5)
    made.bfloat16().save_pretrained(folder)
    shutil.copy(lab.folder / "tokenizer.model", folder)
    job = jobs.start(
        "tests.functional.convert_job",
        [f"gpt_model_file={nemo}", f"+source={folder}", "+tokenizer_name=null"],
        tmp_path / "convert.log",
        ENV,
    )
    jobs.finish(job, TIMEOUT_S)
    assert cli.main(["checkpoint", "to-hf", str(nemo), str(folder), str(back)]) == 0
    theirs, again = (AutoModelForCausalLM.from_pretrained(path, torch_dtype="auto") for path in (folder, back))
    state, other = theirs.state_dict(), again.state_dict()
    assert state.keys() == other.keys() and any(name.endswith("bias") for name in state) == (kind == "qwen2")
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert_same_logits(folder, nemo, tmp_path)
