# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai validate FILE...`: check the rows of data files, and predict how many of them a trainer uses."""

import argparse
import shlex
import sys
from pathlib import Path

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.shared_flags import add_tokenizer_flags, requested_tokenizer
from nemo_aligner_cai.commands.common.terminal import note_line, write_line
from nemo_aligner_cai.console.printable import error_line
from nemo_aligner_cai.data.formats.all_formats import detect_format, format_named
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.data.formats.nemo import Kto, PpoPrompts, RegressionRm, RmComparisons, SftChat
from nemo_aligner_cai.data.formats.row_values import describe_keys
from nemo_aligner_cai.data.length import LIMITS, predict_use
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.errors import FormatError, NotJsonError, NotUtf8Error, UsageError
from nemo_aligner_cai.files.reading import is_json_list
from nemo_aligner_cai.files.sources import data_files, file_kind, is_parquet, read_rows

_TRAINED = (SftChat, RmComparisons, PpoPrompts, Kto, RegressionRm)
"""The format of each kind of record that NeMo's trainers read."""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai validate`."""
    parser.epilog = (
        "Exit code: 0 if all rows of all files can be used, 1 if some cannot, 2 if nothing could be checked."
    )
    parser.examples = (
        "cai validate sl_cai.jsonl",
        "cai validate sl_cai.jsonl --tokenizer tokenizer.model --seq-length 4096",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a data file")
    parser.add_argument("--as", dest="format", metavar="FORMAT", help="the format of the files (default: detected)")
    add_tokenizer_flags(parser, "to predict which rows the trainer uses")


def run(args: argparse.Namespace) -> int:
    """Validate each file; returns 1 if a row is invalid, or cannot be used by a trainer."""
    tokenizer = requested_tokenizer(args)
    valid = True
    for file in args.files:
        try:
            line, all_used = _validate(file, args.format, tokenizer, args)
        except FormatError as error:
            sys.stderr.write(error_line(error))
            note_line(_advice(file, args.format, error))
            valid = False
            continue
        write_line(line)
        if not all_used:
            note_line(
                "trainers skip, cut, replace or stop at rows that they cannot use; drop them first with "
                "cai convert --tokenizer --seq-length"
            )
            valid = False
    return 0 if valid else 1


def _advice(file: str, format_name: str | None, error: FormatError) -> str:
    """The type and format of a file, and the command that makes a valid one of it."""
    stored = _stored_as(Path(file))
    if isinstance(error, NotUtf8Error):
        command = shlex.join(["iconv", "-f", "latin1", "-t", "utf-8", file])
        return (
            f"{file} is {stored}; if it is in Latin-1: {command} > {shlex.quote(_new_name(file, Path(file).suffix))}"
        )
    try:
        name = format_name or detect_format(file)
    except FormatError:
        return _columns_advice(file)
    read_as = f"{file} is {stored}, and its rows are {name}"
    if isinstance(error, NotJsonError) and stored == "JSON lines":
        without = shlex.join(["sed", f"{error.line}d", file])
        return f"{read_as}; without line {error.line}: {without} > {shlex.quote(_new_name(file))}"
    if isinstance(error, NotJsonError):
        return f"{read_as}; it must be JSON as a whole: save it again with the program that wrote it"
    is_row = stored == "JSON lines" or name not in (format.name for format in _TRAINED)
    if error.line is not None and is_row:
        return f"{read_as}; without the rows that cannot be used: {_conversion(file, name)} --drop-refused"
    return f"{read_as}; as lines of JSON: {_conversion(file, name)}"


def _columns_advice(file: str) -> str:
    """The advice for a file whose format is not known."""
    stored = f"{file} is {_stored_as(Path(file))}"
    try:
        row = next((row for path in data_files(file) for _, row in read_rows(path)), None)
    except FormatError:
        return f"{stored}, whose first row cannot be read"
    if row is None:
        return f"{stored}, without a row"
    texts = [name for name, value in row.items() if isinstance(value, str)]
    column = max(texts, key=lambda name: len(row[name]), default="NAME")
    command = ["cai", "convert", file, _new_name(file), "--to", PpoPrompts.name, "--prompt-column", column]
    return (
        f"{stored}, with the columns {describe_keys(row)}; if {column!r} has the prompts: "
        f"{shlex.join(command)}; for conversations or pairs, rename the columns to those of a format of "
        "`cai components formats`"
    )


def _conversion(file: str, name: str) -> str:
    """The command that converts a file to the format of the same kind that NeMo's trainers read."""
    format = format_named(name)
    target = name
    if format.read_only:
        target = next((one.name for one in _TRAINED if one.kind is format.kind), SftChat.name)
    new = _new_name(file, format_named(target).suffix)
    return shlex.join(["cai", "convert", file, new, "--to", target, *(["--from", name] if format.read_only else [])])


def _new_name(file: str, suffix: str = ".jsonl") -> str:
    path = Path(file)
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    new = path.with_name(f"{stem}{suffix}")
    return str(new if new != path else path.with_name(f"{stem}_valid{suffix}"))


def _stored_as(path: Path) -> str:
    """The type of a file, as it is read."""
    if not path.is_file():
        return "a folder" if path.is_dir() else "a data set"
    if is_parquet(path):
        return "parquet"
    packed = "packed by gzip, " if path.name.lower().endswith(".gz") else ""
    kind = file_kind(path)
    if kind in ("csv", "txt"):
        return packed + {"csv": "CSV", "txt": "lines of text"}[kind]
    return packed + ("one JSON list" if is_json_list(path) else "JSON lines")


def _validate(
    file: str, format_name: str | None, tokenizer: Tokenizer | None, args: argparse.Namespace
) -> tuple[str, bool]:
    """Return the result in one line, and whether a trainer can use all rows."""
    name = format_name or detect_format(file)
    counts = validate_file(file, name)
    line = f"{file}: {name}, {counts.rows_in} rows, all of them valid{counts.unused_text}"
    if format_named(name).read_only:
        line += f"; no trainer reads this format, convert it with `{_conversion(file, name)}`"
    if tokenizer is None:
        return line, True
    if name not in LIMITS:
        raise UsageError(f"{file}: token limits are known for {', '.join(LIMITS)}, not for {name}")
    lengths = {"seq_length": args.seq_length, "response_length": args.response_length}
    use = predict_use(file, name, tokenizer=tokenizer, **lengths)
    return f"{line}; {use}", not use.skipped
