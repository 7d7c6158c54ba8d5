# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The first step of a run: all its files have the run's system message."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")
pytest.importorskip("sentencepiece", reason="the tokenizer's package is not installed")

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import NEMO_CHAT, Conversation
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.pipeline.layout import HELPFUL_PREFERENCES, HELPFUL_SFT, RL_PROMPTS, SL_PROMPTS
from nemo_aligner_cai.pipeline.sections.data import Data
from nemo_aligner_cai.pipeline.steps.data import _write_data_files

_PAIR = {"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"}
_OTHER = {
    name: [{"role": role, "content": text}]
    for name, role, text in (
        ("prompt", "user", "Q"),
        ("chosen", "assistant", "good"),
        ("rejected", "assistant", "bad"),
    )
}


def sources(folder: Path) -> dict[str, Any]:
    """Red-team prompts and helpful conversations, and pairs as HH and in another format."""
    write_jsonl(folder / "red.jsonl", [{"prompt": f"steal lamp {number}"} for number in range(4)])
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    write_jsonl(folder / "help.jsonl", [{"messages": turns}])
    for split in ("train", "test"):
        for name, row in (("hh/helpful-base", _PAIR), ("other", _OTHER)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            with gzip.open(folder / name / f"{split}.jsonl.gz", "wt") as file:
                file.write(json.dumps(row) + "\n")
    return {"path": str(folder / "red.jsonl"), "turns": "first"}


@pytest.mark.parametrize(
    ("system", "written"), [("You are Bob.", "You are Bob."), ("", ""), ("a <extra_id_1>", "a < extra_id_1>")]
)
@pytest.mark.parametrize("pairs", ["hh", "other"])
def test_every_file_of_a_run_has_the_same_system_turn(tmp_path: Path, pairs: str, system: str, written: str) -> None:
    red_team = sources(tmp_path) | {"system_message": system}
    preferences = {"path": str(tmp_path / "hh"), "subsets": ["helpful-base"]}
    if pairs == "other":
        preferences = {"path": str(tmp_path / "other"), "format": "trl-preference"}
    data = Data.model_validate(
        {
            "red_team": red_team,
            "helpful_sft": str(tmp_path / "help.jsonl"),
            "helpful_preferences": preferences,
            "max_prompt_tokens": 100,
            "sl_share": 0.5,
        }
    )
    folder = tmp_path / "out"
    folder.mkdir()
    _write_data_files(data, folder, tokenizer=load_tokenizer(packaged_files.TOKENIZER), seed=1)
    found: dict[str, set[str]] = {}
    for path in (folder / name for name in (SL_PROMPTS, RL_PROMPTS, HELPFUL_SFT, *HELPFUL_PREFERENCES)):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found[path.name] = {_system(row) for row in rows}
    assert len(found) == 7
    assert set(map(frozenset, found.values())) == {frozenset({written})}, found


def _system(row: dict[str, Any]) -> str:
    if "messages" in row:
        return Conversation.from_messages(row["messages"]).system
    return row["system"] if "system" in row else NEMO_CHAT.parse(row["text"]).system
