# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever a file holds, a reader gives records, counts what it leaves out, or says in one line what is wrong.

Never a traceback: every error is a UsageError. Never a silent loss: when a reader comes to the end, each row that the
file has (counted here in another way) was read, and each is in the balance.
"""

import gzip
import io
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.data.anthropic_hh import Outputs, rows_of, write_split
from nemo_aligner_cai.data.formats.all_formats import FORMATS, detect_format
from nemo_aligner_cai.data.formats.files import read_records, validate_file
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import Row, RowCounts
from nemo_aligner_cai.prompts.transcript import TranscriptError
from tests.unit.record_strategies import held_by_all
from tests.unit.test_published_formats import CHATS, PAIRS

READ_ONLY: dict[str, Row] = {
    "cai-revisions": {"id": "1", "prompt": [{"role": "user", "content": "Q"}], "response": "A", "revision": "B"},
    "cai-comparisons": {
        "id": "1",
        "prompt": [{"role": "user", "content": "Q"}],
        "candidates": [{"key": "a", "text": "A"}, {"key": "b", "text": "B"}],
        "pairs": [{"chosen": "A", "rejected": "B", "chosen_key": "a", "rejected_key": "b", "probability": 0.75}],
        "verdicts": [],
    },
    "prompt-columns": {"Behavior": "Q", "ContextString": "C", "BehaviorID": "x"},
    "oasst": {"message_id": "a", "parent_id": None, "text": "Q", "role": "prompter"},
    "unpaired-conversations": {"conversations": ["Q", "A"], "kto_tag": False},
    "unpaired-texts": {"prompt": "Q", "response": "A", "is_safe": False},
    **{name: row for name, row, *_ in (*CHATS, *PAIRS) if FORMATS[name].read_only},
}


def good_rows(name: str) -> list[Row]:
    """Rows that a format reads, as JSON gives them."""
    if FORMATS[name].read_only:
        return [READ_ONLY[name]]
    rows = [row for record in held_by_all(FORMATS[name].kind) for row in FORMATS[name].write(record, NEMO_CHAT)]
    return json.loads(json.dumps(rows))


def lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read_in_every_way(path: Path, name: str | None, rows: int | None) -> int:
    """How many ways of reading come to the end of a file that has rows; `rows` is what they then must have read."""
    ends = 0
    for read in (_detect, _records, _prompts, _hh, _validate):
        counts = RowCounts()
        try:
            read(path, name, counts)
        except CaiError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            continue
        counts.check()
        if counts.rows_in:
            assert rows is None or counts.rows_in == rows
            ends += 1
    return ends


def _detect(path: Path, name: str | None, counts: RowCounts) -> None:
    detect_format(path)


def _records(path: Path, name: str | None, counts: RowCounts) -> None:
    list(read_records(path, name, counts=counts))


def _prompts(path: Path, name: str | None, counts: RowCounts) -> None:
    list(read_prompts(path, counts=counts))


def _hh(path: Path, name: str | None, counts: RowCounts) -> None:
    outputs = Outputs.named(path.parent, "fuzz", prefix=None, add_eos=True)
    vars(counts).update(vars(write_split(rows_of([path]), outputs, template=NEMO_CHAT, overwrite=True)))


def _validate(path: Path, name: str | None, counts: RowCounts) -> None:
    vars(counts).update(vars(validate_file(path, name)))


def non_blank(content: bytes) -> int | None:
    """The rows of a file of JSON lines; None for a JSON list, whose rows are not lines."""
    whole = content.removeprefix(b"\xef\xbb\xbf")
    found = [line for line in whole.split(b"\n") if line.strip()]
    return None if found and found[0].lstrip().startswith(b"[") else len(found)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def damaged(value: Any, random_: random.Random, other: Any) -> Any:
    """The value with something in it exchanged, taken away or doubled."""
    if isinstance(value, dict) and value and random_.random() < 0.8:
        key = random_.choice(sorted(value))
        rest = {name: item for name, item in value.items() if name != key}
        return rest if random_.random() < 0.2 else {**rest, key: damaged(value[key], random_, other)}
    if isinstance(value, list) and value and random_.random() < 0.8:
        place = random_.randrange(len(value))
        middle = [damaged(value[place], random_, other)] if random_.random() < 0.8 else 2 * [value[place]]
        return [*value[:place], *middle, *value[place + 1 :]]
    return other


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_a_row_of_wrong_types_is_an_error_that_names_the_key_or_a_record(name: str, data: st.DataObject):
    format = FORMATS[name]
    random_ = data.draw(st.randoms(use_true_random=False))
    rows = [damaged(row, random_, data.draw(ANYTHING)) for row in good_rows(name)[: format.group]]
    if not all(isinstance(row, dict) for row in rows):
        return
    for one in FORMATS.values():
        if one.matches(rows[0]):
            # What a row says is asked of every format that it looks like, as detection does.
            with suppress(UsageError, TranscriptError):
                one.read_prompt(rows[0], NEMO_CHAT)
            with suppress(UsageError):
                one.known_keys(rows[0])
    try:
        record = format.read(rows, NEMO_CHAT)
    except UsageError as error:
        assert str(error)
        return
    assert isinstance(record, format.kind)


@pytest.mark.slow
@given(content=st.binary(max_size=300), ending=st.sampled_from(["jsonl", "json", "csv", "txt", "parquet", "bin"]))
def test_random_bytes(content: bytes, ending: str, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("fuzz") / f"a.{ending}"
    path.write_bytes(content)
    read_in_every_way(path, None, non_blank(content) if ending in ("jsonl", "bin") else None)


PIECES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\\ud800",
    b"NaN",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_files_that_were_damaged_in_places(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory):
    if FORMATS[name].suffix != ".jsonl":
        return
    content = lines(good_rows(name))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = start + data.draw(st.sampled_from((0, 0, 1, 30)))
        content = content[:start] + data.draw(st.sampled_from(PIECES)) + content[stop:]
    path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(content)
    read_in_every_way(path, name, non_blank(content))


@pytest.mark.slow
def test_a_gzip_file_that_ends_early_is_never_taken_for_a_whole_one(tmp_path: Path):
    packed = gzip.compress(lines([{"prompt": f"prompt {number}"} for number in range(300)]), mtime=0)
    path = tmp_path / "a.jsonl.gz"
    for size in (*range(40), *range(40, len(packed), 7), len(packed) - 1):
        path.write_bytes(packed[:size])
        assert not read_in_every_way(path, "plain-prompts", None)
    path.write_bytes(packed)
    assert read_in_every_way(path, "plain-prompts", 300) >= 2


@pytest.mark.slow
@given(seed=st.integers(0, 10**6))
def test_parquet_that_was_damaged_in_places(seed: int, tmp_path_factory: pytest.TempPathFactory):
    arrow, tables = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    made = io.BytesIO()
    rows = [{"prompt": [{"role": "user", "content": f"Où {number}?"}], "label": None} for number in range(50)]
    tables.write_table(arrow.Table.from_pylist(rows), made, compression="none")
    random_, content = random.Random(seed), bytearray(made.getvalue())
    for _ in range(random_.choice((1, 1, 2, 20))):
        content[random_.randrange(len(content))] = random_.randrange(256)
    path = tmp_path_factory.mktemp("fuzz") / "a.parquet"
    path.write_bytes(content[: random_.choice((len(content), random_.randrange(len(content))))])
    read_in_every_way(path, None, None)


LONG = "long " * 2_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", lines([{"prompt": LONG}, {"prompt": "Q"}]), 2),
        ("a.jsonl", b'{"prompt": "' + b"x" * 10_000_000 + b"\n", None),
        ("a.jsonl", b"[" * 10_000_000, None),
        ("a.json", json.dumps([LONG, "Q"]).encode(), 2),
        ("a.csv", f'prompt\n"{LONG}"\nQ\n'.encode(), 2),
        ("a.csv", b'prompt\n"' + b"x" * 10_000_000, None),
        ("a.txt", f"{LONG}\nQ\n".encode(), 2),
        ("a.parquet", b"PAR1" + b"x" * 10_000_000, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lines_of_ten_megabytes(name: str, content: bytes, rows: int | None, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    assert bool(read_in_every_way(path, None, rows)) == (rows is not None)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'{"prompt": "a\\u0000b"}\n', 1),
        (b'{"prompt": "a\x00b"}\n', 0),
        (b'\x00\x00{"prompt": "a"}\n', 0),
        (b'{"prompt": "a"}\r\n{"prompt": "b"}\n\r\n{"prompt": "c"}', 3),
        (b'{"prompt": "a"}\r{"prompt": "b"}\n', 0),
        (b'\xef\xbb\xbf{"prompt": "a"}\n', 1),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"prompt": "a"}\n', 0),
        ('{"prompt": "a\u2028b\u0085c"}\n'.encode(), 1),
        (b'{"prompt": "a"}\n\xff\xfe{"prompt": "b"}\n', 0),
        ('{"prompt": "a"}\n'.encode("utf-16"), 0),
        (b'{"prompt": "a", "prompt": "b"}\n', 1),
        (b'{"prompt": "\\ud83c\\udf88"}\n', 1),
        (b'{"prompt": "\\ud83c"}\n', 0),
        (b'{"prompt": 1e999}\n', 0),
        (b'{"prompt": "a", "dataset": 7}\n', None),
        (b'{"prompt": null}\n', None),
        (b"null\n", 0),
        (b"", 0),
        (b"\n\n\n", 0),
    ],
)
def test_odd_bytes_are_understood_or_refused(content: bytes, rows: int | None, tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    ends = read_in_every_way(path, "plain-prompts", rows)
    assert rows is None or bool(ends) == bool(rows)
