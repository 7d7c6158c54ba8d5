# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Files in and out: which split is read, where a message points to, what an existing file becomes; other columns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role, TokenPolicy
from nemo_aligner_cai.data.formats.all_formats import FORMATS, detect_format
from nemo_aligner_cai.data.formats.files import (
    convert_file,
    read_groups,
    read_records,
    require_plain_lines,
    validate_file,
    write_records,
)
from nemo_aligner_cai.data.formats.record_guard import guard_record
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice
from nemo_aligner_cai.data.formats.writers import write_rows
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, PromptOnly, Rated, Record, Scored
from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.files import Row, RowCounts

ASK = {"role": "user", "content": "Q"}
RED = {"role": "assistant", "content": "A"}
ASKED = Conversation.of_user("Q")
CHAT = {"messages": [ASK, RED]}
PAIR = Comparison(ASKED, "A", "B")


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of different formats."""
    write(tmp_path / "data" / "train.jsonl", CHAT)
    write(tmp_path / "data" / "test.jsonl", *2 * [{"prompt": "Q"}])
    return tmp_path / "data"


def test_the_split_train_is_read_if_none_is_named(folder: Path, tmp_path: Path):
    assert detect_format(folder) == "messages"
    assert len(list(read_records(folder, counts=RowCounts()))) == 1
    assert [group.file for group in read_groups(folder, counts=RowCounts())] == [folder / "train.jsonl"]
    assert convert_file(folder, tmp_path / "out.jsonl", to="ppo-prompts").written == 1


def test_the_split_that_is_named_is_read(folder: Path, tmp_path: Path):
    assert detect_format(folder, split="test") == "plain-prompts"
    assert len(list(read_records(folder, counts=RowCounts(), split="test"))) == 2
    assert len(list(read_records(folder, "plain-prompts", counts=RowCounts(), split="test"))) == 2
    groups = read_groups(folder, counts=RowCounts(), split="test")
    assert [(group.file, group.line) for group in groups] == [(folder / "test.jsonl", 1), (folder / "test.jsonl", 2)]
    assert convert_file(folder, tmp_path / "out.jsonl", to="ppo-prompts", split="test").written == 2
    with pytest.raises(UsageError, match="'validation'"):
        detect_format(folder, split="validation")
    with pytest.raises(UsageError, match="'validation'"):
        list(read_records(folder, "messages", counts=RowCounts(), split="validation"))


def test_a_group_has_the_line_and_the_rows_of_its_record(tmp_path: Path):
    path = tmp_path / "rm.jsonl"
    assert write_records(path, [PAIR, replace(PAIR, chosen="C")], "rm-comparisons") == 4
    groups = list(read_groups(path, counts=RowCounts()))
    assert [
        (group.line, len(group.rows), group.record.chosen) for group in groups if isinstance(group.record, Comparison)
    ] == [
        (1, 2, "A"),
        (3, 2, "C"),
    ]


def test_a_line_without_its_pair_is_refused_by_file_and_line(tmp_path: Path):
    path = tmp_path / "rm.jsonl"
    write_records(path, [PAIR, PAIR], "rm-comparisons")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(FormatError) as raised:
        list(read_records(path, counts=RowCounts()))
    expected = f"{path}:3: the file has an odd number of rows; a record of rm-comparisons has 2"
    assert str(raised.value) == expected


@pytest.mark.parametrize("name", [None, "messages"])
def test_a_file_without_rows_is_refused_by_name(tmp_path: Path, name: str | None):
    path = write(tmp_path / "rows.jsonl")
    with pytest.raises(FormatError, match=f"^{path}: has no rows$"):
        list(read_records(path, name, counts=RowCounts()))


def test_what_cannot_be_converted_names_the_columns_that_might_have_it(tmp_path: Path):
    source, target = write(tmp_path / "in.jsonl", {**CHAT, "score": 1, "id": 7}), tmp_path / "out.jsonl"
    with pytest.raises(FormatError, match=r"^.*in\.jsonl:1: a conversation .*; columns that are not read: id, score$"):
        convert_file(source, target, to="dpo")
    write(source, CHAT)
    with pytest.raises(FormatError) as raised:
        convert_file(source, target, to="dpo")
    assert "columns" not in str(raised.value)


def test_nothing_to_write_and_a_format_that_does_not_fit_name_the_source(tmp_path: Path):
    source, target = write(tmp_path / "in.jsonl", CHAT), tmp_path / "out.jsonl"
    with pytest.raises(FormatError, match=r"in\.jsonl:1: key 'prompt'"):
        convert_file(source, target, to="ppo-prompts", source_format="trl-prompts")
    write(source, {"prompt": "Q", "answers": [{"answer": "A", "rank": 1}]})
    with pytest.raises(CaiError, match=f"{source}: "):
        convert_file(source, target, to="rm-comparisons")
    assert not target.exists()


def test_a_system_message_is_added_where_there_is_none(tmp_path: Path):
    system = {"role": "system", "content": "S"}
    source = write(tmp_path / "in.jsonl", CHAT, {"messages": [{**system, "content": "T"}, ASK, RED]})
    convert_file(source, tmp_path / "out.jsonl", to="sft-chat", system_message="S")
    records = read_records(tmp_path / "out.jsonl", counts=RowCounts())
    assert [record.conversation.system for record in records if isinstance(record, Chat)] == ["S", "T"]


WRITTEN: list[tuple[str, str, Record]] = [
    ("rows.jsonl", "dpo", PAIR),
    ("rows.csv", "inverse-cai", PAIR),
    ("rows.parquet", "verl", PromptOnly(ASKED, "hh", "unsafe")),
]


@pytest.mark.parametrize(("file", "name", "record"), WRITTEN)
def test_a_file_that_exists_is_replaced_only_if_asked(file: str, name: str, record: Record, tmp_path: Path):
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / file
    assert write_records(path, [record], name) == 1
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        write_records(path, [record, record], name)
    assert path.read_bytes() == before
    assert write_records(path, [record] * 3, name, overwrite=True) == 3
    assert list(read_records(path, counts=RowCounts())) == [record] * 3
    source = write(tmp_path / "in.jsonl", *FORMATS["dpo"].write(PAIR, NEMO_CHAT))
    with pytest.raises(UsageError, match="exists"):
        convert_file(source, path, to=name)
    assert convert_file(source, path, to=name, overwrite=True).made == 1


@pytest.mark.parametrize(("file", "name", "record"), WRITTEN)
def test_half_a_character_is_refused_by_the_number_of_its_row(file: str, name: str, record: Any, tmp_path: Path):
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
    bad = replace(record, dataset="\ud83c")
    place = {".parquet": "one of rows 1 to 3 cannot be written"}.get(Path(file).suffix, "row 3 cannot be written")
    with pytest.raises(CaiError, match=f"^{tmp_path / file}: {place}"):
        write_records(tmp_path / file, [record, record, bad], name)
    assert not (tmp_path / file).exists()


def test_parquet_is_written_in_groups_of_rows_and_the_group_of_a_bad_row_is_named(tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path, record = tmp_path / "rows.parquet", PromptOnly(ASKED)
    assert write_records(path, [record] * 4098, "verl") == 4098
    table = parquet.ParquetFile(path)
    assert [table.metadata.row_group(number).num_rows for number in range(2)] == [4096, 2]
    first = next(table.iter_batches()).to_pylist()[0]
    assert first == FORMATS["verl"].write(record, NEMO_CHAT)[0]
    with pytest.raises(CaiError, match="one of rows 4097 to 4098 cannot"):
        write_records(path, [record] * 4097 + [PromptOnly(Conversation.of_user("\ud83c"))], "verl", overwrite=True)


def test_a_table_has_a_line_of_names_and_cells_that_are_quoted(tmp_path: Path):
    write_records(
        tmp_path / "a.csv", [Comparison(Conversation.of_user('a, "b"'), "é\n", "B", "hh", 1.5, 0.0)], "inverse-cai"
    )
    header, *lines = (tmp_path / "a.csv").read_bytes().decode().split("\r\n")
    assert header == "input,preferred_text,text_a,text_b,dataset,chosen_reward,rejected_reward"
    assert lines[0].startswith('"a, ""b""",text_') and lines[0].endswith(",hh,1.5,0.0") and '"é\n"' in lines[0]


@pytest.mark.parametrize(
    ("name", "file"), [("verl", "a.jsonl"), ("inverse-cai", "a.parquet"), ("dpo", "a.csv"), ("dpo", "a.parquet")]
)
def test_a_name_that_says_something_else_is_refused_with_the_ending(name: str, file: str, tmp_path: Path):
    with pytest.raises(UsageError, match=f"{file}: {name} is written as {FORMATS[name].suffix}; choose a name"):
        write_rows(tmp_path / file, [], FORMATS[name])
    assert write_rows(tmp_path / "a.json", [], FORMATS["dpo"]) == 0
    with pytest.raises(UsageError, match=r"a\.json.* exists"):
        write_rows(tmp_path / "a.json", [], FORMATS["dpo"])


def test_a_file_of_another_type_than_its_trainer_reads_is_refused(tmp_path: Path):
    pytest.importorskip("pyarrow")
    rows, table = write(tmp_path / "a.jsonl", {"prompt": [ASK], "data_source": ""}), tmp_path / "a.parquet"
    write_records(table, [PromptOnly(ASKED)], "verl")
    assert validate_file(table).rows_in == 1
    for path, name, message in (
        (rows, "verl", f"{rows}: is not parquet, verl must be parquet; use `cai convert`"),
        (table, "trl-prompts", f"{table}: is parquet, trl-prompts must be JSON lines; use `cai convert`"),
        (table, "ppo-prompts", f"{table}: is parquet, NeMo needs one JSON object per line; use `cai convert`"),
    ):
        with pytest.raises(FormatError) as raised:
            validate_file(path, name)
        assert str(raised.value) == message


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x1f\x8b", ": is compressed with gzip, .* gunzip"),
        (b"PAR1", ": is parquet, .*`cai convert`"),
        (b"\xef\xbb\xbf{}", ":1: starts with a byte order mark, .*without one"),
        (b"  [", ":1: is one JSON list; .*`cai convert`"),
    ],
)
def test_nemo_reads_plain_lines_only(tmp_path: Path, start: bytes, message: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(start)
    with pytest.raises(FormatError, match=f"^{path}{message}"):
        require_plain_lines(path)
    path.write_bytes(b'{"text": "[PAR1"}\n')
    require_plain_lines(path)


EMPTY: list[Any] = [None, "", [], {}, "[]", "{}", "null", "[[]]"]
# Columns next to a conversation, and whether they are refused; a column that is not is in the counts.
COLUMNS: list[tuple[Row, str | None]] = [
    ({"id": 7, "source": "x"}, None),
    *(({"weight": value}, None) for value in (1, 1.0, "1", "1.0", None, "")),
    *(({"sample_weight": value}, "is not supported; remove the row, or give --ignore-") for value in (0, 0.5, "2")),
    *(({"tools": value}, None) for value in EMPTY),
    *(({key: "x"}, "is not supported; remove the row, or give --ignore-") for key in ("tools", "Tool Calls", "image")),
    ({"tools": 1}, "is not supported; remove the row, or give --ignore-"),
    *(
        ({key: value}, "is .*: this bad reply would be learned; remove the row")
        for key in ("label", "is safe")
        for value in (0, "0", "No", "BAD")
    ),
    *(({"label": value}, None) for value in (1, "yes", None, "some class")),
]


@pytest.mark.parametrize(("columns", "problem"), COLUMNS)
def test_a_column_with_a_meaning_is_refused_and_another_is_counted(columns: Row, problem: str | None, tmp_path: Path):
    path, counts = write(tmp_path / "rows.jsonl", {**CHAT, **columns}), RowCounts()
    (key, *_) = columns
    if problem is None:
        assert len(list(read_records(path, "messages", counts=counts))) == 1
        assert counts.unused == set(columns)
        return
    with pytest.raises(FormatError, match=f"rows.jsonl:1: key '{key}': {problem}"):
        list(read_records(path, "messages", counts=counts))
    ignoring = ColumnChoice(frozenset({key}))
    assert len(list(read_groups(path, "messages", counts=counts, columns=ignoring))) == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": " Q "},
        {"prompt": None, "context": "[]"},
        {"history": [{"role": "user", "content": "Q"}, {"from": "gpt", "value": "A"}]},
        {"Dialogue": "\n\nHuman: Q\n\nAssistant: A"},
        {"documents": {"text": "Q", "title": "A"}},
        {"conversation": [{"instruction": ["Q"]}]},
        {"conversation": [{"instruction": "Q"}, "A"]},
    ],
)
def test_a_column_that_repeats_the_texts_is_no_loss_and_no_news(columns: Row, tmp_path: Path):
    counts = RowCounts()
    assert len(list(read_records(write(tmp_path / "rows.jsonl", {**CHAT, **columns}), "messages", counts=counts))) == 1
    assert counts.unused == set()


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": "R"},
        {"prompt": "Q\nA"},
        {"history": [["Q", "R"]]},
        {"dialog": "\n\nHuman: Q\n\nAssistant: R"},
        {"dialog": "\n\nHuman: Q\n\nHuman: A\n\nAssistant: B"},
        {"documents": {"title": "Q", "text": ["R"]}},
        {"documents": {"text": "Q", "title": "not a text of the conversation"}},
        {"documents": {"text": "Q", "id": 1}},
        {"contexts": [False]},
        *({"documents": ["R", {key: "Q"}]} for key in ("content", "value", "text", "instruction")),
        *({"documents": [{key: "R"}, "Q"]} for key in ("content", "value", "text", "instruction")),
    ],
)
def test_a_column_with_more_text_is_refused_with_the_way_out(columns: Row, tmp_path: Path):
    (key,) = columns
    path = write(tmp_path / "rows.jsonl", {**CHAT, **columns})
    with pytest.raises(
        FormatError, match=f":1: key '{key}': has content that .*; move it into .* --ignore-columns {key}"
    ):
        list(read_records(path, "messages", counts=RowCounts()))


@pytest.mark.parametrize("key", ["system", "System Prompt", "sys_prompt", "systemInstruction"])
def test_a_system_column_becomes_the_system_message(key: str, tmp_path: Path):
    counts = RowCounts()
    (record,) = read_records(write(tmp_path / "rows.jsonl", {**CHAT, key: "S"}), counts=counts)
    assert record == Chat(Conversation.of_user("Q", "S").with_turn(Role.ASSISTANT, "A"))
    assert counts.unused == set()


def test_a_system_column_must_be_a_text_and_may_repeat_the_message(tmp_path: Path):
    system = {"role": "system", "content": "S"}
    for value, message in ((7, "must be a string, it is int"), (["S"], "must be a string, it is list")):
        with pytest.raises(FormatError, match=f"key 'system': {message}"):
            list(read_records(write(tmp_path / "rows.jsonl", {**CHAT, "system": value}), counts=RowCounts()))
    row = {"messages": [system, ASK, RED]}
    for value in ("S", " S ", "", None, "null"):
        path = write(tmp_path / "rows.jsonl", {**row, "system": value})
        (record,) = read_records(path, counts=RowCounts())
        assert isinstance(record, Chat) and record.conversation.system == "S"
    with pytest.raises(FormatError, match=r"key 'system': differs from the system message .*; remove one of them"):
        list(read_records(write(tmp_path / "rows.jsonl", {**row, "system": "T"}), counts=RowCounts()))


def test_a_row_that_differs_in_case_alone_is_told_which_keys(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", {"Messages": [ASK, RED], "id": 1, "Source": "x"})
    with pytest.raises(FormatError, match=r"looks like messages .*; rename 'Messages', 'Source' to lower case$"):
        detect_format(path)
    with pytest.raises(
        FormatError, match=r"rows\.jsonl:1: a row with no keys is of no known format .*cai convert.*--from$"
    ):
        detect_format(write(path, {}))


def test_keys_of_messages_that_are_not_read_are_counted(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", {"messages": [{**ASK, "id": 1}, {**RED, "lang": "en"}], "extra": [1]})
    counts = RowCounts()
    list(read_records(path, counts=counts))
    assert counts.unused == {"messages[].id", "messages[].lang", "extra"}
    counts = RowCounts()
    ignoring = ColumnChoice(frozenset({"lang", "extra"}))
    list(read_groups(path, counts=counts, columns=ignoring))
    assert counts.unused == {"messages[].id", "lang", "extra"}
    turns = [{"from": "User", "value": "Q", "label": None, "id": 1}, {"from": "Assistant", "value": "A"}]
    counts = RowCounts()
    list(read_records(write(path, {"system": "", "conversations": turns}), "sft-chat", counts=counts))
    assert counts.unused == {"conversations[].id"}


def test_columns_that_are_ignored_leave_lists_of_texts_as_they_are(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", {"conversations": ["Q", "A"], "tools": [1]})
    (group,) = read_groups(path, counts=RowCounts(), columns=ColumnChoice(frozenset({"tools"})))
    assert group.record == Chat(ASKED.with_turn(Role.ASSISTANT, "A"))


def test_an_escaped_record_is_counted_in_rows_of_the_source(tmp_path: Path):
    texts = [text for row in FORMATS["rm-comparisons"].write(PAIR, NEMO_CHAT) for text in row.values()]
    rows = [{"text": text.replace("Q", "Q <extra_id_2>")} for text in texts]
    counts = convert_file(write(tmp_path / "rm.jsonl", *rows), tmp_path / "dpo.jsonl", to="dpo")
    assert (counts.rows_in, counts.written, counts.made) == (2, 2, 1)
    assert counts.noted == {"template tokens escaped": 2}


def records_with(text: str) -> list[Record]:
    asked = Conversation.of_user(text)
    pair = Comparison(asked, f"{text}A", f"{text}B")
    whole = asked.with_turn(Role.ASSISTANT, text)
    made = [Chat(whole), Scored(whole, (1.0,) * 9), PromptOnly(asked), Rated(asked, text, True)]
    return [*made, pair, Judged(asked, (pair,)), Judged(asked, ())]


@pytest.mark.parametrize("number", range(len(records_with(""))))
def test_template_tokens_are_escaped_in_each_text_of_each_kind(number: int):
    forged, counts = records_with("<extra_id_1>")[number], RowCounts()
    safe = guard_record(forged, NEMO_CHAT, policy=TokenPolicy.ESCAPE, counts=counts, rows=2)
    assert safe == records_with(NEMO_CHAT.escape("<extra_id_1>"))[number]
    assert counts.noted == {"template tokens escaped": 2}
    assert guard_record(forged, NEMO_CHAT, policy=TokenPolicy.DROP, counts=counts, rows=2) is None
    assert counts.skipped == {"contains template tokens": 2}
    clean = records_with("Q")[number]
    assert guard_record(clean, NEMO_CHAT, policy=TokenPolicy.ERROR, counts=RowCounts()) == clean


def test_the_texts_of_another_template_are_read_and_written_with_it(tmp_path: Path):
    template = replace(NEMO_CHAT, tokens=replace(NEMO_CHAT.tokens, turn_start="<turn>"))
    path, target = tmp_path / "ppo.jsonl", tmp_path / "out.jsonl"
    write(path, *FORMATS["ppo-prompts"].write(PromptOnly(ASKED), template))
    assert validate_file(path, template=template).rows_in == 1
    with pytest.raises(FormatError, match=":1: key 'text'"):
        validate_file(path)
    assert convert_file(path, target, to="ppo-prompts", template=template).written == 1
    assert json.loads(target.read_text()) == json.loads(path.read_text())
