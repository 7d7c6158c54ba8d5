# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The step of the checkpoint that a trainer resumes from: of whole models, of adapters, and of neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_aligner_cai.training.launch.log_folder import last_step

LAST = "cai_sft--val_loss=1.250-step=50-consumed_samples=800.0-last"


@pytest.mark.parametrize(
    ("files", "step"),
    [
        ([f"{LAST}/metadata.json"], 50),
        ([f"{LAST}.ckpt"], 50),
        ([f"mp_rank_00/{LAST}.ckpt", f"mp_rank_01/{LAST}.ckpt"], 50),
        ([f"tp_rank_00_pp_rank_000/{LAST}.ckpt", f"tp_rank_01_pp_rank_000/{LAST}.ckpt"], 50),
        ([f"{LAST}.ckpt", f"{LAST}-unfinished"], None),
        ([f"mp_rank_00/{LAST}.ckpt", f"{LAST}-unfinished"], None),
        ([f"{LAST}.ckpt", f"{LAST.replace('step=50', 'step=60')}.ckpt"], None),
        (["cai_sft--val_loss=1.250-step=50.ckpt", "cai_sft.nemo"], None),
        ([], None),
    ],
)
def test_the_checkpoint_to_resume_from_is_the_only_finished_one(
    tmp_path: Path, files: list[str], step: int | None
) -> None:
    for name in files:
        path = tmp_path / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert last_step(tmp_path) == step
