# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Facts about a run of `make real`: `python real_run.py RUN`; exit code 1 if one does not hold.

Input:  the run's folder
Output: time and memory of each step; loss and accuracy of the trainers; whether the data files are valid; the answers
        of the last model
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.files import read_json, read_jsonl
from nemo_aligner_cai.training.metrics.files import read_metrics

FILES = {
    "2_sl_cai/train.jsonl": "sft-chat",
    "2_sl_cai/validation.jsonl": "sft-chat",
    "4_rl_cai/rm_train.jsonl": "rm-comparisons",
    "4_rl_cai/rm_test.jsonl": "rm-comparisons",
    "4_rl_cai/ppo_train.jsonl": "ppo-prompts",
    "4_rl_cai/ppo_test.jsonl": "ppo-prompts",
}
ANSWERS = "7_answers/answers.jsonl"
CHANCE = 0.5

Fact = tuple[bool, str]
"""Whether a fact holds, and its figures."""


def main() -> int:
    """Print the figures of a run; returns 1 if a fact does not hold."""
    run = Path(sys.argv[1])
    for line in steps(run):
        sys.stdout.write(f"{line}\n")
    facts = [*files(run), *trainers(run), *answers(run)]
    for holds, text in facts:
        sys.stdout.write(f"{'ok    ' if holds else 'FAILED'} {text}\n")
    return 0 if all(holds for holds, _ in facts) else 1


def steps(run: Path) -> Iterator[str]:
    """The time and memory of each step."""
    for path in sorted(run.glob("*/step.json")):
        record = read_json(path)
        yield f"{record['step']:20} {record['seconds']:8.1f} s {record['peak_rss_mb']:8.0f} MB"


def files(run: Path) -> Iterator[Fact]:
    """Each training file has rows, and is valid."""
    for name, form in FILES.items():
        counts = validate_file(run / name, form)
        yield counts.written > 0, f"{name}: {form}, {counts}"


def trainers(run: Path) -> Iterator[Fact]:
    """SFT's loss falls, the reward model is better than chance on held-out pairs, and PPO made its steps."""
    losses = values(run / "3_sft" / "train", "train/loss")
    third = max(1, len(losses) // 3)
    first, last = statistics.mean(losses[:third]), statistics.mean(losses[-third:])
    yield last < first, f"SFT: {len(losses)} steps, loss {first:.3f} (first third) -> {last:.3f} (last third)"
    (accuracy,) = values(run / "5_reward_model" / "train", "val/acc")[-1:]
    count = len(values(run / "5_reward_model" / "train", "train/loss"))
    yield accuracy > CHANCE, f"reward model: {count} steps, {100 * accuracy:.1f} % of the held-out pairs"
    rewards = values(run / "6_ppo" / "train", "train_rollouts/rewards")
    yield bool(rewards), f"PPO: {len(rewards)} steps, rewards {rewards[0]:.3f} -> {rewards[-1]:.3f}"


def values(log_dir: Path, name: str) -> list[float]:
    """All values of a trainer's metric, in the order of steps; steps that a resumed run repeated count once."""
    found = {row["step"]: float(row[name]) for row in read_metrics(log_dir) if row.get(name) is not None}
    return [found[step] for step in sorted(found)]


def answers(run: Path) -> Iterator[Fact]:
    """The last model's answers, by its Hugging Face folder and its own chat template."""
    for _, row in read_jsonl(run / ANSWERS):
        yield bool(row["answer"].strip()), f"{row['model']}: {row['prompt']!r} -> {row['answer']!r}"


if __name__ == "__main__":
    sys.exit(main())
