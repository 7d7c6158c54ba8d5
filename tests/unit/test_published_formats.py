# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Rows in the shapes that people use: each is read with its meaning whole, or refused by file, line and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.commands.data import anthropic_hh
from nemo_aligner_cai.data.formats.all_formats import FORMATS, detect_format
from nemo_aligner_cai.data.formats.files import convert_file, read_records, validate_file
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import RowCounts

HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Red?\n\nAssistant:"
ASK = {"role": "user", "content": "Q"}
RED, DOG = ({"role": "assistant", "content": text} for text in "AB")
GPT = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
TOOL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def converted(source: Path, to: str, **options: Any) -> list[dict[str, Any]]:
    target = source.with_name(f"{to}.out.jsonl")
    convert_file(source, target, to=to, overwrite=True, **options)
    return [json.loads(line) for line in target.read_text().splitlines()]


def said(messages: list[dict[str, str]]) -> str:
    return " | ".join(f"{one['role'][0]}: {one['content']}" for one in messages)


CHATS = [
    ("alpaca", {"instruction": "Translate.", "input": "chat", "output": "cat"}, "u: Translate.\n\nchat | a: cat"),
    ("alpaca", {"instruction": "Q", "input": "", "output": "A", "system": "S"}, "s: S | u: Q | a: A"),
    ("alpaca", {"instruction": "Q", "output": "A", "history": [["Hi", "Hello"]]}, "u: Hi | a: Hello | u: Q | a: A"),
    ("alpaca", {"instruction": "Q", "context": "C", "response": "A", "category": "x"}, "u: Q\n\nC | a: A"),
    ("alpaca", {"instruction": "Q", "input": "", "output": "A", "text": "### Instruction: Q"}, "u: Q | a: A"),
    ("question-answer", {"system_prompt": "S", "question": "Q", "response": "A"}, "s: S | u: Q | a: A"),
    ("question-answer", {"prompt": "Q", "completion": "A"}, "u: Q | a: A"),
    ("trl-prompt-completion", {"prompt": [ASK], "completion": [RED]}, "u: Q | a: A"),
    ("input-output", {"system": "S", "input": "Q", "output": "A"}, "s: S | u: Q | a: A"),
    ("messages", {"system": "S", "messages": [ASK, RED]}, "s: S | u: Q | a: A"),
    ("messages", {"System Prompt": "S", "messages": [ASK, RED]}, "s: S | u: Q | a: A"),
    ("messages", {"messages": [{"role": "developer", "content": "S"}, ASK, RED]}, "s: S | u: Q | a: A"),
    ("messages", {"messages": [ASK, {**RED, "weight": 1}]}, "u: Q | a: A"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, RED]}, "u: Q | a: A"),
    ("sharegpt", {"conversations": GPT}, "u: Q | a: A"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "Hi"}, *GPT]}, "a: Hi | u: Q | a: A"),
    ("sharegpt", {"conversations": [{"from": "system", "value": "S"}, *GPT]}, "s: S | u: Q | a: A"),
    ("sharegpt", {"conversations": [{"from": "user", "value": "Q"}, {"from": "bing", "value": "A"}]}, "u: Q | a: A"),
    ("sharegpt", {"conversation": [ASK, RED], "model": "m"}, "u: Q | a: A"),
    ("sharegpt", {"conversations": ["Q", "A"], "source": "lima"}, "u: Q | a: A"),
    ("sharegpt", {"id": "0", "data": ["Q", "A", "R", "B"]}, "u: Q | a: A | u: R | a: B"),
    ("sharegpt", {"id": "0", "items": GPT}, "u: Q | a: A"),
    ("sharegpt", {"conversation": [{"input": "Q", "output": "A"}]}, "u: Q | a: A"),
    ("sharegpt", {"conversation": [{"human": "Q", "assistant": "A"}]}, "u: Q | a: A"),
    ("sharegpt", {"conversations": [{**GPT[0], "weight": 0.0}, {**GPT[1], "weight": 1.0}]}, "u: Q | a: A"),
    ("alpaca", {"instruction": "Q", "input": "<noinput>", "output": "A"}, "u: Q | a: A"),
    ("alpaca", {"instruction": "", "input": "Q", "output": "A"}, "u: Q | a: A"),
    ("question-answer", {"input": "Q", "response": "A"}, "u: Q | a: A"),
]


@pytest.mark.parametrize(("format_name", "row", "expected"), CHATS)
def test_a6_d13_conversations_keep_all_that_they_say(
    tmp_path: Path, format_name: str, row: dict[str, Any], expected: str
):
    source = write(tmp_path, row)
    assert detect_format(source) == format_name
    (out,) = converted(source, "messages")
    assert said(out["messages"]) == expected
    (sft,) = converted(source, "sft-chat")
    assert ("s: " in expected) == bool(sft["system"])
    (prompt,) = read_prompts(source, counts=RowCounts(), turns="all")
    assert said(prompt.conversation.to_messages()) == expected.rpartition(" | ")[0]


PAIRS = [
    (
        "preference-texts",
        {"prompt": HH, "chosen": " Yes", "rejected": " No"},
        "u: Hi | a: Hello | u: Red?",
        "Yes",
        "No",
    ),
    (
        "preference-texts",
        {"prompt": "Human: Q\n\nAssistant:", "response": " A", "chosen": " A", "rejected": " B"},
        *("u: Q", "A", "B"),
    ),
    ("preference-texts", {"system": "S", "question": "Q", "chosen": "A", "rejected": "B"}, "s: S | u: Q", "A", "B"),
    ("preference-texts", {"instruction": "Q", "chosen_response": "A", "rejected_response": "B"}, "u: Q", "A", "B"),
    ("preference-texts", {"instruction": "Q", "input": "I", "chosen": "A", "rejected": "B"}, "u: Q\n\nI", "A", "B"),
    ("preference-texts", {"prompt": "Q", "chosen": [RED], "rejected": [DOG]}, "u: Q", "A", "B"),
    (
        "nemo-rl-binary-preference",
        {"system": "S", "prompt": "Q", "chosen": "A", "rejected": "B"},
        "s: S | u: Q",
        "A",
        "B",
    ),
    (
        "trl-preference-implicit",
        {"prompt": "Q", "messages": [ASK, RED], "chosen": [ASK, RED], "rejected": [ASK, DOG]},
        *("u: Q", "A", "B"),
    ),
    (
        "sharegpt-preference",
        {"conversations": GPT[:1], "chosen": {"from": "gpt", "value": "A"}, "rejected": {"from": "gpt", "value": "B"}},
        *("u: Q", "A", "B"),
    ),
    ("sharegpt-preference", {"messages": [ASK], "chosen": RED, "rejected": DOG}, "u: Q", "A", "B"),
    ("preference-texts", {"system": "S", "input": "Q", "chosen": "A", "rejected": "B"}, "s: S | u: Q", "A", "B"),
    (
        "trl-preference-implicit",
        {"conversation": [{"input": "Q", "output": "C"}], "chosen": [ASK, RED], "rejected": [ASK, DOG]},
        *("u: Q", "A", "B"),
    ),
    ("shp", {"history": "Q", "human_ref_A": "A", "human_ref_B": "B", "labels": 1}, "u: Q", "A", "B"),
    ("shp", {"history": "Q", "human_ref_A": "B", "human_ref_B": "A", "labels": 0}, "u: Q", "A", "B"),
    (
        "pku-saferlhf",
        {"prompt": "Q", "response_0": "B", "response_1": "A", "safer_response_id": 1, "better_response_id": 1},
        *("u: Q", "A", "B"),
    ),
    (
        "ranked-answers",
        {"prompt": HH, "answers": [{"answer": "B", "rank": 2.0}, {"answer": "A", "rank": 1.0}]},
        *("u: Hi | a: Hello | u: Red?", "A", "B"),
    ),
    (
        "ranked-answers",
        {
            "instruction": "Q",
            "completions": [{"response": "A", "overall_score": 8.0}, {"response": "B", "overall_score": 1.0}],
        },
        *("u: Q", "A", "B"),
    ),
]


@pytest.mark.parametrize(("format_name", "row", "prompt", "chosen", "rejected"), PAIRS)
def test_a7_preferences_keep_prompt_order_and_system(
    tmp_path: Path, format_name: str, row: dict[str, Any], prompt: str, chosen: str, rejected: str
):
    source = write(tmp_path, row)
    assert detect_format(source) == format_name
    (out,) = converted(source, "trl-preference")
    assert said(out["prompt"]) == prompt
    assert (out["chosen"][0]["content"], out["rejected"][0]["content"]) == (chosen, rejected)
    (asked,) = read_prompts(source, counts=RowCounts(), turns="all")
    assert said(asked.conversation.to_messages()) == prompt


PROMPTS = [
    ({"Behavior": "Q", "ContextString": None, "BehaviorID": "x"}, "u: Q"),
    ({"Behavior": "Q", "ContextString": "C"}, "u: C\n\n---\n\nQ"),
    ({"goal": "Q", "target": "Sure"}, "u: Q"),
    ({"forbidden_prompt": "Q"}, "u: Q"),
    ({"id": 1, "question": "Q"}, "u: Q"),
    ({"user_input": "Q", "model_output": "A"}, "u: Q"),
    ({"instruction": "Q", "input": "I"}, "u: Q\n\nI"),
    ({"Prompt": "Q"}, "u: Q"),
    ({"prompt": {"text": "Q", "toxicity": 0.1}, "continuation": {"text": "x"}}, "u: Q"),
    ({"prompt": "Q", "system": "S"}, "s: S | u: Q"),
    ({"prompt": "\r\n\r\nHuman: Q\r\n\r\nAssistant:"}, "u: Q"),
]


@pytest.mark.parametrize(("row", "expected"), PROMPTS)
def test_d13_prompt_files_of_known_names_are_read_by_the_scripts_and_by_convert(
    tmp_path: Path, row: dict[str, Any], expected: str
):
    source = write(tmp_path, row)
    (prompt,) = read_prompts(source, counts=RowCounts())
    assert said(prompt.conversation.to_messages()) == expected
    (out,) = converted(source, "trl-prompts")
    assert said(out["prompt"]) == expected


REFUSED = [
    ({"messages": [ASK, {**RED, "weight": 0}, ASK, RED]}, "messages", "weight"),
    ({"messages": [ASK, {**RED, "train": False}]}, "messages", "train"),
    ({"messages": [ASK, TOOL, {"role": "tool", "content": "x", "tool_call_id": "1"}, RED]}, "messages", "tool_calls"),
    ({"messages": [{**ASK, "name": "Ann"}, RED]}, "messages", "name"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, RED]}, "messages", "image_url"),
    ({"messages": [{"role": ["a"], "content": "Q"}]}, "messages", "list"),
    ({"conversations": [*GPT, {"from": "observation", "value": "x"}]}, "conversations", "observation"),
    ({"messages": [ASK, RED], "tools": [{"type": "function"}]}, "tools", "--ignore-columns tools"),
    ({"messages": [ASK, RED], "history": [["Hi", "Hello"]]}, "history", "--ignore-columns history"),
    ({"messages": [ASK, RED], "weight": 0}, "weight", "--ignore-columns"),
    ({"messages": [ASK, RED], "label": "Rejected"}, "label", "remove the row"),
    ({"prompt": "Q", "response": "A", "response_harm_label": "harmful"}, "response_harm_label", "remove the row"),
    ({"messages": [ASK, {**RED, "train_detail": []}]}, "messages", "train_detail"),
    ({"messages": [ASK, RED], "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", "--ignore-columns"),
    ({"input": "Q", "chosen": "A", "rejected": "B", "chosen_score": 9}, "chosen_score", "--ignore-columns"),
    ({"trajectory": [], "chosen": "A", "rejected": "B"}, "trajectory", "--from"),
    ({"input": "Q", "output": "A", "Instruction": "Translate."}, "Instruction", "--ignore-columns"),
    ({"question": "Q", "context": "C", "answer": "A"}, "context", "--ignore-columns"),
    ({"question": "Q", "context": {"title": ["T"], "lines": [["C"]]}, "answer": "A"}, "context", "--ignore-columns"),
    ({"question": "Q", "documents": [{"passage": "C"}], "answer": "A"}, "documents", "--ignore-columns"),
    ({"question": "Q", "passage": 42, "answer": "A 42"}, "passage", "--ignore-columns"),
    (
        {"question": "Q", "dialogue": [{"role": "user", "content": "C"}], "chosen": "A", "rejected": "B"},
        "dialogue",
        "drop",
    ),
    (
        {"prompt": "Q", "chosen": "A", "rejected": "B", "conversation": [{"input": "C", "output": "D"}]},
        *["conversation"] * 2,
    ),
    ({"prompt": "Q", "chosen": "A", "rejected": "B", "messages": [{**ASK, "tool_calls": [1]}]}, *["messages"] * 2),
    ({"system": "S", "messages": [{"role": "system", "content": "T"}, ASK, RED]}, "system", "remove one"),
    ({"message_id": "a", "parent_id": None, "text": "Q", "role": "prompter"}, "parent_id", "messages"),
    ({"message_tree_id": "a", "prompt": {"text": "Q", "role": "prompter", "replies": []}}, "prompt", "messages"),
    ({"prompt": "Q", "goal": "G", "chosen": "A", "rejected": "A"}, "rejected", "remove the pair"),
    ({"Prompt": "Q", "Chosen": "A", "Rejected": "B"}, "Prompt", "lower case"),
]


@pytest.mark.parametrize(("row", "key", "words"), REFUSED)
def test_a6_what_cannot_be_carried_is_refused_by_line_key_and_fix(
    tmp_path: Path, row: dict[str, Any], key: str, words: str
):
    source = write(tmp_path, row)
    with pytest.raises(FormatError) as raised:
        convert_file(source, tmp_path / "out.jsonl", to="messages")
    message = str(raised.value)
    assert message.startswith(f"{source}:1: ") and f"'{key}'" in message and words in message and "\n" not in message
    assert not (tmp_path / "out.jsonl").exists()


def test_a6_ignored_columns_and_dropped_rows_are_chosen_and_counted(tmp_path: Path):
    source = write(tmp_path, {"messages": [ASK, RED], "tools": ["t"], "id": 1}, {"messages": [ASK, TOOL], "tools": []})
    ignoring = ColumnChoice(frozenset({"tools"}))
    with pytest.raises(FormatError, match=r"rows\.jsonl:2: .*tool_calls"):
        converted(source, "messages", columns=ignoring)
    counts = convert_file(source, tmp_path / "o.jsonl", to="messages", columns=ignoring, drop_refused=True)
    assert (counts.rows_in, counts.written, counts.skipped.total()) == (2, 1, 1)
    assert counts.unused == {"tools", "id"} and "id, tools" in str(counts)


def test_a6_a_system_column_is_no_part_of_what_trainers_read(tmp_path: Path):
    source = write(tmp_path, {"system": "S", "messages": [ASK, RED]})
    with pytest.raises(FormatError, match=r":1: key 'system'.*cai convert"):
        validate_file(source)


@pytest.mark.parametrize("key", ["conversations", "messages"])
def test_a6_conversations_with_a_verdict_are_replies_that_are_good_or_bad(tmp_path: Path, key: str):
    source = write(tmp_path, *({key: [ASK, RED], "kto_tag": tag} for tag in (True, False)))
    assert [row["preference"] for row in converted(source, "kto")] == ["chosen", "rejected"]
    with pytest.raises(FormatError, match=r":1: .*kto"):
        converted(source, "sft-chat")


def test_a7_nothing_written_is_an_error_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source, target = write(tmp_path, {"chosen": HH, "rejected": HH}), tmp_path / "out.jsonl"
    assert cli.main(["convert", str(source), str(target), "--to", "dpo"]) == 1
    assert "1 rows in = 0 written" in capsys.readouterr().err
    assert not target.exists()


def test_d9_rows_in_and_rows_out_are_both_said(tmp_path: Path):
    answers = [{"answer": text, "rank": rank} for rank, text in enumerate("ABC")]
    source = write(tmp_path, *({"prompt": f"Q{number}", "answers": answers} for number in range(2)))
    counts = convert_file(source, tmp_path / "rm.jsonl", to="rm-comparisons")
    assert (counts.rows_in, counts.written, counts.made) == (2, 2, 12) and "; 12 rows out" in str(counts)
    best = converted(source, "messages")
    assert [said(row["messages"]) for row in best] == ["u: Q0 | a: A", "u: Q1 | a: A"]
    counts = RowCounts()
    list(read_prompts(source, counts=counts, limit=1))
    assert "not read, the limit is 1" in str(counts)


def test_d13_a_prompt_column_is_named(tmp_path: Path):
    source = write(tmp_path, {"words": "Q", "context": "C", "system": "S"}, {"words": None})
    with pytest.raises(FormatError, match=r":1: .*--prompt-column"):
        list(read_prompts(source, counts=RowCounts()))
    counts = RowCounts()
    (prompt,) = read_prompts(source, counts=counts, column="words")
    assert said(prompt.conversation.to_messages()) == "s: S | u: Q"
    assert counts.skipped == {"empty prompt": 1} and counts.unused == {"context"}
    with pytest.raises(FormatError, match=":1: key 'word'"):
        list(read_prompts(source, counts=RowCounts(), column="word"))


@pytest.mark.parametrize("depth", [150, 900])
def test_b6_a_row_nested_deep_is_one_line(tmp_path: Path, depth: int):
    deep = "[" * depth + "]" * depth
    source = tmp_path / "deep.jsonl"
    for row in (f'{{"messages": [{{"role": {deep}, "content": "x"}}]}}', f'{{"text": "a", "label": [{deep}]}}'):
        source.write_text(row + "\n")
        with pytest.raises(FormatError, match=r"deep\.jsonl:1: "):
            list(read_prompts(source, counts=RowCounts()))
        with pytest.raises(FormatError, match=r"deep\.jsonl:1: "):
            converted(source, "messages")


def test_every_file_of_the_shared_folder_is_read_or_refused_in_one_line(shared_data: Path, tmp_path: Path):
    folder = shared_data.parent / "faults"
    if not folder.is_dir():
        pytest.skip("needs the shared folder of small input files")
    files = [file for file in folder.iterdir() if file.suffix in (".jsonl", ".csv")]
    refused = {"oai_weight.jsonl", "oasst_flat.jsonl", "oasst_tree.jsonl", "toolcalls.jsonl"}
    for file in files:
        counts = RowCounts()
        try:
            records = list(read_records(file, counts=counts))
        except FormatError as error:
            assert file.name in refused and str(error).startswith(f"{file}:") and "\n" not in str(error)
        else:
            assert (
                file.name not in refused
                and records
                and counts.rows_in == counts.written + sum(counts.skipped.values())
            )


def test_read_only_formats_are_marked():
    for name, format in FORMATS.items():
        assert format.read_only == ("(read only)" in format.description), name


def test_a7_hhs_copies_with_bare_replies_are_processed_as_hh(tmp_path: Path):
    source = write(tmp_path, {"prompt": HH, "chosen": " A", "rejected": " B"})
    out = tmp_path / "hh"
    assert anthropic_hh.main(["--input", str(source), "--output-dir", str(out), "--output-file-name-prefix", "x"]) == 0
    (comparisons,) = out.glob("*_comparisons_*.jsonl")
    assert [json.loads(line) for line in comparisons.read_text().splitlines()] == converted(source, "rm-comparisons")


PLUGIN = """
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.other_trainers import Messages
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.chat import Conversation, Role


class Letters(Format):
    name, description, kind = "letters", "letters and replies", Chat

    def matches(self, row):
        return "letter" in row

    def read(self, rows, template):
        return Chat(Conversation.of_user(rows[0]["letter"]).with_turn(Role.ASSISTANT, rows[0]["answered"]))

    def write(self, record, template):
        return ({"letter": record.conversation.messages[0].content, "answered": "A"},)
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a format that works, one that cannot be imported, and one with a name that is taken."""
    info = tmp_path / "cai_letters-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cai-letters\nVersion: 0.1\n")
    points = ("letters = letters_of_test:Letters", "broken = letters_broken:X", "messages = letters_of_test:Letters")
    (info / "entry_points.txt").write_text("[nemo_aligner_cai.formats]\n" + "\n".join(points) + "\n")
    (tmp_path / "letters_of_test.py").write_text(PLUGIN)
    (tmp_path / "letters_broken.py").write_text("raise ValueError('half installed')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_d12_a_plug_ins_format_is_detected_listed_and_read(plugins: Path, capsys: pytest.CaptureFixture[str]):
    source = write(plugins, {"letter": "Q", "answered": "A"})
    assert detect_format(source) == "letters"
    assert said(converted(source, "messages")[0]["messages"]) == "u: Q | a: A"
    (prompt,) = read_prompts(source, counts=RowCounts())
    assert said(prompt.conversation.to_messages()) == "u: Q"
    with pytest.raises(SystemExit):
        cli.main(["convert", "--help"])
    assert "letters and replies" in capsys.readouterr().out


def test_d12_an_error_in_a_plug_in_names_it_and_its_line(plugins: Path):
    source = write(plugins, {"letter": "Q", "answered": "A"}, {"letter": "Q"})
    with pytest.raises(FormatError, match=r"rows\.jsonl:2: .*'letters' of cai-letters 0\.1 .*KeyError: 'answered'"):
        converted(source, "messages")


def test_d12_a_broken_plug_in_hides_no_other(plugins: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["components", "formats"]) == 1
    shown = capsys.readouterr()
    assert all(name in shown.out for name in ("letters", "broken", "messages", "dpo"))
    assert "cai-letters 0.1" in shown.err and "half installed" in shown.err
    with pytest.raises(FormatError, match=r"'b' .*half installed"):
        detect_format(write(plugins, {"b": 1}))
    with pytest.raises(UsageError, match="half installed"):
        converted(write(plugins, {"letter": "Q", "answered": "A"}), "broken")
