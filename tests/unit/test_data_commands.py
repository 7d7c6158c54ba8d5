# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import json
import shlex
from collections import Counter
from pathlib import Path

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.commands.common import shared_flags
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.data import convert, inspect_data, validate
from nemo_aligner_cai.data.blend import blend_files
from nemo_aligner_cai.data.formats.files import read_records, sft_row, write_records
from nemo_aligner_cai.data.records import Scored
from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.files import Row, RowCounts, write_jsonl
from tests.unit.nemo_rows import comparison_rows

COMMANDS = {"validate": validate, "convert": convert, "inspect": inspect_data}


def call(command: str, *args: object) -> int:
    parser = Parser()
    COMMANDS[command].add_arguments(parser)
    return COMMANDS[command].run(parser.parse_args([str(arg) for arg in args]))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [
        row
        for question in ("Q", "Q", "R\x1b[31m")
        for row in comparison_rows(Conversation.of_user(question), chosen="A" * 50, rejected="B", dataset="hh")
    ]
    write_jsonl(path, rows)
    return path


def test_validate_names_format_and_rows(pairs: Path, capsys: pytest.CaptureFixture[str]):
    assert call("validate", pairs) == 0
    assert capsys.readouterr().out == f"{pairs}: rm-comparisons, 6 rows, all of them valid\n"


def test_files_that_are_not_json_lines_are_not_blended(tmp_path: Path):
    for name, text in (("a.csv", "prompt\nQ\n"), ("b.txt", "How?\nWhy?\n")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(FormatError, match=f"{path}:1: is not a JSON object, NeMo needs one per line; use"):
            blend_files([path, path], tmp_path / "out.jsonl", seed=1)


def test_validate_names_the_columns_that_its_format_does_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prompts = tmp_path / "prompts.jsonl"
    write_jsonl(prompts, [{"prompt": "Q", "chosen": 7}])
    assert call("validate", prompts) == 0
    assert "plain-prompts, 1 rows, all of them valid; unused columns: chosen\n" in capsys.readouterr().out


def test_validate_names_the_line_and_the_mend_goes_on_to_the_next_file_and_exits_1(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
):
    shifted, empty = tmp_path / "shifted.jsonl", tmp_path / "empty.jsonl"
    shifted.write_bytes(b"".join(pairs.read_bytes().splitlines(keepends=True)[1:]))
    empty.write_bytes(b"")
    assert call("validate", shifted, empty, pairs) == 1
    shown = capsys.readouterr()
    assert f"cai: {shifted}:4: key 'text': " in shown.err
    assert f"cai: {empty}: " in shown.err
    assert shown.out == f"{pairs}: rm-comparisons, 6 rows, all of them valid\n"


SFT = json.dumps(sft_row(Conversation.of_user("Q").with_turn(Role.ASSISTANT, "A")))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "prompt,n\nHow?,1\n,2\n", ["a.csv:3: ", "is CSV", "rows are plain-prompts", "--drop-refused"]),
        ("a.csv", "n,body\n1,How do I?\n", ["a.csv:2: ", "columns 'n', 'body'", "--prompt-column body"]),
        ("a.json", f"[{SFT}]", ["a.json:1: ", "one JSON list", "rows are sft-chat", "a.jsonl --to sft-chat"]),
        ("a.jsonl", f"{SFT}\n{{oops\n{SFT}\n", ["a.jsonl:2: not JSON", "without line 2: sed 2d ", "a_valid.jsonl"]),
        ("a.jsonl", "[1, 2]", ["first row cannot be read"]),
        ("a.jsonl", SFT.replace('"mask"', '"mask": "x", "mask"'), ["a.jsonl:1: ", "'mask'", "twice", "sed 1d"]),
        ("a.json", '[{"prompt": "a", "prompt": "b"}]', ["a.json:1: ", "'prompt'", "twice"]),
        ("a.csv", "id;prompt\n1;How?\n", ["a.csv:1: ", "';'", "with commas"]),
        ("a.csv", "id\tprompt\n1\tHow?\n", ["a.csv:1: ", "with commas"]),
        ("a.csv", "How do I pick a lock?\nWhy?\n", ["a.csv:1: ", "names", "'prompt'"]),
    ],
)
def test_validate_names_what_a_file_is_and_the_command_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, said: list[str]
):
    path = tmp_path / name
    path.write_text(content)
    assert call("validate", path) == 1
    shown = capsys.readouterr().err
    assert [one for one in said if one not in shown] == []


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_validate_names_the_encoding_and_its_conversion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, line: int
):
    path = tmp_path / name
    rows = {"jsonl": '{"prompt": "%s?"}\n', "csv": "%s,n\n", "txt": "%s?\n"}[path.suffix[1:]]
    texts = ["prompt", "Où"] if line == 2 else ["Où", "prompt"]
    path.write_text("".join(rows % text for text in texts), encoding="latin1")
    assert call("validate", path) == 1
    shown = capsys.readouterr().err
    assert "is not UTF-8 text" in shown and "sed" not in shown and "--drop-refused" not in shown
    assert f"iconv -f latin1 -t utf-8 {path} > {path.with_name(f'a_valid{path.suffix}')}" in shown
    assert name == "a.csv" or f"{path}:{line}: " in shown


def test_the_command_that_validate_names_makes_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "my prompts.csv"
    path.write_text("id,question\n1,How do I pick a lock?\n2,\n")
    assert call("validate", path) == 1
    command = shlex.split(capsys.readouterr().err.partition("cannot be used: ")[2])
    assert command[:2] == ["cai", "convert"]
    assert call("convert", *command[2:]) == 0
    assert call("validate", command[3]) == 0


def test_what_cannot_be_checked_at_all_is_a_usage_error(pairs: Path):
    for args, message in (
        (["--seq-length", 10], "--tokenizer and --seq-length"),
        (["--response-length", 5], "--response-length needs --tokenizer"),
        (["--as", "sft"], "unknown format 'sft'"),
        ([pairs.with_name("nowhere")], "cannot be read"),
    ):
        with pytest.raises(UsageError, match=message) as raised:
            call("validate", pairs, *args)
        assert raised.value.exit_code == 2 and not isinstance(raised.value, FormatError)


def test_validate_predicts_what_the_trainer_will_use(
    pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    class Letters:
        def encode(self, texts: list[str]) -> list[list[int]]:
            return [[0] * len(text) for text in texts]

    monkeypatch.setattr(shared_flags, "load_tokenizer", lambda path: Letters())
    assert call("validate", pairs, "--tokenizer", "x", "--seq-length", 1000) == 0
    assert "3 of 3 records are used" in capsys.readouterr().out
    assert call("validate", pairs, "--tokenizer", "x", "--seq-length", 125) == 1
    captured = capsys.readouterr()
    assert "2 of 3 records are used: 1 are longer than 125 tokens, the first is record 3" in captured.out
    assert "cai convert --tokenizer --seq-length" in captured.err


def test_convert_says_where_the_rows_went(tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]):
    target = tmp_path / "out.jsonl"
    assert call("convert", pairs, target, "--to", "messages") == 0
    assert capsys.readouterr().out == f"{target}: messages; 6 rows in = 6 written + 0 skipped; 3 rows out\n"
    assert json.loads(target.read_text().splitlines()[0])["messages"][0] == {"role": "user", "content": "Q"}
    with pytest.raises(UsageError, match="already exists"):
        call("convert", pairs, target, "--to", "messages")


def test_convert_leaves_out_what_is_too_long(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    class Letters:
        def encode(self, texts: list[str]) -> list[list[int]]:
            return [[0] * len(text) for text in texts]

    monkeypatch.setattr(shared_flags, "load_tokenizer", lambda path: Letters())
    target = tmp_path / "new" / "short.jsonl"
    asked = ("convert", pairs, target, "--to", "rm-comparisons", "--tokenizer", "x", "--seq-length")
    assert call(*asked, 125) == 0
    assert capsys.readouterr().out == (
        f"{target}: rm-comparisons; 6 rows in = 6 written + 0 skipped; of these records: "
        "3 rows in = 2 written + 1 skipped (1 longer than 125 tokens)\n"
    )
    assert target.read_bytes() == b"".join(pairs.read_bytes().splitlines(keepends=True)[:4])
    with pytest.raises(UsageError, match="already exists"):
        call(*asked, 125)
    with pytest.raises(CaiError, match="0 of 3 records") as raised:
        call(*asked, 20, "--overwrite")
    assert raised.value.exit_code == 1
    assert [path.name for path in target.parent.iterdir()] == ["short.jsonl"], "what was there is there, and no more"
    assert target.stat().st_size > 0
    with pytest.raises(UsageError, match="--tokenizer and --seq-length"):
        call(*asked[:-1])
    with pytest.raises(UsageError, match=r"^\S*short\.csv: ?rm-comparisons .*\.jsonl"):
        call("convert", pairs, tmp_path / "short.csv", *asked[3:], 9)
    with pytest.raises(UsageError, match=", not for "):
        call("convert", pairs, tmp_path / "m.jsonl", "--to", "messages", "--tokenizer", "x", "--seq-length", 9)


def test_inspect_shows_figures_and_rows(pairs: Path, capsys: pytest.CaptureFixture[str]):
    assert call("inspect", pairs, "--rows", 3) == 0
    out = capsys.readouterr().out
    assert "rm-comparisons" in out
    for name, value in (("records", "3"), ("different prompts", "2"), ("repeated records", "1"), ("origins", "hh: 3")):
        assert any(line.split(name, 1)[1].strip() == value for line in out.splitlines() if name in line), name
    assert "record 3 (rejected)" in out
    assert "<extra_id_1>User⏎" in out
    # What a row says to a terminal is shown, not sent.
    assert "\x1b" not in out and "R\\x1b[31m" in out


def test_inspect_colors_the_trained_text():
    conversation = Conversation.of_user("Q").with_turn(Role.ASSISTANT, "A")
    text = inspect_data.colored(conversation, inspect_data.NEMO_CHAT)
    learnt = [text.plain[span.start : span.end] for span in text.spans if span.style == "green"]
    assert "".join(learnt) == "A⏎\n<extra_id_1>"


def test_inspect_shows_lengths_labels_and_what_a_row_says_to_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "xs.csv"
    path.write_text("prompt,label\nhow?,safe\n[red]how\x1b[31m??,unsafe\nwhy?,safe\n", "utf-8")
    assert call("inspect", path, "--rows", 3) == 0
    out = capsys.readouterr().out
    assert "plain-prompts" in out and "safe: 2, unsafe: 1" in out
    assert "[red]how\\x1b[31m??" in out and "\x1b" not in out
    length = len(inspect_data.NEMO_CHAT.generation_prompt(Conversation.of_user("how?")))
    assert f"half up to {length}, 95 % up to {length + 11}, all up to {length + 11}" in out
    with pytest.raises(UsageError, match="--rows: must be a whole number, 0 or more"):
        call("inspect", path, "--rows", -1)


def test_inspect_shows_what_a_judge_left_of_its_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    prompt = [{"role": "user", "content": "Q"}]
    pair = {"chosen": "good", "rejected": "bad", "chosen_key": "a", "rejected_key": "b", "probability": None}
    path = tmp_path / "cai_comparisons.jsonl"
    row = {"id": "1", "prompt": prompt, "candidates": [{"key": key, "text": ""} for key in "ab"], "verdicts": []}
    write_jsonl(path, [{**row, "pairs": pairs} for pairs in ([], [pair])])
    assert call("inspect", path) == 0
    assert "record 2 (rejected)" in capsys.readouterr().out


def test_percentiles_are_lengths_that_so_many_do_not_exceed():
    lengths = Counter({10: 50, 20: 45, 30: 5})
    assert [inspect_data.percentile(lengths, share) for share in (50, 51, 95, 96, 100)] == [10, 20, 20, 30, 30]


def test_histogram_counts_every_record():
    rows = inspect_data.histogram(Counter({3: 2, 10: 1, 100: 4}))
    assert sum(count for _, count in rows) == 7
    assert rows[0] == ("3-12", 3) and rows[-1] == ("93-102", 4)
    assert inspect_data.histogram(Counter({5: 2})) == [("5-5", 2)]


def test_inspect_reads_sft_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "sft.jsonl"
    write_jsonl(path, [sft_row(Conversation.of_user("Q", system="S").with_turn(Role.ASSISTANT, "A"))])
    assert call("inspect", path) == 0
    assert "<extra_id_0>System⏎\nS⏎" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["s3://cai/in", "gs://cai/in"])
@pytest.mark.parametrize(
    "words",
    [
        ["validate", "URL"],
        ["inspect", "URL"],
        ["convert", "URL", "out.jsonl", "--to", "messages"],
        ["convert", "IN", "URL", "--to", "messages"],
        ["data", "blend", "--files", "URL", "--output", "out.jsonl"],
        ["data", "blend", "--files", "IN", "--output", "URL"],
        ["data", "anthropic-hh", "--input", "URL", "--output-dir", "out"],
        ["data", "anthropic-hh", "--input", "HH", "--output-dir", "URL", "--dataset-dir-name", "helpful-base"],
    ],
)
def test_commands_that_use_no_object_store_say_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    write_jsonl(tmp_path / "in.jsonl", [{"messages": chat}])
    hh = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}
    for split in ("train", "test"):
        write_jsonl(tmp_path / "hh" / "helpful-base" / f"{split}.jsonl.gz", [hh])
    names = {"URL": url, "IN": "in.jsonl", "HH": "hh"}
    assert cli.main([names.get(word, word) for word in words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and url[:4] in said[0] and ("--upload" in said[0] or "copy the file" in said[0])
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "hh"}


EMPTY, QUESTION = {"role": "assistant", "content": " \n"}, {"role": "user", "content": "Q"}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": [QUESTION, EMPTY]}, "a reply"),
        ({"messages": [QUESTION, EMPTY, QUESTION, {"role": "assistant", "content": "A"}]}, "a reply"),
        ({"instruction": "Q", "input": "", "output": " "}, "a reply"),
        ({"prompt": "Q", "chosen": "", "rejected": "A"}, "a reply"),
        ({"prompt": [QUESTION], "completion": [EMPTY], "label": True}, "a reply"),
        ({"prompt": "Q", "answers": [{"answer": "", "rank": 1}, {"answer": "A", "rank": 2}]}, "a reply"),
        ({"prompt": "", "chosen": "A", "rejected": "B"}, "a user turn"),
    ],
)
def test_an_empty_reply_is_not_taught(tmp_path: Path, row: Row, what: str):
    source = tmp_path / "a.jsonl"
    write_jsonl(source, [row])
    with pytest.raises(FormatError, match=rf"a\.jsonl:1: {what} is empty"):
        list(read_records(source, counts=RowCounts()))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": ""},
        {"prompt": [QUESTION], "completion": [EMPTY], "label": False},
        {"prompt": "Q", "answers": [{"answer": "A", "rank": 1}, {"answer": "", "rank": 2}]},
    ],
)
def test_an_empty_reply_may_be_rejected(tmp_path: Path, row: Row):
    source = tmp_path / "a.jsonl"
    write_jsonl(source, [row])
    assert len(list(read_records(source, counts=RowCounts()))) == 1


def test_an_empty_reply_may_have_scores(tmp_path: Path):
    source = tmp_path / "a.jsonl"
    scored = Scored(Conversation.of_user("Q").with_turn(Role.ASSISTANT, ""), (0.0, *[-100.0] * 8))
    write_records(source, [scored], "rm-regression")
    assert list(read_records(source, counts=RowCounts())) == [scored]
