# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""DPO: the SL-CAI model learns preferences without a reward model."""

import json
import math

import pytest

from tests.functional.conftest import Lab, Run


@pytest.fixture(scope="module")
def dpo_files(lab: Lab) -> None:
    """The reward model's comparisons as DPO's rows."""
    for split in ("train", "test"):
        texts = [json.loads(line)["text"] for line in (lab.folder / f"rm_{split}.jsonl").read_text().splitlines()]
        with (lab.folder / f"dpo_{split}.jsonl").open("w") as file:
            for chosen, rejected in zip(texts[::2], texts[1::2], strict=True):
                prompt, reply = chosen.split("Assistant\n")
                row = {
                    "prompt": f"{prompt}Assistant\n",
                    "chosen_response": reply,
                    "rejected_response": rejected.split("Assistant\n")[1],
                    "chosen_reward": 1.0,
                    "rejected_reward": 0.0,
                }
                file.write(json.dumps(row) + "\n")


def overrides(lab: Lab, sft: Run) -> list[str]:
    return [
        f"pretrained_checkpoint.restore_from_path={sft.nemo('cai_sft')}",
        lab.splits("dpo"),
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.optim.lr=1e-3",
        "model.optim.sched.warmup_steps=1",
        "trainer.dpo.max_epochs=100",
        "trainer.dpo.max_steps=10",
        "trainer.dpo.val_check_interval=10",
        "trainer.dpo.save_interval=10",
    ]


def test_dpo_prefers_the_chosen_replies_and_saves_the_model(lab: Lab, sft: Run, dpo_files: None) -> None:
    run = lab.run("dpo", "dpo", *overrides(lab, sft))
    losses = run.series("train/loss")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4), "it does not begin as its own reference"
    assert losses[-1] < 0.6
    chosen, rejected = run.series("train/rewards_chosen_mean"), run.series("train/rewards_rejected_mean")
    assert chosen[-1] - rejected[-1] > 0.1
    assert run.series("val/acc")[-1] > 0.7
    assert run.nemo("cai_dpo").is_file()
