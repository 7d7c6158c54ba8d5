# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What can be done with a file of any format: read, validate, write, convert."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate, TokenPolicy
from nemo_aligner_cai.data.formats import nemo
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.columns import ColumnChoice, carry
from nemo_aligner_cai.data.formats.guard import guard_record
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.formats.table import FORMATS, PluginError, detect_format, format_named
from nemo_aligner_cai.data.formats.writers import require_suffix, write_rows
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Record, to_kind, with_system
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, require_file
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.files.sources import DataFile, data_files, is_parquet, read_rows

__all__ = [
    "FORMATS",
    "Group",
    "comparison_rows",
    "convert_file",
    "detect_format",
    "format_named",
    "prompt_row",
    "read_groups",
    "read_records",
    "require_plain_lines",
    "require_readable",
    "sft_row",
    "validate_file",
    "write_records",
]

_NEMO_FORMATS = tuple(name for name, format in FORMATS.items() if type(format).__module__ == nemo.__name__)


def sft_row(conversation: Conversation, *, dataset: str | None = None) -> Row:
    """The SFT row of a conversation that ends with the assistant."""
    return FORMATS["sft-chat"].write(Chat(conversation, dataset), NEMO_CHAT)[0]


def comparison_rows(
    prompt: Conversation,
    *,
    chosen: str,
    rejected: str,
    dataset: str | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
) -> tuple[Row, Row]:
    """The two lines of a comparison: the chosen reply's, then the rejected one's."""
    rows = FORMATS["rm-comparisons"].write(Comparison(prompt, chosen, rejected, dataset), template)
    return rows[0], rows[1]


def prompt_row(
    conversation: Conversation, *, dataset: str | None = None, template: NemoChatTemplate = NEMO_CHAT
) -> Row:
    """The PPO row of a conversation that ends with a user turn."""
    return FORMATS["ppo-prompts"].write(PromptOnly(conversation, dataset), template)[0]


def read_records(
    source: PathLike,
    format_name: str | None = None,
    *,
    counts: RowCounts,
    template: NemoChatTemplate = NEMO_CHAT,
    strict: bool = False,
    split: str = "train",
    columns: ColumnChoice | None = None,
) -> Iterator[Record]:
    """The records of a source, one at a time.

    Args:
        source: a file, a folder or a data set on the hub, see `nemo_aligner_cai.files.sources`.
        format_name: its format; None to detect it.
        counts: receives the rows read, those yielded as written (two for a pair of lines), and those left out.
        template: of the formats that hold rendered text.
        strict: refuse blank lines, and rows that a lenient format would leave out.
        split: of a folder or data set that has splits, the one to read.
        columns: those to ignore, or the one of the prompts.

    Raises:
        UsageError: the source cannot be read.
        FormatError: a row is wrong, or says what its format does not read, with line, key and fix; or there are none.
    """
    groups = read_groups(
        source, format_name, counts=counts, template=template, strict=strict, split=split, columns=columns
    )
    return (group.record for group in groups)


class Group(NamedTuple):
    """The rows of one record, as they stand in a file."""

    file: DataFile
    line: int
    """Of the first row."""
    rows: Sequence[Row]
    record: Record


def read_groups(
    source: PathLike,
    format_name: str | None = None,
    *,
    counts: RowCounts,
    template: NemoChatTemplate = NEMO_CHAT,
    strict: bool = False,
    split: str = "train",
    columns: ColumnChoice | None = None,
    drop_refused: bool = False,
) -> Iterator[Group]:
    """The records of a source with their rows; arguments and errors as those of `read_records`.

    With `drop_refused`, the rows of every format are left out and counted where they are wrong.
    """
    format = format_named(format_name or detect_format(source, split=split, columns=columns))
    read = _Reading(format, template, strict, columns or ColumnChoice(), format.lenient or drop_refused)
    return (group for file in data_files(source, split) for group in _groups(file, read, counts=counts))


@dataclass(frozen=True)
class _Reading:
    """How rows are read."""

    format: Format
    template: NemoChatTemplate
    strict: bool
    columns: ColumnChoice
    lenient: bool

    def record(self, rows: Sequence[Row], unused: set[str]) -> Record:
        """The record of a group of rows, with what other columns say."""
        chosen: list[Row] = []
        for row in rows:
            row, ignored = self.columns.apply(row)
            chosen.append(row)
            unused |= ignored
        record = self.format.read(chosen, self.template)
        known = self.format.known_keys(chosen[0])
        return record if known is None else carry(record, chosen, known, unused=unused, strict=self.strict)


def _groups(file: DataFile, read: _Reading, *, counts: RowCounts) -> Iterator[Group]:
    format = read.format
    lines: list[int] = []
    rows: list[Row] = []
    line = 0
    for line, row in read_rows(file, allow_blank=not read.strict):
        lines.append(line)
        rows.append(row)
        counts.rows_in += 1
        if len(rows) < format.group:
            continue
        try:
            record = read.record(rows, counts.unused)
        except UsageError as error:
            if not read.lenient or read.strict or isinstance(error, PluginError):
                position = error.position if isinstance(error, RowError) else 0
                raise FormatError.at(file, lines[position], str(error)) from error
            counts.skip(str(error), format.group)
        else:
            counts.written += format.group
            yield Group(file, lines[0], rows, record)
        lines, rows = [], []
    if rows:
        raise FormatError.at(
            file, line, f"the file has an odd number of rows; {format.name} takes {format.group} rows a record"
        )
    if not line:
        raise FormatError(f"{file}: has no rows")


def validate_file(
    path: PathLike, format_name: str | None = None, *, template: NemoChatTemplate = NEMO_CHAT
) -> RowCounts:
    """Check that a trainer can read every row as it is meant.

    Raises:
        UsageError: the file cannot be read.
        FormatError: the first row that is wrong, with line, key and mend, or there are none.
    """
    name = format_name or detect_format(path)
    require_readable(path, format_named(name))
    counts = RowCounts()
    for _ in read_records(path, name, counts=counts, template=template, strict=True):
        pass
    counts.check()
    return counts


def require_readable(path: PathLike, format: Format) -> None:
    """Raises FormatError where the format's trainer does not read such a file, whatever rows it has."""
    if format.name in _NEMO_FORMATS:
        require_plain_lines(path)
    elif (format.suffix == ".parquet") != (Path(path).is_file() and is_parquet(Path(path))):
        there, wanted = ("parquet", "JSON lines") if format.suffix != ".parquet" else ("not parquet", "parquet")
        raise FormatError(f"{path}: is {there}, {format.name} is read from {wanted}; use `cai convert`")


def require_plain_lines(path: PathLike) -> None:
    """Raises FormatError unless the file is one JSON object per line in plain UTF-8, which is all that NeMo reads."""
    with require_file(path).open("rb") as handle:
        start = handle.readline()
    if start.startswith(b"\x1f\x8b"):
        raise FormatError(f"{path}: is packed with gzip, which NeMo does not read; unpack it with gunzip")
    if start.startswith(b"PAR1"):
        raise FormatError(f"{path}: is parquet, NeMo needs one JSON object per line; use `cai convert`")
    if start.startswith(b"\xef\xbb\xbf"):
        raise FormatError.at(path, 1, "starts with a byte order mark, at which NeMo stops; save it as UTF-8 without")
    if start.lstrip().startswith(b"["):
        raise FormatError.at(path, 1, "is one JSON list; NeMo needs one object per line, use `cai convert`")


def write_records(
    path: PathLike,
    records: Iterable[Record],
    format_name: str,
    *,
    template: NemoChatTemplate = NEMO_CHAT,
    overwrite: bool = False,
) -> int:
    """Write records, all of the format's kind; returns the rows written."""
    format = format_named(format_name)
    rows = (row for record in records for row in format.write(record, template))
    return write_rows(path, rows, format, overwrite=overwrite)


def convert_file(
    source: PathLike,
    target: PathLike,
    *,
    to: str,
    source_format: str | None = None,
    template: NemoChatTemplate = NEMO_CHAT,
    policy: TokenPolicy = TokenPolicy.ESCAPE,
    split: str = "train",
    system_message: str = "",
    columns: ColumnChoice | None = None,
    drop_refused: bool = False,
    overwrite: bool = False,
) -> RowCounts:
    """Write a source's records in another format; says less where the other format holds less.

    Args:
        source: what to read, see `nemo_aligner_cai.files.sources`.
        target: the file to write; JSON lines are packed where its name ends in .gz.
        to: the format to write.
        source_format: the format to read; None to detect it.
        template: of the formats that hold rendered text.
        policy: what to do with texts that contain the template's tokens.
        split: of a folder or data set that has splits, the one to read.
        system_message: of the conversations that have none.
        columns: of the source, those to ignore, or the one of the prompts.
        drop_refused: leave rows out that are wrong or say what cannot be carried, and count them.
        overwrite: whether an existing target may be replaced.

    Returns:
        Where the source's rows went; "written" counts the rows whose records are in the target, "made" its own rows.

    Raises:
        UsageError: a source or format is wrong, or the target's kind of record cannot be made from the source's.
        FormatError: a source row is wrong, or says what the target format cannot hold.
        CaiError: there is nothing to write.
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
        for file, line, taken, record in groups:
            try:
                whole = with_system(record, system_message)
                safe = guard_record(whole, template, policy=policy, counts=counts, rows=len(taken))
                if safe is None:
                    continue
                made = [row for part in to_kind(safe, writer.kind) for row in writer.write(part, template)]
            except UsageError as error:
                unread = f"; columns that are not read: {', '.join(sorted(read.unused))}" if read.unused else ""
                raise FormatError.at(file, line, f"{error}{unread}") from error
            if not made:
                counts.skip("none of the replies is preferred", len(taken))
                continue
            if _leaves_masks_behind(safe, writer):
                counts.note("mask and labels left behind", len(taken))
            keys = keys or set(made[0])
            if made[0].keys() != keys:
                counts.note("other keys than the first row, at which the library datasets may stop", len(taken))
            counts.written += len(taken)
            counts.made += len(made)
            yield from made
        counts.rows_in = read.rows_in
        counts.skipped.update(read.skipped)
        counts.unused = read.unused
        counts.check()
        # Raised before the target is put in place.
        counts.require_written(source)

    write_rows(target, rows(), writer, overwrite=overwrite)
    return counts


def _leaves_masks_behind(record: Record, writer: Format) -> bool:
    return (
        isinstance(record, Chat)
        and writer.kind is Chat
        and writer.name != nemo.SftChat.name
        and record != Chat(record.conversation, record.dataset)
    )
