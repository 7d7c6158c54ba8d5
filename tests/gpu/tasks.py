# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Models and data to measure trainers with: the packaged assistant, and one of a billion random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.packaged_files import MODEL, TOKENIZER
from nemo_aligner_cai.training.launch import jobs

HEAD = "<extra_id_0>System\n\n<extra_id_1>"  # how every text begins
PACKAGE = "nemo_aligner_cai.training"


@dataclass(frozen=True)
class Size:
    """A model and the batches it is measured with.

    Attributes:
        name: for tables and folders.
        architecture: overrides of `cai_pretrain` for random weights; None for the packaged assistant.
        window: tokens of a sequence at most.
        row: tokens that a row is filled up to, with whole conversations of the tiny world.
        reply: tokens that PPO generates at most.
        micro: samples a micro batch.
        batch: samples a step, rollouts of PPO too.
        rate: the learning rate of SFT and the reward model.
    """

    name: str
    architecture: tuple[str, ...] | None
    window: int
    row: int
    reply: int
    micro: int
    batch: int
    rate: float


TINY = Size("tiny", None, window=256, row=1, reply=32, micro=16, batch=64, rate=1e-3)
BILLION = Size(
    "1b",
    ("model.num_layers=20", "model.hidden_size=2048", "model.num_attention_heads=16"),
    window=1024,
    row=900,
    reply=128,
    micro=4,
    batch=32,
    rate=1e-4,
)


@dataclass(frozen=True)
class Task:
    """A model with its data.

    Attributes:
        size: what it was made as.
        model: the .nemo file.
        files: "sft", "comparisons" and "prompts", in the formats that the trainers read.
        tokens: of a row of each file on average, padding not counted.
    """

    size: Size
    model: Path
    files: dict[str, Path]
    tokens: dict[str, float]


def build(size: Size, folder: Path, hardware: str) -> Task:
    """Make a size's model and data in `folder`.

    Args:
        size: what to make.
        folder: where; created.
        hardware: the group's option to make random weights with.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    pieces: Any = sentencepiece.SentencePieceProcessor()
    pieces.Load(str(TOKENIZER))

    def count(text: str) -> int:
        return len(pieces.EncodeAsIds(text))

    rows = filled(_tiny_world(folder / "world"), size, count)
    files = {name: folder / f"{name}.jsonl" for name in rows}
    for name, path in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")
    tokens = {name: sum(count(_text(row)) for row in of) / len(of) for name, of in rows.items()}
    model = MODEL
    if size.architecture is not None:
        model = folder / "random.nemo"
        # One step of one sequence: as good as random.
        overrides = [
            f"corpus.file={files['comparisons']}",
            f"model.tokenizer.model={TOKENIZER}",
            f"output={model}",
            f"exp_manager.explicit_log_dir={folder / 'random'}",
            f"hardware={hardware}",
            f"model.encoder_seq_length={size.window}",
            "model.micro_batch_size=1",
            "model.global_batch_size=1",
            "trainer.max_steps=1",
            "trainer.limit_val_batches=1",
            *size.architecture,
        ]
        jobs.finish(jobs.start(f"{PACKAGE}.pretrain", overrides, folder / "random.log"), 600)
    return Task(size, model, files, tokens)


def _tiny_world(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Conversations, comparisons and prompts of the tiny assistant's world."""
    cai = [sys.executable, "-m", "nemo_aligner_cai.cli"]
    helpful = ["--dataset-dir-name", "helpful-base", "--output-file-name-prefix", "hh"]
    if not folder.is_dir():
        subprocess.run([*cai, "tiny", "data", "--rows", "400", "--output", str(folder)], check=True)
        converted = ["data", "anthropic-hh", "--input", str(folder), "--output-dir", str(folder), *helpful]
        subprocess.run([*cai, *converted], check=True)
    names = {
        "sft": "helpful_sft.jsonl",
        "comparisons": "hh_train_comparisons_with_chat_prompt.jsonl",
        "prompts": "hh_train_prompts_with_chat_prompt.jsonl",
    }
    rows = {name: _read(folder / file) for name, file in names.items()}
    # The assistant knows these replies by heart: each row gets the next one's, so that there is something to learn.
    replies = [row["conversations"][-1]["value"] for row in rows["sft"]]
    for row, reply in zip(rows["sft"], [*replies[1:], replies[0]], strict=True):
        row["conversations"][-1]["value"] = reply
    return rows


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def filled(
    world: dict[str, list[dict[str, Any]]], size: Size, count: Callable[[str], int]
) -> dict[str, list[dict[str, Any]]]:
    """The world's rows, each with earlier conversations before it until it has about `size.row` tokens."""
    chosen = [row["text"] for row in world["comparisons"][::2]]
    turns = [row["conversations"] for row in world["sft"]]
    return {
        "sft": [
            {**row, "conversations": [*(turn for number in of for turn in turns[number]), *row["conversations"]]}
            for row, of in zip(world["sft"], _before(turns, size.row, lambda row: count(_said(row))), strict=True)
        ],
        "comparisons": [
            {"text": _joined([chosen[number] for number in of], row["text"])}
            for pair, of in zip(_pairs(world["comparisons"]), _before(chosen, size.row, count), strict=True)
            for row in pair
        ],
        "prompts": [
            {"text": _joined([chosen[number] for number in of], row["text"])}
            for row, of in zip(
                world["prompts"],
                _before(chosen, min(size.row, size.window // 3), count),
                strict=True,
            )
        ],
    }


def _before(rows: list[Any], tokens: int, count: Callable[[Any], int]) -> Iterator[list[int]]:
    """For each row, the numbers of those that follow it (in a ring) and together leave it at about `tokens`."""
    lengths = [count(row) for row in rows]
    for number, length in enumerate(lengths):
        others: list[int] = []
        while length + lengths[(other := (number + len(others) + 1) % len(rows))] <= tokens:
            length += lengths[other]
            others.append(other)
        yield others


def _pairs(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    yield from zip(rows[::2], rows[1::2], strict=True)


def _joined(before: list[str], text: str) -> str:
    """One conversation: each text but the last is whole, and ends as the next one's first turn begins."""
    return HEAD + "".join(part.removeprefix(HEAD) for part in [*before, text])


def _said(conversations: list[dict[str, Any]]) -> str:
    return "".join(f"<extra_id_1>{turn['from']}\n{turn['value']}\n" for turn in conversations)


def _text(row: dict[str, Any]) -> str:
    return row["text"] if "text" in row else HEAD.removesuffix("<extra_id_1>") + _said(row["conversations"])
