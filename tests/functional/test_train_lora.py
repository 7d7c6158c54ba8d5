# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA: adapters alone are trained and saved, and merged into the base model they are the model that was trained."""

from pathlib import Path

import pytest

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import config, merge_lora
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.launch.log_folder import last_step
from tests.functional.conftest import ENV, PACKAGE, TIMEOUT_S, Lab, Run

LORA = [
    "peft=lora",
    "model.peft.lora_tuning.adapter_dim=8",
    "++model.peft.lora_tuning.alpha=16",
    "model.peft.lora_tuning.target_modules=[attention, mlp]",
    "model.optim.lr=1e-2",
]


@pytest.fixture(scope="module")
def adapters(lab: Lab, base: Path) -> Run:
    """SFT of adapters in every linear layer."""
    return lab.run("sft", "sft_lora", *lab.sft_overrides(base, 20), *LORA)


def test_adapters_alone_learn_and_are_saved(adapters: Run, base: Path) -> None:
    losses = adapters.series("train/loss")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert adapters.nemo("cai_sft").stat().st_size < base.stat().st_size / 2
    assert last_step(adapters.log_dir) == 20, "a resumed run is known by its checkpoint, which is a file here"


def test_the_merged_model_has_the_loss_of_the_adapted_one(lab: Lab, base: Path, adapters: Run, tmp_path: Path) -> None:
    merged = tmp_path / "merged.nemo"
    paths = [f"gpt_model_file={base}", f"adapter_file={adapters.nemo('cai_sft')}", f"output={merged}", "hardware=cpu"]
    jobs.finish(jobs.start(f"{PACKAGE}.merge_lora", paths, tmp_path / "merge.log", ENV), TIMEOUT_S)
    # One step at rate 0 changes no weight, so what is validated is what the file holds.
    frozen = ["model.optim.lr=0", "model.optim.sched.min_lr=0", "trainer.sft.val_check_interval=1"]
    again = lab.run("sft", "sft_merged", *lab.sft_overrides(merged, 1), *frozen)
    assert again.series("val/loss")[-1] == pytest.approx(adapters.series("val/loss")[-1], abs=1e-5)
    # A10: the adapters were trained with NeMo's template, which the base has not been.
    assert not model_file.model_config(base)["data"].get("chat")
    kept, trained = (model_file.model_config(path)["data"] for path in (merged, adapters.nemo("cai_sft")))
    assert kept["chat"] is True
    assert kept["chat_prompt_tokens"] == trained["chat_prompt_tokens"]
    with pytest.raises(UsageError, match="adapter_file"):
        merge_lora.check(config.compose("cai_merge_lora", [*paths[:1], f"adapter_file={base}", f"output={merged}2"]))
