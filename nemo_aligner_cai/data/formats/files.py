# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reading, validating, writing and converting files of any format."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate, TokenPolicy
from nemo_aligner_cai.data.formats import nemo
from nemo_aligner_cai.data.formats.all_formats import FORMATS, PluginError, detect_format, format_named
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.record_guard import guard_record
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice, carry
from nemo_aligner_cai.data.formats.writers import require_suffix, write_rows
from nemo_aligner_cai.data.records import Chat, Record, require_texts, to_kind, with_system
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.files.reading import open_stored
from nemo_aligner_cai.files.sources import DataFile, data_files, is_parquet, read_rows

_NEMO_FORMATS = tuple(name for name, format in FORMATS.items() if type(format).__module__ == nemo.__name__)


def sft_row(conversation: Conversation, *, dataset: str | None = None) -> Row:
    """The SFT row of a conversation that ends with the assistant."""
    return FORMATS["sft-chat"].write(Chat(conversation, dataset), NEMO_CHAT)[0]


class Group(NamedTuple):
    """The consecutive rows of one record."""

    file: DataFile
    line: int
    """The first row's line."""
    rows: Sequence[Row]
    record: Record


def read_records(
    source: PathLike,
    format_name: str | None = None,
    *,
    counts: RowCounts,
    split: str | None = None,
) -> Iterator[Record]:
    """Read the records of a source, one at a time. Arguments and errors are those of `read_groups`."""
    groups = read_groups(source, format_name, counts=counts, split=split)
    return (group.record for group in groups)


def read_groups(
    source: PathLike,
    format_name: str | None = None,
    *,
    counts: RowCounts,
    template: NemoChatTemplate = NEMO_CHAT,
    split: str | None = None,
    strict: bool = False,
    columns: ColumnChoice | None = None,
    drop_refused: bool = False,
) -> Iterator[Group]:
    """Read the records of a source with their rows, one at a time.

    Args:
        source: A file, a folder or a data set on the hub, see `nemo_aligner_cai.files.sources`.
        format_name: Its format, None to detect it.
        counts: Receives the rows read, those yielded as written (two for a pair of lines), and those skipped.
        template: The chat template of formats that hold rendered text.
        split: The split to read, if the source has splits, see `data_files`.
        strict: Refuse blank lines, keys that a JSON object has twice, and rows that a lenient format would skip.
        columns: The columns to ignore, or the prompt column.
        drop_refused: Skip and count invalid rows in every format, not only in lenient ones.

    Raises:
        UsageError: The source cannot be read.
        FormatError: A row is invalid or has a meaning that its format cannot hold, or there are no rows.
    """
    format = format_named(format_name or detect_format(source, split=split, columns=columns))
    reader = _Reader(format, template, strict, columns or ColumnChoice(), format.lenient or drop_refused)
    return (group for file in data_files(source, split) for group in _groups(file, reader, counts=counts))


@dataclass(frozen=True)
class _Reader:
    format: Format
    template: NemoChatTemplate
    strict: bool
    columns: ColumnChoice
    lenient: bool

    def record(self, rows: Sequence[Row], unused: set[str]) -> Record:
        selected: list[Row] = []
        for row in rows:
            row, ignored = self.columns.apply(row)
            selected.append(row)
            unused |= ignored
        record = self.format.read(selected, self.template)
        require_texts(record)
        known = self.format.known_keys(selected[0])
        return record if known is None else carry(record, selected, known, unused=unused, strict=self.strict)


def _groups(file: DataFile, reader: _Reader, *, counts: RowCounts) -> Iterator[Group]:
    format = reader.format
    lines: list[int] = []
    rows: list[Row] = []
    line = 0
    for line, row in read_rows(file, strict=reader.strict):
        lines.append(line)
        rows.append(row)
        counts.rows_in += 1
        if len(rows) < format.group:
            continue
        try:
            record = reader.record(rows, counts.unused)
        except UsageError as error:
            if not reader.lenient or reader.strict or isinstance(error, PluginError):
                position = error.position if isinstance(error, RowError) else 0
                raise FormatError.at(file, lines[position], str(error)) from error
            counts.skip(str(error), format.group)
        else:
            counts.written += format.group
            yield Group(file, lines[0], rows, record)
        lines, rows = [], []
    if rows:
        raise FormatError.at(
            file, line, f"the file has an odd number of rows; a record of {format.name} has {format.group}"
        )
    if not line:
        raise FormatError(f"{file}: has no rows")


def validate_file(
    path: PathLike, format_name: str | None = None, *, template: NemoChatTemplate = NEMO_CHAT
) -> RowCounts:
    """Check that a trainer reads every row correctly.

    Raises:
        UsageError: The file cannot be read.
        FormatError: A row is invalid, or there are no rows.
    """
    name = format_name or detect_format(path)
    require_readable(path, format_named(name))
    counts = RowCounts()
    for _ in read_groups(path, name, counts=counts, template=template, strict=True):
        pass
    counts.check()
    return counts


def require_readable(path: PathLike, format: Format) -> None:
    """Raise FormatError if the format's trainer cannot read this type of file."""
    if format.name in _NEMO_FORMATS:
        require_plain_lines(path)
    elif (format.suffix == ".parquet") != (Path(path).is_file() and is_parquet(Path(path))):
        actual, expected = ("parquet", "JSON lines") if format.suffix != ".parquet" else ("not parquet", "parquet")
        raise FormatError(f"{path}: is {actual}, {format.name} must be {expected}; use `cai convert`")


def require_plain_lines(path: PathLike) -> None:
    """Raise FormatError unless the file has one JSON object per line in plain UTF-8. NeMo reads nothing else."""
    with open_stored(path) as handle:
        start = handle.readline()
    if start.startswith(b"\x1f\x8b"):
        raise FormatError(f"{path}: is compressed with gzip, which NeMo does not read; decompress it with gunzip")
    if start.startswith(b"PAR1"):
        raise FormatError(f"{path}: is parquet, NeMo needs one JSON object per line; use `cai convert`")
    if start.startswith(b"\xef\xbb\xbf"):
        raise FormatError.at(path, 1, "starts with a byte order mark, at which NeMo stops; save it without one")
    if start.lstrip().startswith(b"["):
        raise FormatError.at(path, 1, "is one JSON list; NeMo needs one object per line, use `cai convert`")
    if start.strip() and not start.lstrip().startswith(b"{"):
        raise FormatError.at(path, 1, "is not a JSON object, NeMo needs one per line; use `cai convert`")


def write_records(path: PathLike, records: Iterable[Record], format_name: str, *, overwrite: bool = False) -> int:
    """Write records of the format's kind and return the number of rows."""
    format = format_named(format_name)
    rows = (row for record in records for row in format.write(record, NEMO_CHAT))
    return write_rows(path, rows, format, overwrite=overwrite)


def convert_file(
    source: PathLike,
    target: PathLike,
    *,
    to: str,
    source_format: str | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    split: str | None = None,
    system_message: str = "",
    columns: ColumnChoice | None = None,
    drop_refused: bool = False,
    overwrite: bool = False,
) -> RowCounts:
    """Convert a source to another format, which may hold less information.

    Args:
        source: The data to read, see `nemo_aligner_cai.files.sources`.
        target: The file to write. JSON lines are compressed if its name ends in .gz.
        to: The format to write.
        source_format: The format to read, None to detect it.
        template: The chat template of formats that hold rendered text.
        policy: How to treat texts that contain the template's tokens.
        split: The split to read, if the source has splits, see `data_files`.
        system_message: The system message of conversations that have none.
        columns: The source's columns to ignore, or its prompt column.
        drop_refused: Skip and count rows that cannot be read, in every format.
        overwrite: Replace an existing target.

    Returns:
        The counts of the source's rows. `written` counts those in the target, `made` the target's own rows.

    Raises:
        UsageError: The source or a format is invalid, or the kinds of records are incompatible.
        FormatError: A row is invalid, or the target format cannot hold it.
        CaiError: There is nothing to write.
    """
    writer = format_named(to)
    require_suffix(target, writer)
    check_output(target, overwrite=overwrite)
    counts, read = RowCounts(), RowCounts()
    groups = read_groups(
        source,
        source_format,
        counts=read,
        template=template,
        split=split,
        columns=columns,
        drop_refused=drop_refused,
    )

    def rows() -> Iterator[Row]:
        keys: set[str] = set()
        for file, line, source_rows, record in groups:
            try:
                record = with_system(record, system_message)
                safe = guard_record(record, template, policy=policy, counts=counts, rows=len(source_rows))
                if safe is None:
                    continue
                made = [row for part in to_kind(safe, writer.kind) for row in writer.write(part, template)]
            except UsageError as error:
                unread = f"; columns that are not read: {', '.join(sorted(read.unused))}" if read.unused else ""
                raise FormatError.at(file, line, f"{error}{unread}") from error
            if not made:
                counts.skip("none of the replies is preferred", len(source_rows))
                continue
            if _loses_masks(safe, writer):
                counts.note("mask and labels left behind", len(source_rows))
            keys = keys or set(made[0])
            if made[0].keys() != keys:
                counts.note("other keys than the first row, at which the library datasets may stop", len(source_rows))
            counts.written += len(source_rows)
            counts.made += len(made)
            yield from made
        counts.rows_in = read.rows_in
        counts.skipped.update(read.skipped)
        counts.unused = read.unused
        counts.check()
        # Raises before the target is put in place.
        counts.require_written(source)

    write_rows(target, rows(), writer, overwrite=overwrite)
    return counts


def _loses_masks(record: Record, writer: Format) -> bool:
    return (
        isinstance(record, Chat)
        and writer.kind is Chat
        and writer.name != nemo.SftChat.name
        and record != Chat(record.conversation, record.dataset)
    )
