# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Saved completions of every known shape, and those of an evaluation given back to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.replies.prompt_sets import EvalPrompt, read_prompt_set
from nemo_aligner_cai.evaluation.replies.saved_completions import read_saved_completions
from nemo_aligner_cai.evaluation.results import SavedFacts, read_evaluation
from nemo_aligner_cai.files import read_jsonl

ALPACA = [
    {"instruction": "q1", "output": "r1", "generator": "g"},
    {"instruction": " q2 ", "output": "", "generator": "g"},
]
HARMBENCH = {"b1": [{"test_case": "x q1", "generation": "r1"}, {"test_case": "y q1", "generation": "r1b"}], "b2": []}


def prompts(folder: Path) -> tuple[EvalPrompt, ...]:
    path = folder / "set.jsonl"
    rows = [{"prompt": f"q{n}", "id": f"b{n}", "side": "harmful"} for n in (1, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_prompt_set("s", path).prompts


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("alpaca.json", ALPACA, [["r1"], [""]]),
        ("xstest.csv", "id,prompt,completion,final_label\n1,q1,r1,x\n2,q2,,x\n", [["r1"], [""]]),
        ("harmbench.json", HARMBENCH, [["r1", "r1b"], []]),
        ("own.jsonl", '{"messages": [{"role": "user", "content": "q1"}], "reply": "r1"}\n', [["r1"], []]),
    ],
)
def test_every_shape(tmp_path: Path, name: str, content: Any, texts: list[list[str]]) -> None:
    saved = read_saved_completions(written(tmp_path / name, content), model="m")
    assert [[one.text for one in saved.of(prompt)] for prompt in prompts(tmp_path)] == texts


def test_a_file_of_several_models_needs_one_of_their_names(tmp_path: Path) -> None:
    rows = [{"instruction": "q1", "output": f"r of {name}", "generator": name} for name in ("g", "h")]
    path = written(tmp_path / "two.json", rows)
    with pytest.raises(UsageError, match="g, h"):
        read_saved_completions(path, model="m")
    [saved] = read_saved_completions(path, model="h").of(prompts(tmp_path)[0])
    assert saved.text == "r of h"


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}], "reply": "r"}\n{"text": "x"}\n', ":2"),
        ("a.jsonl", '{"prompt": "q", "completion": 3}\n', "completion"),
        ("a.json", {"b1": {"generation": "x"}}, "b1"),
        ("a.json", {"b1": [{"generation": 3}]}, "generation"),
    ],
)
def test_other_shapes_are_errors(tmp_path: Path, name: str, content: Any, where: str) -> None:
    with pytest.raises(FormatError, match=where):
        read_saved_completions(written(tmp_path / name, content), model="m")


def test_replies_that_failed_count_as_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = prompts(tmp_path)
    rows = [
        {"messages": one.conversation.to_messages(), "reply": text}
        for one, text in zip(asked, ("r", None), strict=True)
    ]
    saved = written(tmp_path / "own.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--set", f"s={tmp_path / 'set.jsonl'}", "--grader", "xstest-strings", "--model", f"m={saved}"]
    flags += ["--output", str(tmp_path / "out")]
    assert cli.main(["evaluate", *flags]) == 2
    assert f"{saved}: 1 of 2 replies are missing, since their calls failed" in capsys.readouterr().err
    assert cli.main(["evaluate", *flags, "--max-dropped", "0.5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["m", "2", "1", "0", "0"] in lines, "replies, failed, empty, cut"


@pytest.mark.parametrize(
    "null",
    [
        '{"messages": [{"role": "user", "content": "q1"}], "reply": null}',
        '{"prompt": "q1", "completion": null}',
        '{"instruction": "q1", "output": null}',
    ],
)
def test_null_is_a_failed_call_and_an_empty_text_an_empty_reply(tmp_path: Path, null: str) -> None:
    empty = null.replace("null", '""').replace("q1", "q2")
    saved = read_saved_completions(written(tmp_path / "rows.jsonl", f"{null}\n{empty}\n"), model="m")
    assert [[vars(one) for one in saved.of(prompt)] for prompt in prompts(tmp_path)] == [
        [{"text": "", "finish_reason": "failed"}],
        [{"text": "", "finish_reason": "stop"}],
    ]


def test_completions_that_are_not_used_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = prompts(tmp_path)
    rows = [{"instruction": one.text, "output": "r", "generator": "m"} for one in asked]
    rows += [{"instruction": f"other {n}", "output": "r", "generator": "m"} for n in range(3)]
    rows += [{"instruction": "q1", "output": "r", "generator": "n"}, {"instruction": "q1", "output": "r"}]
    saved = written(tmp_path / "two.json", rows)
    flags = ["--set", f"s={tmp_path / 'set.jsonl'}", "--grader", "xstest-strings", "--model", f"m={saved}"]
    assert cli.main(["evaluate", *flags, "--output", str(tmp_path / "out")]) == 0
    assert ["m", "2", "3", "2"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    [model] = read_evaluation(tmp_path / "out").models
    assert model.completions == 2 and model.saved == SavedFacts(used=2, other_prompts=3, other_models=2)


def test_own_completions_given_back_give_the_same_grades(tmp_path: Path) -> None:
    prompts(tmp_path)
    saved = written(tmp_path / "alpaca.json", ALPACA)
    flags = ["--set", f"s={tmp_path / 'set.jsonl'}", "--grader", "xstest-strings"]
    assert cli.main(["evaluate", *flags, "--model", f"m={saved}", "--output", str(tmp_path / "one")]) == 0
    again = f"m={tmp_path / 'one/completions.jsonl'}"
    assert cli.main(["evaluate", *flags, "--model", again, "--output", str(tmp_path / "two")]) == 0
    one, two = ([row for _, row in read_jsonl(tmp_path / name / "grades.jsonl")] for name in ("one", "two"))
    assert one == two and len(one) == 2
