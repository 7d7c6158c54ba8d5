# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai run` of a small configuration, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import yaml

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.files import read_jsonl
from tests.run_steps import STEPS

STEP_TIMEOUT_S = 300
SIZES = {"red_team": 128, "helpful_sft": 64, "helpful_train": 64, "helpful_test": 32, "measure": 24}
# Bytes of these depend on the seed alone: on prompts, on models trained from them, and on what those models said.
COMPARED = (
    "1_data/sl_prompts.jsonl",
    "2_sl_cai/revisions.jsonl",
    "2_sl_cai/train.jsonl",
    "4_rl_cai/comparisons.jsonl",
    "4_rl_cai/rm_train.jsonl",
    "4_rl_cai/ppo_train.jsonl",
    "7_measure/helpful_only_sampled.jsonl",
    "7_measure/sl_cai_sampled.jsonl",
    "7_measure/rl_cai_sampled.jsonl",
    "7_measure/rl_cai_greedy.jsonl",
)


def small_config(folder: Path, **changes: Any) -> Path:
    """The quickstart's configuration with few rows and steps, as a file."""
    tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
    tree["data"]["tiny"].update(SIZES)
    tree["sl_cai"]["validation_share"] = 0.25
    tree["rl_cai"]["test_share"] = 0.5
    steps = {"sft": ("trainer.sft", 20), "reward_model": ("trainer.rm", 12)}
    for name, (trainer, count) in steps.items():
        given = tuple(f"{trainer}.{key}" for key in ("max_steps", "val_check_interval", "save_interval"))
        own = [line for line in tree[name]["overrides"] if not line.startswith(given)]
        tree[name]["overrides"] = [*own, *(f"{key}={count}" for key in given)]
    tree["reward_model"]["overrides"] += ["++model.micro_batch_size=8", "++model.global_batch_size=8"]
    tree["ppo"]["actor"] = [
        line for line in tree["ppo"]["actor"] if not line.startswith(("trainer.ppo.max_steps", "trainer.ppo.val"))
    ] + ["trainer.ppo.max_steps=4", "trainer.ppo.val_check_interval=2"]
    for key, value in changes.items():
        section = tree
        *parents, last = key.split("__")
        for parent in parents:
            section = section[parent]
        section[last] = value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def records(output: Path) -> dict[str, dict[str, Any]]:
    """The record of each step of a run that is done."""
    return {step: json.loads((output / step / "step.json").read_text()) for step in STEPS}


def check_files(output: Path) -> None:
    """Every file of a run passes its validator, and every row is accounted for."""
    formats = {
        "sft-chat": ("1_data/helpful_sft.jsonl", "2_sl_cai/train.jsonl", "2_sl_cai/validation.jsonl"),
        "rm-comparisons": ("4_rl_cai/rm_train.jsonl", "4_rl_cai/rm_test.jsonl"),
        "ppo-prompts": ("4_rl_cai/ppo_train.jsonl", "4_rl_cai/ppo_test.jsonl"),
    }
    for name, files in formats.items():
        for file in files:
            assert validate_file(output / file, name).written > 0
    balances = [
        counts
        for record in records(output).values()
        for counts in [
            *record["facts"].get("balances", {}).values(),
            *([record["facts"]["generation"]["balance"]] if "generation" in record["facts"] else []),
        ]
    ]
    assert len(balances) >= 10
    for counts in balances:
        assert counts["rows_in"] == counts["written"] + sum(counts["left_out"].values())
    train, test = (
        {row["text"] for _, row in read_jsonl(output / f"4_rl_cai/ppo_{split}.jsonl")} for split in ("train", "test")
    )
    assert not train & test


class Runs:
    """Starts `cai run` and accounts for every process that it has started."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex

    def start(self, config: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
        """Begin a run in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "nemo_aligner_cai.cli", "run", str(config), "--output", str(output), *arguments],
            env=os.environ | {"CAI_TEST_MARK": self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, config: Path, output: Path, *arguments: str) -> str:
        """A run to its end; returns what it printed."""
        process = self.start(config, output, *arguments)
        printed, _ = process.communicate(timeout=STEP_TIMEOUT_S * 3)
        assert process.returncode == 0, printed
        return printed

    def alive(self) -> list[psutil.Process]:
        """Processes that carry this object's mark in their environment."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CAI_TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def assert_none_left(self, patience_s: float = 45.0) -> None:
        """All are gone, or go within the time that orphans are given."""
        deadline = time.monotonic() + patience_s
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not left, [process.cmdline() for process in left]

    @staticmethod
    def wait_for(process: subprocess.Popen[str], folder: Path, sign: str, text: str = "") -> None:
        """Wait until the folder has a file whose name matches ``sign``, with content, and with ``text`` in it."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while not any(path.stat().st_size and text in path.read_text("utf-8") for path in folder.glob(sign)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
