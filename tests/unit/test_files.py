# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.files import (
    RowCounts,
    atomic_writer,
    content_hash,
    read_jsonl,
    read_text,
    sha256_file,
    write_json,
    write_jsonl,
)
from nemo_aligner_cai.files.reading import is_json_list
from nemo_aligner_cai.files.sources import is_parquet

ROWS = [{"text": "Système 中 🎈"}, {"text": "a\u2028b\tc\x00"}, {"n": [1, 2.5, None, True]}]


def write(tmp_path: Path, content: bytes, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str):
    path = tmp_path / "new" / name
    assert write_jsonl(path, ROWS) == 3
    assert list(read_jsonl(path)) == list(enumerate(ROWS, start=1))


def test_equal_rows_give_equal_packed_bytes(tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl.gz", ROWS)
    write_jsonl(tmp_path / "b.jsonl.gz", ROWS)
    assert sha256_file(tmp_path / "a.jsonl.gz") == sha256_file(tmp_path / "b.jsonl.gz")


def test_gzip_of_several_parts_and_of_great_compression_is_read_whole(tmp_path: Path):
    parts = [gzip.compress(b'{"a":1}\n'), gzip.compress(b'{"a":"' + b"x" * 10_000_000 + b'"}\n'), b"\0" * 512]
    rows = [row for _, row in read_jsonl(write(tmp_path, b"".join(parts)))]
    assert [row["a"] if row["a"] == 1 else len(row["a"]) for row in rows] == [1, 10_000_000]
    with pytest.raises(FormatError, match=r":2: .*gzip"):
        list(read_jsonl(write(tmp_path, parts[0] + b"no gzip")))


def test_gzip_is_told_by_content_and_not_by_name(tmp_path: Path):
    path = write(tmp_path, gzip.compress(b'{"a":1}\n'), "rows.jsonl")
    assert [row for _, row in read_jsonl(path)] == [{"a": 1}]


def test_byte_order_mark_line_ends_and_blank_lines_are_understood(tmp_path: Path):
    path = write(tmp_path, b'\xef\xbb\xbf{"a":1}\r\n\r\n{"a":2}\n{"a":3}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2}), (4, {"a": 3})]


def test_a_json_list_is_read_by_position(tmp_path: Path):
    path = write(tmp_path, json.dumps(ROWS, indent=1).encode(), "rows.json")
    assert list(read_jsonl(path)) == list(enumerate(ROWS, start=1))


def test_a_blank_line_can_be_an_error(tmp_path: Path):
    path = write(tmp_path, b'{"a":1}\n\n{"a":2}\n')
    with pytest.raises(FormatError, match=r"rows.jsonl:2: "):
        list(read_jsonl(path, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a":1}\n{"a":\n', ":2: not JSON"),
        (b'{"a":1}\n7\n', ":2: .* int"),
        (b'{"a":1}\n\xff\xfe\n', ":2: is not UTF-8"),
        (b'{"a": "\\ud800"}\n', ":1: not JSON"),
        (b'{"a": NaN}\n', ":1: not JSON"),
        (b'[{"a":1}, 2]', ":2: .* int"),
        (b'[{"a":1}', ":1: not JSON"),
        # The same bytes at every time: they name the test, and two processes must find the same tests.
        (gzip.compress(b'{"a":1}\n' * 1000, mtime=0)[:-9], ":[0-9]+: .*gzip"),
        (gzip.compress(b'{"a":1}\n', mtime=0)[:-12] + b"\0" * 12, ":[0-9]+: .*gzip"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, content: bytes, message: str):
    path = write(tmp_path, content)
    with pytest.raises(FormatError, match=message) as raised:
        list(read_jsonl(path))
    assert str(raised.value).startswith(f"{path}:")
    assert raised.value.exit_code == 2


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_never_give_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes, pack: bool):
    path = write(tmp_path_factory.mktemp("fuzz"), gzip.compress(content)[: len(content)] if pack else content)
    try:
        rows = list(read_jsonl(path))
    except UsageError as error:
        assert str(error).startswith(f"{path}:")
        return
    assert all(isinstance(row, dict) for _, row in rows)


def test_a_missing_file_is_an_error_before_the_first_row(tmp_path: Path):
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            read_jsonl(path)


def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = write(tmp_path, b"old")

    def rows():
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows(), overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_behind_is_removed_by_the_next(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, signal, sys\nfrom nemo_aligner_cai.files import atomic_writer\n"
            "with atomic_writer(sys.argv[1]) as handle:\n    os.kill(os.getpid(), signal.SIGKILL)\n",
            str(path),
        ]
    )
    assert killed.wait() == -9
    (left,) = tmp_path.iterdir()
    with atomic_writer(path) as handle:
        assert not left.exists()
        with atomic_writer(tmp_path / "other.jsonl"):
            assert len(list(tmp_path.glob(".rows.jsonl.*.tmp"))) == 1, "a living writer's file stays"
        handle.write(b"{}\n")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "other.jsonl", path]


def test_an_existing_file_is_replaced_only_when_told_to(tmp_path: Path):
    path = write(tmp_path, b"old")
    with pytest.raises(UsageError, match="--overwrite"):
        write_jsonl(path, ROWS)
    with pytest.raises(UsageError, match="already exists"), atomic_writer(path):
        pass
    assert path.read_bytes() == b"old"
    write_json(path, {"a": 1}, overwrite=True)
    assert json.loads(path.read_bytes()) == {"a": 1}


def test_a_row_that_json_cannot_hold_is_named(tmp_path: Path):
    with pytest.raises(CaiError, match="row 2 "):
        write_jsonl(tmp_path / "rows.jsonl", [{"a": 1}, {"a": "\ud800"}])
    assert not list(tmp_path.iterdir())


def test_content_hash_depends_on_content_alone():
    assert content_hash({"a": 1, "b": "中"}) == content_hash({"b": "中", "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    assert len(content_hash({}, length=40)) == 40


def test_a_balance_accounts_for_every_row():
    counts = RowCounts(rows_in=5, written=3)
    counts.skip("empty reply")
    with pytest.raises(CaiError, match="5 rows in = 3 written"):
        counts.check()
    counts.skip("duplicate")
    counts.check()
    counts.note("escaped")
    assert counts.to_dict() == {
        "rows_in": 5,
        "written": 3,
        "left_out": {"duplicate": 1, "empty reply": 1},
        "noted": {"escaped": 1},
    }
    assert str(counts) == "5 rows in = 3 written + 2 skipped (1 duplicate, 1 empty reply); of the written: 1 escaped"


@pytest.mark.parametrize("rows", [10, 100_000])  # written at the end, and while rows are added
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_write_that_fails_names_the_file(tmp_path: Path, rows: int, name: str) -> None:
    path = tmp_path / name
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(CaiError) as failure:
            write_jsonl(path, ({"n": number} for number in range(rows)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(failure.value).startswith(f"{path}: cannot be written: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_that_cannot_be_put_in_place_is_named(tmp_path: Path, fails: str) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(CaiError) as failure:
        patch.setattr(f"nemo_aligner_cai.files.writing.os.{fails}", Mock(side_effect=OSError(28, "No space left")))
        write_json(tmp_path / "a.json", {})
    assert str(failure.value).startswith(f"{tmp_path / 'a.json'}: cannot be written: No space left")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose beginning cannot be read")
@pytest.mark.parametrize("read", [sha256_file, read_text, is_parquet, is_json_list])
def test_a_read_that_fails_names_the_file(read: Callable[[Path], object]) -> None:
    with pytest.raises(UsageError) as failure:
        read(Path("/proc/self/mem"))
    assert str(failure.value).startswith("/proc/self/mem: cannot be read: ")
