# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""All formats by name, including those of other packages, and format detection."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import nemo_aligner_cai
from nemo_aligner_cai.chat import Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.row_values import describe_keys
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice
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
    """Another package's format failed. The message names the format and the package."""


def all_formats() -> tuple[dict[str, Format], dict[str, UsageError]]:
    """Return the formats by name, those of other packages last, and the errors of those that cannot be loaded."""
    found, broken = dict(FORMATS), dict[str, UsageError]()
    for name, component in components("formats").items():
        if name not in FORMATS or component.conflict:
            try:
                found[name] = _load_plugin(component)
            except UsageError as error:
                broken[name] = error
    return found, broken


def format_named(name: str) -> Format:
    """Return a format by name. Raises UsageError if it is unknown or cannot be loaded."""
    if name in FORMATS:
        return FORMATS[name]
    found, broken = all_formats()
    if name in broken:
        raise broken[name]
    if name not in found:
        raise UsageError(f"unknown format {name!r}; the formats are {', '.join(listed(found))}")
    return found[name]


def listed(formats: Mapping[str, Format]) -> list[str]:
    """The names of formats. Those that can be written come first."""
    return sorted(formats, key=lambda name: formats[name].read_only)


def matching(row: Row, formats: Mapping[str, Format]) -> Format | None:
    """The first format that a row matches, None if there is none."""
    return next((format for format in formats.values() if format.matches(row)), None)


def no_format(row: Row, broken: Mapping[str, UsageError]) -> str:
    """The error message for a row that no format matches."""
    lower = {key.lower(): value for key, value in row.items()}
    if lower.keys() != row.keys() and (other := matching(lower, FORMATS)):
        wrong = ", ".join(repr(key) for key in row if key != key.lower())
        return f"looks like {other.name} except for the case of its keys; rename {wrong} to lower case"
    hidden = "".join(f"; {error}" for error in broken.values())
    return (
        f"a row with {describe_keys(row)} is of no known format of `cai components formats`; `cai convert` reads a "
        f"column of prompts by --prompt-column, and a named format by --from{hidden}"
    )


def detect_format(source: PathLike, *, split: str | None = None, columns: ColumnChoice | None = None) -> str:
    """Detect the format of a source by the keys of its first row.

    Raises:
        UsageError: The source cannot be read.
        FormatError: It has no rows, or the first row matches no format.
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


def _load_plugin(component: Component) -> Format:
    """Instantiate another package's format and wrap its methods, so that their errors name the package."""
    found: Any = component.load()
    if not (isinstance(found, type) and issubclass(found, Format)):
        raise PluginError(f"{component.label}: must be a subclass of nemo_aligner_cai.data.formats.base.Format")

    def call(function: Callable[..., Result], *args: Any) -> Result:
        try:
            return function(*args)
        except (CaiError, TranscriptError):
            raise
        # Another package may raise anything, and a traceback would not name the package.
        except Exception as error:
            raise PluginError(f"{component.label} failed: {type(error).__name__}: {error}") from error

    inherits_read = found.read.__module__.startswith(f"{nemo_aligner_cai.__name__}.")
    keys_are_valid = inherits_read or not {"keys", "known_keys", "fields"}.isdisjoint(vars(found))

    class Guarded(found):
        def matches(self, row: Row) -> bool:
            return call(super().matches, row)

        def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
            return call(super().read, rows, template)

        def read_prompt(self, row: Row, template: NemoChatTemplate) -> Conversation:
            return call(super().read_prompt, row, template)

        def known_keys(self, row: Row) -> frozenset[str] | None:
            # Inherited keys do not describe an overridden `read`.
            return call(super().known_keys, row) if keys_are_valid else None

        def write(self, record: Any, template: NemoChatTemplate) -> tuple[Row, ...]:
            return call(super().write, record, template)

    return call(Guarded)
