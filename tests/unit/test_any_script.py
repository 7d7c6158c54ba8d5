# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Text in every script goes unchanged from HH through every stage of the data half, or is refused by name."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nemo_aligner_cai.commands.data.anthropic_hh import main as process_hh
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.files import convert_file, read_records, validate_file
from nemo_aligner_cai.data.length import filter_file
from nemo_aligner_cai.data.length_report import UseReport
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.data.split import parse_splits, split_file
from nemo_aligner_cai.errors import CaiError, FormatError
from nemo_aligner_cai.files import RowCounts, read_jsonl, write_jsonl

TEXTS = [
    "Système « à » \u017f",
    "中文\uff0c你好",
    "👩\u200d🚀 🇨🇭",
    "e\u0301 ≠ é",
    "\u202eright to left\u202c",
    "a\u2028b\x85c\x0bd\x00e",
]


class Letters:
    """One token a letter."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]


def said(path: Path) -> set[tuple[str, str, str, str | None]]:
    return {
        (record.prompt.messages[-1].content, record.chosen, record.rejected, record.dataset)
        for record in read_records(path, counts=RowCounts())
        if isinstance(record, Comparison)
    }


def test_every_stage_keeps_every_character(tmp_path: Path):
    def transcript(asked: str, reply: str) -> str:
        return f"\n\nHuman: {asked}\n\nAssistant: {reply}"

    origin = "Système 中"
    rows = [
        {"chosen": transcript(text, f"{text}+"), "rejected": transcript(text, f"{text}-"), "dataset": origin}
        for text in TEXTS
    ]
    hh, rm = tmp_path / "hé.jsonl", tmp_path / "中.jsonl"
    write_jsonl(hh, rows)
    assert convert_file(hh, rm, to="rm-comparisons").written == len(TEXTS)
    blend_files([rm], tmp_path / "1.jsonl", seed=1)
    filter_file(
        tmp_path / "1.jsonl",
        tmp_path / "2.jsonl",
        "rm-comparisons",
        kind=UseReport,
        tokenizer=Letters(),
        seq_length=999,
    )
    targets = {name: tmp_path / f"{name}.jsonl" for name in ("train", "test")}
    splits = parse_splits({"train": 0.5, "test": 0.5})
    split_file(tmp_path / "2.jsonl", targets, splits, seed=1, format_name="rm-comparisons", counts=RowCounts())
    expected = {(text, f"{text}+", f"{text}-", origin) for text in TEXTS}
    assert said(targets["train"]) | said(targets["test"]) == expected
    for name, one in FORMATS.items():
        if one.kind is Comparison and not one.read_only and name != "inverse-cai":  # CSV has no NUL
            path = tmp_path / f"as-{name}.jsonl"
            convert_file(rm, path, to=name)
            assert said(path) == expected
            assert validate_file(path, name).rows_in == len(TEXTS) * one.group


def test_flags_in_every_script_are_kept_and_halves_of_characters_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hh = tmp_path / "train.jsonl"
    write_jsonl(hh, [{"chosen": "\n\nHuman: 问\n\nAssistant: 答", "rejected": "\n\nHuman: 问\n\nAssistant: 🙅"}])
    flags = ["--input", str(hh), "--output-dir", str(tmp_path / "où"), "--output-file-name-prefix", "中文"]
    flags += ["--system_format", r"Système {MESSAGE}\n", "--user_format", "用户 {MESSAGE} 🎈", "--eos_token", "结束"]
    assert process_hh(flags) == 0
    path = tmp_path / "où" / "中文_train_comparisons_with_chat_prompt.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
    assert texts == ["Système \n用户 问 🎈答\n结束", "Système \n用户 问 🎈🙅\n结束"]
    for flag in ("--system_format", "--output-file-name-prefix"):
        assert process_hh([*flags, "--overwrite", flag, "{MESSAGE}\udcff"]) == 2
        error = capsys.readouterr().err
        assert flag in error and error.count("\n") == 1


def test_half_a_character_in_data_is_refused_by_line(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "ok"}\n{"prompt": "\\ud83c"}\n')
    with pytest.raises(FormatError, match=r"a.jsonl:2: not JSON"):
        list(read_records(path, counts=RowCounts()))
    with pytest.raises(CaiError, match="row 1 cannot be written as JSON"):
        write_jsonl(tmp_path / "b.jsonl", [{"prompt": "\ud83c"}])


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii:strict"}]
)
def test_no_locale_is_needed(locale: dict[str, str], tmp_path: Path, repo_root: Path):
    names = [tmp_path / "Système 中 🎈.jsonl", Path(os.fsdecode(bytes(tmp_path) + b"/bad\xff.jsonl"))]
    for path in names:
        write_jsonl(path, [{"prompt": text} for text in TEXTS])
        for command in (
            ["validate", path],
            ["inspect", path],
            ["convert", path, f"{path}.out", "--to", "trl-prompts"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "nemo_aligner_cai.cli", *map(os.fspath, command)],
                cwd=repo_root,
                env={"PATH": os.environ["PATH"], **locale},
                capture_output=True,
            )
            assert done.returncode == 0, done.stderr
            assert b"plain-prompts" in done.stdout or b"trl-prompts" in done.stdout
    converted = [row["prompt"][0]["content"] for _, row in read_jsonl(f"{names[0]}.out")]
    assert converted == TEXTS
