# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A record that goes through any two formats that can hold it comes out as it went in, key by key and byte by byte."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS, detect_format
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.files import convert_file, read_records, validate_file, write_records
from nemo_aligner_cai.data.records import Chat, Comparison, Kind, PromptOnly, Rated, Record, Scored
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row, RowCounts
from tests.unit.record_strategies import held_by_all, records

ASKED = Conversation.of_user("Q")
# Of which formats hold how many, and thus how many pairs there are: a new format changes them knowingly.
KINDS: dict[Kind, int] = {Chat: 3, Comparison: 9, PromptOnly: 5, Rated: 2, Scored: 2}
WRITTEN = {kind: [name for name, one in FORMATS.items() if one.kind is kind and not one.read_only] for kind in KINDS}
# Formats of one user turn, of transcripts, of CSV; a HelpSteer prompt has no system message.
LIMITED = {"input-output", "plain-prompts", "red-team", "anthropic-hh", "inverse-cai", "helpsteer"}
PAIRS = [(kind, first, second) for kind, names in WRITTEN.items() for first in names for second in names]


def test_every_pair_of_formats_is_tested():
    assert {kind: len(names) for kind, names in WRITTEN.items()} == KINDS
    assert len(PAIRS) == 9 + 81 + 25 + 4 + 4


def write(format: Format, record: Record) -> list[Row] | None:
    """The rows as they are read from a file; None where the format says that it cannot hold the record."""
    try:
        rows = format.write(record, NEMO_CHAT)
    except UsageError as error:
        assert format.name in str(error)
        return None
    return [json.loads(json.dumps(row)) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_what_a_format_writes_it_reads_and_detects_and_every_other_gives_it_back(kind: Kind, data: st.DataObject):
    record = data.draw(records(kind))
    held = {name: rows for name in WRITTEN[kind] if (rows := write(FORMATS[name], record)) is not None}
    assert held.keys() >= set(WRITTEN[kind]) - LIMITED
    for name, rows in held.items():
        assert len(rows) == FORMATS[name].group
        assert FORMATS[name].read(rows, NEMO_CHAT) == record
        assert next(known for known, one in FORMATS.items() if one.matches(rows[0])) == name
    for first, rows in held.items():
        for second in held:
            through = write(FORMATS[second], FORMATS[first].read(rows, NEMO_CHAT))
            assert through is not None
            assert write(FORMATS[first], FORMATS[second].read(through, NEMO_CHAT)) == rows


def test_formats_without_a_place_for_something_say_so_and_are_these():
    odd = [Conversation.of_user("Q", system="S"), ASKED.with_turn(Role.ASSISTANT, "").with_turn(Role.USER, " Q ")]
    limited: set[str] = set()
    for prompt in odd:
        whole = prompt.with_turn(Role.ASSISTANT, "A")
        made = [Chat(whole), Comparison(prompt, "A", ""), PromptOnly(prompt), Rated(prompt, "A", True)]
        for record in [*made, Scored(whole, (1.0,) * 9)]:
            limited.update(name for name in WRITTEN[type(record)] if write(FORMATS[name], record) is None)
    assert limited == LIMITED


@pytest.mark.parametrize(("kind", "first", "second"), PAIRS, ids=[f"{first}:{second}" for _, first, second in PAIRS])
def test_a_file_that_goes_through_another_format_keeps_its_bytes(kind: Kind, first: str, second: str, tmp_path: Path):
    for name in (first, second):
        if FORMATS[name].suffix == ".parquet":
            pytest.importorskip("pyarrow")
    before, between, after = (
        tmp_path / f"{stem}{FORMATS[name].suffix}"
        for stem, name in (("before", first), ("between", second), ("after", first))
    )
    write_records(before, held_by_all(kind), first)
    assert detect_format(before) == first
    assert list(read_records(before, counts=RowCounts())) == held_by_all(kind)
    for source, target, to in ((before, between, second), (between, after, first)):
        counts = convert_file(source, target, to=to)
        assert counts.written == counts.rows_in == validate_file(source).rows_in
        assert not counts.noted
    assert after.read_bytes() == before.read_bytes()
