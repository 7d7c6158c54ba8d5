# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Formats of other packages: which columns they know, and that every error names the package."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS, PluginError, all_formats, detect_format, format_named
from nemo_aligner_cai.data.formats.files import read_groups, read_records
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.prompts.transcript import TranscriptError

SOURCE = """
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.other_trainers import Messages
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.prompts.transcript import TranscriptError


class Renamed(Messages):
    name = "renamed"


class Overridden(Messages):
    name = "overridden"

    def read(self, rows, template):
        return Chat(Conversation.of_user("Q").with_turn(Role.ASSISTANT, rows[0]["tools"]))


class WithKeys(Overridden):
    name = "with-keys"

    def known_keys(self, row):
        return frozenset({"messages"})


class Keyed(Format):
    name, description, kind, keys = "keyed", "messages", Chat, frozenset({"messages"})
    read = Overridden.read

    def write(self, record, template):
        return ({"text": template.render(record.conversation)},)


class Declared(Overridden):
    name, fields = "declared", Messages.fields


class Failing(Format):
    name, description, kind, keys = "failing", "fails", Chat, frozenset()

    def matches(self, row):
        return row["absent"]

    def read(self, rows, template):
        return 1 / 0

    def read_prompt(self, row, template):
        return [][0]

    def known_keys(self, row):
        return row.nothing

    def write(self, record, template):
        return int("x")


class Refusing(Format):
    name, description, kind = "refusing", "refuses", Chat

    def matches(self, row):
        return False

    def read(self, rows, template):
        raise RowError("letter", "is too long")

    def read_prompt(self, row, template):
        raise TranscriptError("no letter")


class Unmade(Refusing):
    def __init__(self):
        raise OSError("no dictionary")


def function(row):
    return row


number = 7
"""
NAMES = {
    **{
        "keyed": "Keyed",
        "renamed": "Renamed",
        "overridden": "Overridden",
        "with-keys": "WithKeys",
        "declared": "Declared",
    },
    **{"refusing": "Refusing", "unmade": "Unmade", "function": "function", "number": "number"},
}
ANSWERED = Conversation.of_user("Q").with_turn(Role.ASSISTANT, "A")
ROW = {"messages": ANSWERED.to_messages(), "tools": "A"}


def install(folder: Path, names: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    info = folder / "cai_letters-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cai-letters\nVersion: 0.1\n")
    points = [f"{name} = formats_of_letters:{attribute}" for name, attribute in names.items()]
    (info / "entry_points.txt").write_text("[nemo_aligner_cai.formats]\n" + "\n".join(points) + "\n")
    (folder / "formats_of_letters.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a row, next to a package whose formats match nothing that ours do not match."""
    install(tmp_path, NAMES, monkeypatch)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("name", ["function", "number"])
def test_what_is_no_format_is_refused_with_the_class_that_it_must_be(plugins: Path, name: str):
    message = f"'{name}' of cai-letters 0.1: must be a subclass of nemo_aligner_cai.data.formats.base.Format$"
    with pytest.raises(PluginError, match=message):
        format_named(name)


def test_a_format_that_cannot_be_made_names_its_package(plugins: Path):
    with pytest.raises(PluginError, match=r"'unmade' of cai-letters 0\.1 .*failed: OSError: no dictionary$"):
        format_named("unmade")


def test_our_formats_come_first_and_broken_ones_last_with_their_errors(plugins: Path):
    found, broken = all_formats()
    assert list(found)[: len(FORMATS)] == list(FORMATS)
    assert {*list(found)[len(FORMATS) :]} == NAMES.keys() - broken.keys()
    assert sorted(broken) == ["function", "number", "unmade"]
    assert "no dictionary" in str(broken["unmade"])
    with pytest.raises(UsageError, match=r"unknown format 'letters'; the formats are sft-chat, .*renamed"):
        format_named("letters")


@pytest.mark.parametrize("name", ["keyed", "renamed", "with-keys", "declared"])
def test_columns_that_a_format_does_not_declare_are_refused(plugins: Path, name: str):
    with pytest.raises(FormatError, match=r"rows\.jsonl:1: key 'tools': is not supported"):
        list(read_records(plugins, name, counts=RowCounts()))


def test_a_format_writes_with_the_template_that_it_is_given(plugins: Path):
    assert format_named("keyed").write(Chat(ANSWERED), NEMO_CHAT) == ({"text": NEMO_CHAT.render(ANSWERED)},)


def test_a_format_with_its_own_reader_may_read_any_column(plugins: Path):
    counts = RowCounts()
    (record,) = read_records(plugins, "overridden", counts=counts)
    assert record == Chat(ANSWERED) and counts.unused == set()


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("matches", ({"a": 1},), "KeyError: 'absent'"),
        ("read", ([{"a": 1}], NEMO_CHAT), "ZeroDivisionError: division by zero"),
        ("read_prompt", ({"a": 1}, NEMO_CHAT), "IndexError: list index out of range"),
        ("known_keys", ({"a": 1},), "AttributeError: 'dict' object has no attribute 'nothing'"),
        ("write", (Chat(ANSWERED), NEMO_CHAT), "ValueError: invalid literal"),
    ],
)
def test_whatever_fails_in_a_format_names_its_package(
    method: str, arguments: tuple[Any, ...], error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, {"failing": "Failing"}, monkeypatch)
    with pytest.raises(PluginError, match=rf"'failing' of cai-letters 0\.1 .*failed: {error}"):
        getattr(format_named("failing"), method)(*arguments)


def test_a_format_that_fails_stops_detection_and_a_reader_that_drops_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, {"failing": "Failing"}, monkeypatch)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(FormatError, match=r"rows\.jsonl:1: .*'failing' of cai-letters 0\.1 .*KeyError: 'absent'"):
        detect_format(path)
    with pytest.raises(FormatError, match=r"rows\.jsonl:1: .*ZeroDivisionError"):
        list(read_groups(path, "failing", counts=RowCounts(), drop_refused=True))


def test_what_a_format_refuses_is_said_in_its_words(plugins: Path):
    format = format_named("refusing")
    with pytest.raises(UsageError, match=r"^key 'letter': is too long$"):
        format.read([{}], NEMO_CHAT)
    with pytest.raises(TranscriptError, match=r"^no letter$"):
        format.read_prompt({}, NEMO_CHAT)
