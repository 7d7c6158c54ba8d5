# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of prompt sets: formats, sides and counts, on the published files and on small ones of every shape."""

import json
import re
from pathlib import Path

import pytest

from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.replies.prompt_sets import read_prompt_set


@pytest.mark.parametrize(
    ("file", "format", "harmful", "benign"),
    [
        ("xstest/xstest_prompts.csv", "xstest", 200, 250),
        ("xstest_completions/xstest_v2_completions_gpt4.csv", "xstest-completions", 200, 250),
        ("harmbench/harmbench_behaviors_text_all.csv", "harmbench", 400, 0),
        ("strongreject/strongreject_dataset.csv", "strongreject", 313, 0),
    ],
)
def test_published_sets(shared_data: Path, file: str, format: str, harmful: int, benign: int) -> None:
    found = read_prompt_set("some", shared_data / file)
    facts = found.facts
    assert (facts.format, facts.harmful, facts.benign, facts.skipped) == (format, harmful, benign, {})
    assert facts.rows == harmful + benign == len(found.prompts)
    assert len({prompt.id for prompt in found.prompts}) == facts.rows


def test_harmbench_contexts_precede_the_behavior(shared_data: Path) -> None:
    found = read_prompt_set("some", shared_data / "harmbench/harmbench_behaviors_text_all.csv")
    contextual = [prompt for prompt in found.prompts if "\n\n---\n\n" in prompt.text]
    assert len(contextual) == 100
    assert {prompt.key for prompt in found.prompts} > {"dimethylmercury_instructions_home"}


HARMFUL = [
    '{"release_prompt_id": "a1", "prompt_text": "q1", "hazard": "vcr"}',
    json.dumps({"transcript": "\n\nHuman: q1\n\nAssistant: no", "min_harmlessness_score_transcript": -1.5}),
    '{"prompt": "q1", "side": "harmful", "category": "theft"}',
    '{"messages": [{"role": "user", "content": "q1"}], "kind": "theft", "verb": "rob", "harmful": true}',
]


@pytest.mark.parametrize("row", HARMFUL)
def test_rows_that_tell_their_side(tmp_path: Path, row: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(row + "\n")
    [prompt] = read_prompt_set("some", path).prompts
    assert (prompt.text, prompt.side) == ("q1", "harmful")


@pytest.mark.parametrize(
    "text",
    ["Goal,Behavior,Category\nq1,b1,c1\n", "prompt,category\nq1,deception\n", "prompt\nq1\n"],
)
def test_a_set_that_does_not_tell_its_side_needs_the_flag(tmp_path: Path, text: str) -> None:
    path = tmp_path / "set.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match="--side some=benign"):
        read_prompt_set("some", path)
    [prompt] = read_prompt_set("some", path, side="benign").prompts
    assert (prompt.text, prompt.side) == ("q1", "benign")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"prompt": "q1", "side": "Benign"}', "key 'side': is 'Benign'; it must be 'harmful' or 'benign'"),
        ('{"prompt": "q1", "side": ["benign"]}', "key 'side': is "),
        ('{"prompt": "q1", "type": "homonyms", "label": "ok"}', "key 'label': is 'ok'; it must be 'safe' or 'unsafe'"),
        ('{"messages": [{"role": "user", "content": "q1"}], "harmful": 1}', "key 'harmful': is '1'"),
    ],
)
def test_an_unknown_side_is_an_error_that_names_the_value(tmp_path: Path, row: str, problem: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(FormatError, match=re.escape(f"set.jsonl:1: {problem}")):
        read_prompt_set("some", path)
    assert read_prompt_set("some", path, side="benign").facts.benign == 1


@pytest.mark.parametrize("row", HARMFUL)
def test_a_flag_does_not_contradict_the_columns(tmp_path: Path, row: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(FormatError, match=r"set\.jsonl:1: --side some=benign: this row is harmful by its columns '"):
        read_prompt_set("some", path, side="benign")
    assert read_prompt_set("some", path, side="harmful").facts.harmful == 1


def test_a_prompt_on_both_sides_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("prompt,side\nq1,benign\nq1,harmful\n")
    with pytest.raises(FormatError, match=r"set\.csv:3: this prompt is harmful in one row and benign in another"):
        read_prompt_set("some", path)


def test_the_limit_is_for_each_side_and_duplicates_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    rows = [{"prompt": f"q{n // 2}", "side": "harmful" if n < 8 else "benign"} for n in range(16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = read_prompt_set("some", path, limit=3).facts
    assert (facts.rows, facts.harmful, facts.benign) == (16, 3, 3)
    assert facts.skipped == {"after the limit": 2, "duplicate prompt": 8}


def test_a_row_of_another_shape_and_an_empty_file_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "q1", "side": "harmful"}\n{"prompt": "q2"}\n')
    with pytest.raises(FormatError, match=r"set\.jsonl:2"):
        read_prompt_set("some", path)
    path.write_text("")
    with pytest.raises(UsageError, match="no usable prompt"):
        read_prompt_set("some", path)
