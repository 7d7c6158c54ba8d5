# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""SFT and the reward model started from the raw files of the generation stages, without a step in between."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.data.formats.files import read_records
from nemo_aligner_cai.data.records import Chat, Comparison
from nemo_aligner_cai.files import RowCounts
from tests.functional import world
from tests.functional.conftest import Lab, Run

STEPS = 2


def raw_revisions(sft_file: Path, path: Path) -> Path:
    """The conversations of an SFT file as SL-CAI generation would have left them."""
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(read_records(sft_file, "sft-chat", counts=RowCounts())):
        assert isinstance(record, Chat)
        prompt, revision = record.conversation.without_last(), record.conversation.messages[-1].content
        told = {"response": "?", "critique": "!", "revision": revision}
        rows.append({"id": str(number), "prompt": prompt.to_messages(), **told})
    world.write(path, rows)
    return path


def raw_comparisons(rm_file: Path, path: Path) -> Path:
    """The pairs of a reward model's file as RL-CAI generation would have left them, each before a prompt with none."""
    rows: list[dict[str, Any]] = []
    records = read_records(rm_file, "rm-comparisons", counts=RowCounts())
    for number, record in enumerate(records):
        assert isinstance(record, Comparison)
        texts = {"chosen": record.chosen, "rejected": record.rejected}
        pairs = [{**texts, "chosen_key": "a", "rejected_key": "b", "probability": 0.9}]
        candidates = [{"key": key, "text": text} for key, text in zip("ab", texts.values(), strict=True)]
        row = {
            "id": str(number),
            "prompt": record.prompt.to_messages(),
            "candidates": candidates,
            "verdicts": [],
        }
        rows += [{**row, "pairs": pairs}, {**row, "pairs": []}]
    world.write(path, rows)
    return path


def test_sft_from_raw_revisions_is_sft_from_their_sft_file(lab: Lab, base: Path, sft: Run, tmp_path: Path) -> None:
    raw = raw_revisions(lab.folder / "sft_train.jsonl", tmp_path / "cai_revisions.jsonl")
    overrides = [*lab.sft_overrides(base, STEPS), f"model.data.train_ds.file_path={raw}", "data_processor=auto"]
    run = lab.run("sft", "sft_of_raw", *overrides, "trainer.sft.val_check_interval=1")
    assert run.series("train/loss") == pytest.approx(sft.series("train/loss")[:STEPS], abs=1e-6)
    assert run.nemo("cai_sft").is_file()
    log = run.log.read_text(encoding="utf-8")
    assert f"{raw} converted from cai-revisions to sft-chat: {run.log_dir}/data_cache/" in log
    assert "80 rows in = 80 written + 0 skipped" in log
    # Already in the trainer's format.
    assert "model.data.validation_ds.file_path: " not in log


def test_the_reward_model_from_raw_comparisons_is_the_one_from_their_pairs(
    lab: Lab, sft: Run, reward_model: Run, tmp_path: Path
) -> None:
    train, test = (
        raw_comparisons(lab.folder / f"rm_{split}.jsonl", tmp_path / f"{split}.jsonl") for split in ("train", "test")
    )
    run = lab.run(
        "reward_model",
        "rm_of_raw",
        f"pretrained_checkpoint.restore_from_path={sft.nemo('cai_sft')}",
        f"model.data.data_prefix={{train: [{train}], validation: [{test}], test: [{test}]}}",
        "data_processor=cai_comparisons",
        f"data_processor.cache={tmp_path / 'cache'}",
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.optim.lr=1e-3",
        f"trainer.rm.max_steps={STEPS}",
        f"trainer.rm.val_check_interval={STEPS}",
        f"trainer.rm.save_interval={STEPS}",
        "exp_manager.create_checkpoint_callback=false",
    )
    assert run.series("train/loss") == pytest.approx(reward_model.series("train/loss")[:STEPS], abs=1e-6)
    balances = [json.loads(path.read_bytes())["rows"] for path in (tmp_path / "cache").glob("*.json")]
    assert sorted((rows["rows_in"], rows["written"]) for rows in balances) == [(40, 20), (160, 80)]
