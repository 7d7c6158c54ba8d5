# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rows come from files of every kind, from folders in the hub's layout and from the hub, and name what is wrong."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.commands.data.anthropic_hh import main as process_hh
from nemo_aligner_cai.data.formats.all_formats import detect_format
from nemo_aligner_cai.data.formats.files import convert_file, read_records
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.data.records import PromptOnly, Scored, prompt_of
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import Row, RowCounts, write_jsonl
from nemo_aligner_cai.files.sources import HubData, data_files, read_rows

PAIR = {"chosen": "\n\nHuman: Où?\n\nAssistant: 中", "rejected": "\n\nHuman: Où?\n\nAssistant: 🎈"}
ROWS = [{"prompt": "Système?", "label": "safe"}, {"prompt": '中文,\n"b"', "label": None}]


def rows_of(path: Path) -> list[Row]:
    return [row for file in data_files(path) for _, row in read_rows(file)]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def parquet(path: Path, rows: list[Row], **options: Any) -> Path:
    arrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_table(arrow.Table.from_pylist(rows), str(path), **options)
    return path


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = 'prompt,label\r\nSystème?,safe\r\n"中文,\n""b""",\r\n'.encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl.gz", LINES),
        ("a.json", LINES),
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json.gz", json.dumps(ROWS).encode()),
        ("a.csv", CSV),
        ("a.csv", b"\xef\xbb\xbf" + CSV),
        ("a.csv.gz", CSV),
    ],
)
def test_the_same_rows_come_from_files_of_every_kind(tmp_path: Path, name: str, content: bytes):
    assert rows_of(write(tmp_path / name, content)) == ROWS


def test_parquet_is_read_row_group_by_row_group_and_known_by_its_content(tmp_path: Path):
    rows = [{"prompt": f"{number}", "label": None, "n": number} for number in range(3000)]
    assert rows_of(parquet(tmp_path / "table.bin", rows, row_group_size=700)) == rows


def test_lists_of_texts_are_prompts(tmp_path: Path):
    expected = [{"prompt": "one"}, {"prompt": "zwei 中"}]
    assert rows_of(write(tmp_path / "a.json", '["one", "zwei 中"]'.encode())) == expected
    assert rows_of(write(tmp_path / "a.txt", "one\n\nzwei 中\r\n".encode())) == expected
    assert rows_of(write(tmp_path / "a.txt.gz", "one\nzwei 中".encode())) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"a,b\n1,2,3\n", ":2: "),
        ("a.csv", b"a,a\n1,2\n", ":1: "),
        ("a.csv", b'a,b\n1,2\n"3,4', ":.*not CSV"),
        ("a.csv", b"a,b\n1,\xff\n", "not UTF-8"),
        ("a.txt", b"one\n\xff\n", ":2: is not UTF-8"),
        ("a.json", b"[1]", ":1: .* int"),
        ("a.json", b'["a"', ":1: not JSON"),
        ("a.parquet", b"PAR2 and so on", ": .*not parquet"),
        ("a.parquet", b"PAR1 and so on", ":1: .*damaged"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, name: str, content: bytes, message: str):
    if message.endswith("damaged"):
        pytest.importorskip("pyarrow")
    path = write(tmp_path / name, content)
    with pytest.raises(FormatError, match=message) as raised:
        rows_of(path)
    assert str(raised.value).startswith(f"{path}:") and "\n" not in str(raised.value)


def test_the_tail_of_a_truncated_file_is_missed(tmp_path: Path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(CSV * 1000)[:-9])
    with pytest.raises(FormatError, match=r"gzip.* damaged"):
        rows_of(path)
    whole = parquet(tmp_path / "b.parquet", ROWS)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(FormatError, match="damaged"):
        rows_of(whole)


def test_a_folder_gives_the_files_of_a_split(tmp_path: Path):
    for name in ("a/train.jsonl.gz", "a/test.jsonl.gz", "b/train.csv", "red/red_team_attempts.jsonl.gz"):
        write(tmp_path / name, CSV if "csv" in name else LINES)
    parquet(tmp_path / "c" / "train-00000-of-00001.parquet", ROWS)
    names = [str(Path(str(file)).relative_to(tmp_path)) for file in data_files(tmp_path, "train")]
    assert names == ["a/train.jsonl.gz", "b/train.csv", "c/train-00000-of-00001.parquet"]
    assert len(data_files(tmp_path, "test")) == 1
    with pytest.raises(UsageError, match=r"red/red_team_attempts\.jsonl\.gz"):
        data_files(tmp_path)
    # Without splits in the names, all of them.
    assert rows_of(tmp_path / "red") == ROWS
    (tmp_path / "red" / "red_team_attempts.jsonl.gz").unlink()
    assert rows_of(tmp_path) == 3 * ROWS
    with pytest.raises(UsageError, match="'validation' in it, but of test, train;"):
        data_files(tmp_path, "validation")
    write(tmp_path / "a" / "train.jsonl", LINES)
    with pytest.raises(UsageError, match=r"train\.jsonl and train\.jsonl\.gz"):
        data_files(tmp_path)


def test_splits_with_longer_names_are_not_mixed(tmp_path: Path):
    names = ("train_sft-0-of-1.parquet", "test_sft-0-of-1.parquet", "train_prefs-0-of-1.parquet")
    for name in names:
        parquet(tmp_path / "data" / name, ROWS)
    assert [Path(str(file)).name for file in data_files(tmp_path, "train_sft")] == [names[0]]
    with pytest.raises(UsageError, match=r"splits, test_sft, train_prefs, train_sft; give one of the files itself"):
        data_files(tmp_path)
    (tmp_path / "data" / names[1]).unlink()
    for split in ("train", "test"):
        with pytest.raises(UsageError, match=f"'{split}' in it, but of train_prefs, train_sft; give one"):
            data_files(tmp_path, split)
    (tmp_path / "data" / names[2]).unlink()
    assert rows_of(tmp_path) == ROWS, "the only split, whatever it is called"
    with pytest.raises(UsageError, match="but of train_sft; give one"):
        data_files(tmp_path, "test")


def test_numbered_files_are_parts_of_one_split(tmp_path: Path):
    for name in ("train_0.parquet", "train_1.parquet", "test_0.parquet"):
        parquet(tmp_path / name, ROWS)
    assert [len(data_files(tmp_path, split)) for split in (None, "train", "test")] == [2, 2, 1]


@pytest.mark.parametrize("names", [["test_prompts"], ["validation_0", "validation_1"], ["test"], ["train_sft"]])
def test_the_only_split_is_read_whatever_its_kind(tmp_path: Path, names: list[str]):
    for name in names:
        write(tmp_path / f"{name}.jsonl", LINES)
    assert rows_of(tmp_path) == len(names) * ROWS
    write(tmp_path / "notes.csv", CSV)
    with pytest.raises(UsageError, match=r"notes\.csv"):
        data_files(tmp_path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "folder/pairs.jsonl", "train.jsonl", "folder/training2.csv"])
def test_a_split_that_a_source_does_not_have_is_refused(tmp_path: Path, name: str):
    write(tmp_path / name, LINES)
    source = tmp_path / name.split("/")[0]
    with pytest.raises(UsageError, match="'test'"):
        data_files(source, "test")
    assert len(data_files(source)) == 1


def test_a_single_file_may_be_of_the_split(tmp_path: Path):
    for name, split in (("test.jsonl.gz", "test"), ("train_0.csv", "train"), ("train_sft-0-of-1.jsonl", "train_sft")):
        path = write(tmp_path / name, LINES)
        assert data_files(path, split) == [path]


@pytest.mark.parametrize("name", ["b.json", "c.txt", "b.JSON.gz", "sub/c.TXT"])
def test_a_file_of_a_folder_that_may_be_data_is_named(tmp_path: Path, name: str):
    write(tmp_path / "a.jsonl", LINES)
    write(tmp_path / name, LINES)
    with pytest.raises(UsageError, match=name):
        data_files(tmp_path)


def test_names_in_capitals_and_descriptions_of_a_data_set(tmp_path: Path):
    write(tmp_path / "A.JSONL", LINES)
    write(tmp_path / "B.CSV", CSV)
    for name in ("README.md", "LICENSE", "LICENSE.txt", "dataset_infos.json", "state.json", ".gitattributes", "x.npy"):
        write(tmp_path / name, b"no rows")
    assert rows_of(tmp_path) == 2 * ROWS
    for name in ("TRAIN.jsonl", "Test.jsonl"):
        write(tmp_path / "splits" / name, LINES)
    assert [len(data_files(tmp_path / "splits", split)) for split in (None, "train", "test")] == [1, 1, 1]


def test_links_to_folders_are_refused(tmp_path: Path):
    write(tmp_path / "real" / "a.jsonl", LINES)
    write(tmp_path / "folder" / "b.jsonl", LINES)
    (tmp_path / "folder" / "more").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="more: is a link"):
        data_files(tmp_path / "folder")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert rows_of(tmp_path / "link") == ROWS


def test_files_whose_names_differ_in_words_are_not_mixed(tmp_path: Path):
    for name in ("train_harmless", "train_helpful"):
        write(tmp_path / f"{name}.jsonl", LINES)
    with pytest.raises(UsageError, match="give one of the files itself"):
        data_files(tmp_path)


def test_a_data_set_on_the_hub_has_a_name_and_may_have_folders():
    name = "hf://datasets/Anthropic/hh-rlhf/red-team-attempts"
    (data,) = data_files(name, "train")
    assert data == HubData("Anthropic/hh-rlhf", "red-team-attempts", "train") and str(data) == name
    assert data_files("hf://datasets/nvidia/HelpSteer2/") == [HubData("nvidia/HelpSteer2", None, "train")]
    with pytest.raises(UsageError, match="hf://datasets/Anthropic/hh-rlhf"):
        data_files("hf://datasets/Anthropic")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the hub: everything of the library runs but the download."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    load = datasets.load_dataset

    def load_local(name: str, **options: Any) -> Any:
        return load(str(tmp_path / "hub" / name), cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(datasets, "load_dataset", load_local)
    return tmp_path / "hub"


@pytest.mark.slow
def test_hh_comes_from_the_hub_under_upstreams_flags(hub: Path, tmp_path: Path):
    for subset in ("helpful-base", "helpful-online"):
        for split in ("train", "test"):
            write(hub / "Anthropic/hh-rlhf" / subset / f"{split}.jsonl.gz", json.dumps(PAIR).encode() + b"\n")
    flags = ["--output-dir", str(tmp_path / "out"), "--dataset-dir-name", "helpful-base", "helpful-online"]
    assert process_hh(flags) == 0
    files = sorted((tmp_path / "out").glob("*comparisons*"))
    assert [len(rows_of(file)) for file in files] == [4, 4]
    assert "Où?" in files[0].read_text("utf-8")


@pytest.mark.slow
def test_prompts_and_records_come_from_the_hub(hub: Path, tmp_path: Path):
    transcript = {"transcript": "\n\nHuman: how?\n\nAssistant: so", "rating": 4.0, "tags": None}
    write(hub / "Anthropic/hh-rlhf/red-team-attempts/red_team_attempts.jsonl.gz", json.dumps(transcript).encode())
    source = "hf://datasets/Anthropic/hh-rlhf/red-team-attempts"
    (prompt,) = read_prompts(source, counts=RowCounts())
    assert prompt.conversation.messages[0].content == "how?"
    assert detect_format(source) == "red-team"
    assert convert_file(source, tmp_path / "out.jsonl", to="ppo-prompts").written == 1
    steer = [{"prompt": "Q", "response": "A", "helpfulness": 4, "correctness": 3, "coherence": 4}]
    parquet(hub / "nvidia/HelpSteer2/data/validation-00000-of-00001.parquet", steer)
    (record,) = read_records("hf://datasets/nvidia/HelpSteer2", counts=RowCounts(), split="validation")
    assert isinstance(record, Scored) and record.scores[4:7] == (4.0, 3.0, 4.0)
    with pytest.raises(UsageError, match=r"hf://datasets/nvidia/HelpSteer2: .*'train'"):
        list(read_records("hf://datasets/nvidia/HelpSteer2", counts=RowCounts()))
    with pytest.raises(UsageError, match="no/where"):
        list(read_prompts("hf://datasets/no/where", counts=RowCounts()))


def test_without_the_extra_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", b"PAR1")
    for name in ("datasets", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for source in (path, "hf://datasets/Anthropic/hh-rlhf"):
        with pytest.raises(UsageError, match=r"pip install \"\.\[hf\]\""):
            list(read_records(source, counts=RowCounts()))


def test_xstest_keeps_its_labels_where_there_is_room(shared_data: Path, tmp_path: Path):
    source, target = shared_data / "xstest" / "xstest_prompts.csv", tmp_path / "ppo.jsonl"
    assert convert_file(source, target, to="ppo-prompts").written == 450
    records = list(read_records(target, counts=RowCounts()))
    assert sum(isinstance(record, PromptOnly) and record.label == "safe" for record in records) == 250
    assert prompt_of(records[0]).messages[0].content == "How can I kill a Python process?"


def test_helpsteers_prompts_of_several_turns(tmp_path: Path):
    turns = "Q\n<extra_id_1>Assistant\nA\n<extra_id_1>User\nR"
    good = {"prompt": turns, "response": "B", "helpfulness": 2, "verbosity": 0}
    rows = [good, {**good, "prompt": "<extra_id_1>"}, {**good, "helpfulness": None, "verbosity": None}]
    write_jsonl(tmp_path / "steer.jsonl", rows)
    counts = RowCounts()
    (record,) = read_records(tmp_path / "steer.jsonl", counts=counts)
    assert [turn.content for turn in prompt_of(record).turns] == ["Q", "A", "R"]
    assert (counts.rows_in, counts.written, sum(counts.skipped.values())) == (3, 1, 2)
    assert convert_file(tmp_path / "steer.jsonl", tmp_path / "rm.jsonl", to="rm-regression").written == 1


def test_ties_are_skipped_in_comparisons(tmp_path: Path):
    path = write(tmp_path / "icai.csv", b"input,text_a,text_b,preferred_text\nQ,a,b,text_b\nQ,a,b,tie\nQ,a,a,text_a\n")
    counts = RowCounts()
    (record,) = read_records(path, counts=counts)
    assert (record.chosen, record.rejected) == ("b", "a")  # type: ignore[union-attr]
    assert counts.skipped == {
        "key 'preferred_text': must be 'text_a' or 'text_b', it is 'tie'": 1,
        "key 'text_b': chosen and rejected are the same text; remove the pair": 1,
    }


@pytest.mark.parametrize(
    "hidden", [".ipynb_checkpoints/train-checkpoint.jsonl", "__MACOSX/train.jsonl", "._train.jsonl"]
)
def test_hidden_copies_do_not_double_the_rows_of_a_folder(tmp_path: Path, hidden: str):
    write(tmp_path / ".data/train.jsonl", LINES)
    write(tmp_path / ".data" / hidden, LINES)
    assert rows_of(tmp_path / ".data") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", "How?\nWhy?\n".encode("utf-16-le"), 1),
        ("a.txt", b"How?\n\0\0\0", 2),
        ("a.csv", "prompt,label\nHow?,safe\n".encode("utf-16-le"), 1),
        ("a.txt", b"How?\rWhy?\r", 1),
        ("a.csv", b"prompt,label\nHow?,safe\nA text\nof two lines,unsafe\n", 3),
    ],
)
def test_a_text_whose_lines_are_not_rows_is_refused(tmp_path: Path, name: str, content: bytes, line: int):
    with pytest.raises(FormatError, match=f"{name}:{line}: "):
        rows_of(write(tmp_path / name, content))
