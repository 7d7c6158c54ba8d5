# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are a thousand times larger than they look, and lists of any length (B7)."""

import gzip
import importlib
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from nemo_aligner_cai.errors import FormatError
from nemo_aligner_cai.files import read_items, read_jsonl
from nemo_aligner_cai.files.json_items import BrokenListError, split_list

ITEMS = [{"a": 'x"]}\\', "b": [1, {"c": None}]}, "é,[", 1.5, [], {}, "", {"n": "\\\\"}, None]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_b7_a_list_is_split_wherever_its_blocks_end(indent: int | None, size: int) -> None:
    content = b" \n" + json.dumps(ITEMS, indent=indent, ensure_ascii=False).encode() + b"\n "
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    found = list(split_list(blocks, max_bytes=100))
    assert [orjson.loads(item) for _, item in found] == ITEMS
    lines = content.splitlines()
    if indent is None:
        assert {line for line, _ in found} == {2}
    else:
        assert [lines[line - 1].strip()[:1] for line, _ in found] == [item[:1] for _, item in found]


@pytest.mark.parametrize("content", [b"[", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1]]", b"[1] x", b'["x', b'[{"a": 1}'])
def test_b7_a_broken_list_is_refused(content: bytes) -> None:
    with pytest.raises(BrokenListError):
        list(split_list([content], max_bytes=100))


def test_b7_an_error_in_a_list_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n{"a": 1},\n\n{"a":\n x}\n]')
    with pytest.raises(FormatError, match=r"a\.json:5:"):
        list(read_items(path))
    path.write_text("[]")
    assert list(read_jsonl(path)) == []


_SCRIPT = """
import sys
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.files.sources import data_files, read_rows
from tests.unit.peak_memory import peak_memory
path = sys.argv[1]
try:
    if path.endswith("settings.json"):
        read_json(path)
    else:
        print(sum(1 for file in data_files(path) for _ in read_rows(file)))
except CaiError as error:
    print(error)
print(peak_memory())
"""
SIZE = 400 << 20
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start", "piece", "end", "where"),
    [
        ("a.jsonl", b'{"prompt": "', b"x", b'"}\n', "a.jsonl:1:"),
        ("b.jsonl", b'{"prompt": "q"}\n', b" ", b"\n", "b.jsonl:2:"),
        ("c.json", b'["', b"x", b'"]', "c.json:1:"),
        ("d.json", b"[", b"[],", b"[]]", "d.json:1: a JSON object"),
        ("f.json", b'["q"', b" ", b"]", "f.json:1:"),
        ("g.csv", b"prompt\n", b"x", b"\n", "g.csv:2:"),
        ("h.csv", b'prompt\n"', b"x\n", b'"\n', "h.csv:"),
        ("i.txt", b"q\n", b"x", b"\n", "i.txt:2:"),
        ("settings.json", b"[", b"[],", b"[]]", "settings.json"),
        ("j.jsonl", b'{"prompt": [', b"[],", b"[]]}\n", "j.jsonl:1:"),
    ],
)
def test_b7_a_packed_file_takes_little_memory(
    name: str, start: bytes, piece: bytes, end: bytes, where: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    block = piece * ((1 << 20) // len(piece))
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(start)
        for _ in range(SIZE >> 20):
            handle.write(block)
        handle.write(end)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    said, megabytes = done.stdout.rstrip().rsplit("\n", 1)
    assert where in said and int(megabytes) < 300, (said, megabytes)


def _parquet_bomb(kind: str, path: Path) -> None:
    """Write a small parquet file whose rows take gigabytes."""
    pyarrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    encoding: dict[str, object] = {"use_dictionary": False}
    column: list[object] = ["x"]
    if kind == "page":
        column = ["x" * (200 << 20), "y"]
    elif kind == "pages":
        column, encoding = ["x" * (30 << 20)] * 20, encoding | {"write_batch_size": 1, "data_page_size": 1}
    elif kind == "dictionary":
        column, encoding = ["x" * (10 << 20)] * 200, {}
    elif kind == "long row":
        column, encoding = [["x" * (1 << 20)] * 4000], {}
    elif kind == "many values":
        column, encoding = [[1] * 20_000_000], {}
    elif kind == "prefix":
        column, encoding = ["x" * (14 << 20)] * 40, encoding | {"column_encoding": {"prompt": "DELTA_BYTE_ARRAY"}}
    array = pyarrow.array([None])
    if kind == "dictionary" or kind == "long row":
        repeated = column if kind == "dictionary" else column[0]
        array = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * len(repeated), pyarrow.int32()), [repeated[0]])
        if kind == "long row":
            array = pyarrow.ListArray.from_arrays([0, len(array)], array)
    else:
        array = pyarrow.array(column)
    parquet.write_table(pyarrow.table({"prompt": array}), path, compression="zstd", compression_level=1, **encoding)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["page", "pages", "dictionary", "long row", "many values", "prefix"])
def test_b7_a_packed_parquet_file_takes_little_memory(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    # A child's peak starts with that of the process that starts it.
    writer = multiprocessing.get_context("spawn").Process(target=_parquet_bomb, args=(kind, path))
    writer.start()
    writer.join()
    assert path.stat().st_size < 3 << 20
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    said, megabytes = done.stdout.rstrip().rsplit("\n", 1)
    assert said == "200" if kind == "dictionary" else "a.parquet: row group 0: " in said, said
    assert int(megabytes) < 300, megabytes
