# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""All formats by name, those of other packages too, and which of them a row or a file is in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import nemo_aligner_cai
from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.columns import ColumnChoice
from nemo_aligner_cai.data.formats.row_values import described
from nemo_aligner_cai.data.records import Record
from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row
from nemo_aligner_cai.files.sources import data_files, read_rows
from nemo_aligner_cai.prompts.transcript import TranscriptError
from nemo_aligner_cai.registry import BUILTIN, Component, components, load

FORMATS: dict[str, Format] = {name: load("formats", name)() for name in BUILTIN["formats"]}
"""The formats of this package, in the order in which detection tries them."""
Result = TypeVar("Result")


class PluginError(UsageError):
    """Another package's format failed; the message names the format and the package."""


def all_formats() -> tuple[dict[str, Format], dict[str, UsageError]]:
    """The formats by name, those of other packages last, and those that cannot be used with the reason."""
    found, broken = dict(FORMATS), dict[str, UsageError]()
    for name, component in components("formats").items():
        if name not in FORMATS or component.conflict:
            try:
                found[name] = _guarded(component)
            except UsageError as error:
                broken[name] = error
    return found, broken


def format_named(name: str) -> Format:
    """The format of that name; raises UsageError with the names there are, or with what is wrong with it."""
    if name in FORMATS:
        return FORMATS[name]
    found, broken = all_formats()
    if name in broken:
        raise broken[name]
    if name not in found:
        raise UsageError(f"unknown format {name!r}; the formats are {', '.join(listed(found))}")
    return found[name]


def listed(formats: Mapping[str, Format]) -> list[str]:
    """The names, those that can be written first."""
    return sorted(formats, key=lambda name: formats[name].read_only)


def matching(row: Row, formats: Mapping[str, Format]) -> Format | None:
    """The first of these formats that a row looks like; None where it looks like none."""
    return next((format for format in formats.values() if format.matches(row)), None)


def no_format(row: Row, broken: Mapping[str, UsageError]) -> str:
    """The message for a row that no format matches."""
    lower = {key.lower(): value for key, value in row.items()}
    other = matching(lower, FORMATS) if lower.keys() != row.keys() else None
    if other is not None:
        wrong = ", ".join(repr(key) for key in row if key != key.lower())
        return f"looks like {other.name}, but for the case of its keys; rename {wrong} to lower case"
    hidden = "".join(f"; {error}" for error in broken.values())
    return (
        f"a row with {described(row)} is of no known format; name one with --from or --as, or the column of prompts "
        f"with --prompt-column; known: {', '.join(listed(FORMATS))}{hidden}"
    )


def detect_format(source: PathLike, *, split: str = "train", columns: ColumnChoice | None = None) -> str:
    """The name of the format of a source, told by the keys of its first row.

    Raises:
        UsageError: the source cannot be read.
        FormatError: it has no rows, or a first row like no format's.
    """
    formats, broken = all_formats()
    for file in data_files(source, split):
        for line, row in read_rows(file):
            try:
                if columns is not None:
                    row, _ = columns.apply(row)
                format = matching(row, formats)
            except UsageError as error:
                raise FormatError.at(file, line, str(error)) from error
            if format is None:
                raise FormatError.at(file, line, no_format(row, broken))
            return next(name for name, one in formats.items() if one is format)
    raise FormatError(f"{source}: has no rows")


def _guarded(component: Component) -> Format:
    """Another package's format, whose own errors name it."""
    found: Any = component.load()
    if not (isinstance(found, type) and issubclass(found, Format)):
        raise PluginError(f"{component.label}: must be a subclass of nemo_aligner_cai.data.formats.base.Format")

    def call(function: Callable[..., Result], *args: Any) -> Result:
        try:
            return function(*args)
        except (CaiError, TranscriptError):
            raise
        # What another package's code raises is not known here, and a traceback would not name the package.
        except Exception as error:
            raise PluginError(f"{component.label} failed: {type(error).__name__}: {error}") from error

    ours = found.read.__module__.startswith(f"{nemo_aligner_cai.__name__}.")
    says_keys = ours or not {"keys", "known_keys", "fields"}.isdisjoint(vars(found))

    class Guarded(found):
        def matches(self, row: Row) -> bool:
            return call(super().matches, row)

        def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
            return call(super().read, rows, template)

        def asks(self, row: Row, template: NemoChatTemplate) -> Conversation:
            return call(super().asks, row, template)

        def known_keys(self, row: Row) -> frozenset[str] | None:
            # What this package's class reads says nothing about what a class that overrides its `read` reads.
            return call(super().known_keys, row) if says_keys else None

        def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
            return call(super().write, record, template)

    return call(Guarded)
