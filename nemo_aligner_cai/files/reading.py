# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of JSON lines, JSON and text, gzip or not. They stream, and name the file and line of every error.

gzip is detected by a file's first bytes, not by its name. Sizes and nesting are bounded, since a gzip file can
decompress to a thousand times its size.
"""

import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import orjson

from nemo_aligner_cai.errors import CaiError, FormatError, NotHere, NotJsonError, NotUtf8Error, UsageError
from nemo_aligner_cai.files.json_items import MAX_VALUES, BrokenListError, has_too_many_values, split_list

PathLike = str | os.PathLike[str]
Row = dict[str, Any]

MAX_ROW_BYTES = 16 << 20
"""The most bytes of a line, of an item of a list, or of a settings file."""
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)
"""The errors of reading damaged gzip data."""
_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
# With the default of 8 KiB, system calls take half of the time of reading a large file of short rows.
_BUFFER = 1 << 20
_MAX_DEPTH = 100
"""Levels of a JSON document: Python's recursion, in repr() or ==, fails at about 1,000, and orjson writes 254."""


def is_object(path: PathLike) -> bool:
    """True for the URL of an object store, also as a pathlib path, which has one slash."""
    return str(path).startswith(("s3:/", "gs:/"))


def require_file(path: PathLike) -> Path:
    """The path of a readable regular file; raises UsageError otherwise, NotHere if it does not exist."""
    if is_object(path):
        raise UsageError(
            f"{path}: object stores are read by cai data sl-cai, cai data rl-cai and the section data of cai run; "
            "copy the file to this machine first"
        )
    path = Path(path)
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotHere(f"{path}: cannot be read: {error.strerror}", path) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path}: is a folder, a file is needed")
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is a device, a pipe or a socket; save it as a file, files are read repeatedly")
    finally:
        os.close(opened)
    return path


class NamedFile(io.FileIO):
    """A file whose errors of reading and writing name it: those of the system, such as a full disk, do not.

    Raises:
        CaiError: by `write`.
        UsageError: by the other methods.
    """

    def __init__(self, file: PathLike | int, mode: str, path: PathLike) -> None:
        super().__init__(file, mode)
        self._path = path

    def readinto(self, buffer: Any, /) -> int | None:
        """Read into a buffer."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise UsageError(f"{self._path}: cannot be read: {error.strerror or error}") from error

    def readall(self) -> bytes:
        """Read to the end."""
        try:
            return super().readall()
        except OSError as error:
            raise UsageError(f"{self._path}: cannot be read: {error.strerror or error}") from error

    def write(self, data: Any, /) -> int | None:
        """Write some of the data."""
        try:
            return super().write(data)
        except OSError as error:
            raise CaiError(f"{self._path}: cannot be written: {error.strerror or error}") from error


def open_stored(path: PathLike) -> io.BufferedReader:
    """Open a file for reading its bytes as they are stored; raises UsageError as `require_file` does."""
    return io.BufferedReader(NamedFile(require_file(path), "rb", path), _BUFFER)


@contextmanager
def open_binary(path: PathLike) -> Generator[io.BufferedReader | gzip.GzipFile, None, None]:
    """Open a file for reading bytes, decompressed if it is gzip."""
    with open_stored(path) as raw:
        is_gzip = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        # GzipFile without another buffer: damage is reported after the lines in front of it.
        yield gzip.GzipFile(fileobj=raw) if is_gzip else raw


def damaged_gzip(path: PathLike, line: int, error: Exception) -> FormatError:
    """The error of a file whose gzip data raised `error` at a line."""
    return FormatError.at(path, line, f"the gzip data is damaged ({error}); download the file again")


def read_text(path: PathLike) -> str:
    """Read a UTF-8 file without its byte order mark; raises UsageError if it is not UTF-8 or too large."""
    try:
        with open_binary(path) as handle:
            content = handle.read(MAX_ROW_BYTES + 1)
            if len(content) > MAX_ROW_BYTES:
                raise UsageError(f"{path}: has more than {MAX_ROW_BYTES >> 20} MiB, too much for a settings file")
            return decoded(path, 1, content.removeprefix(_BOM))
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, 1, error) from error


def decoded(path: PathLike, line: int, content: bytes) -> str:
    """Decode text that starts on `line`; raises NotUtf8Error if it is not UTF-8, or looks like UTF-16."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + content.count(b"\n", 0, error.start)
        raise NotUtf8Error.at(path, at, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    require_no_nul(path, line, text)
    return text


def require_no_nul(path: PathLike, line: int, text: str) -> None:
    """Raises NotUtf8Error for text with NUL characters: English in UTF-16 is UTF-8 with a NUL after each letter."""
    if (at := text.find("\0")) >= 0:
        where = line + text.count("\n", 0, at)
        raise NotUtf8Error.at(path, where, "has a NUL character: it may be UTF-16, or damaged; save it as UTF-8")


def read_json(path: PathLike) -> Any:
    """Read one JSON document; raises FormatError, with the line, if it is not JSON."""
    return _loads(path, 1, read_text(path).encode())


def read_unique_json(path: PathLike) -> Any:
    """Read a JSON document that people write: also raises FormatError if an object has a key twice, as YAML's reader.

    JSON's readers keep the last value alone, so that a principle or a reply would be lost.
    """
    text = read_text(path)
    document = _loads(path, 1, text.encode())
    if (key := _repeated_key(text)) is not None:
        raise FormatError(f"{path}: {_TWICE.format(key)}")
    return document


_TWICE = "the key {!r} is given twice in one object; rename or remove one"


def _repeated_key(text: str | bytes) -> str | None:
    """The beginning of a key that an object of a JSON document has twice; None without one."""
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> None:
        keys = set[str]()
        for key, _ in pairs:
            if key in keys:
                repeated.append(key[:40])
            keys.add(key)

    # The texts of numbers suffice: Python refuses to convert very long ones.
    json.loads(text, object_pairs_hook=collect, parse_int=str)
    return repeated[0] if repeated else None


def read_lines(path: PathLike) -> Generator[tuple[int, bytes], None, None]:
    """Yield (1-based line number, line without its line end), without the byte order mark.

    Raises:
        UsageError: the file cannot be opened.
        FormatError: the gzip data is damaged, or a line is too long.
    """
    number = 0
    try:
        with open_binary(path) as handle:
            while line := handle.readline(MAX_ROW_BYTES + 1):
                number += 1
                if len(line) > MAX_ROW_BYTES:
                    raise FormatError.at(path, number, f"a line of more than {MAX_ROW_BYTES >> 20} MiB")
                if number == 1:
                    line = line.removeprefix(_BOM)
                yield number, line.rstrip(b"\r\n")
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, number + 1, error) from error


def read_jsonl(path: PathLike, *, strict: bool = False) -> Iterator[tuple[int, Row]]:
    """Yield (1-based line number, row) of a .jsonl, .jsonl.gz or .json file.

    A file whose first character is ``[`` is read as one JSON list; its numbers are positions in the list.

    Args:
        path: the file.
        strict: refuse blank lines, as NeMo's readers do, and keys that an object has twice, of which the last would
            be read. This takes several times as long.

    Raises:
        UsageError: the file cannot be opened (at the call, not at the first row).
        FormatError: a line is not a JSON object.
    """
    return _rows(require_file(path), strict=strict)


def _rows(path: Path, *, strict: bool) -> Iterator[tuple[int, Row]]:
    if is_json_list(path):
        for number, item in read_items(path, strict=strict):
            yield number, _as_row(path, number, item)
        return
    for number, line in read_lines(path):
        if line.strip():
            yield number, _as_row(path, number, _loads(path, number, line, strict=strict))
        elif strict:
            raise FormatError.at(path, number, "a blank line; remove it, NeMo's readers stop there")


def is_json_list(path: PathLike) -> bool:
    """True if a file's first character is ``[``; raises UsageError if it cannot be opened."""
    return next((block for block in _blocks(path) if block.strip()), b"").lstrip().startswith(b"[")


def read_items(path: PathLike, *, strict: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield (1-based position, item) of a JSON list; one item is in memory at a time. For `strict`, see `read_jsonl`.

    Raises:
        UsageError: the file cannot be opened.
        FormatError: it is not JSON, or the gzip data is damaged.
    """
    try:
        for position, (line, item) in enumerate(split_list(_blocks(path), max_bytes=MAX_ROW_BYTES), start=1):
            yield position, _loads(path, line, item, strict=strict)
    except BrokenListError as error:
        raise FormatError.at(path, error.line, str(error)) from error


def _loads(path: PathLike, line: int, content: bytes, *, strict: bool = False) -> Any:
    """Parse JSON of bounded size and depth, starting on `line`; raises FormatError. See `read_jsonl` for `strict`."""
    if has_too_many_values(content):
        raise FormatError.at(path, line, f"has more than {MAX_VALUES:,} values")
    try:
        document: object = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        decoded(path, line, content)
        where = line + error.lineno - 1
        raise NotJsonError.at(path, where, f"not JSON: {error.msg} (column {error.colno})") from error
    # Most rows have too few brackets to be too deep.
    if content.count(b"{") + content.count(b"[") > _MAX_DEPTH and _is_too_deep(document):
        raise FormatError.at(path, line, f"is nested more than {_MAX_DEPTH} levels deep")
    if strict and (key := _repeated_key(content)) is not None:
        raise NotJsonError.at(path, line, _TWICE.format(key))
    return document


def _is_too_deep(document: object) -> bool:
    level = [document]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += cast(Row, item).values()
            elif isinstance(item, list):
                inner += cast(list[object], item)
        level = inner
    return any(isinstance(item, (dict, list)) for item in level)


def _blocks(path: PathLike) -> Generator[bytes, None, None]:
    """The bytes of a file in blocks, without the byte order mark."""
    try:
        with open_binary(path) as handle:
            # read1(): damage later in the file is reported after the blocks in front of it.
            block = handle.read1(_BUFFER)
            # A gzip file may hold the byte order mark alone in its first member.
            block = block.removeprefix(_BOM) or handle.read1(_BUFFER)
            while block:
                yield block
                block = handle.read1(_BUFFER)
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, 1, error) from error


def _as_row(path: Path, number: int, row: object) -> Row:
    if not isinstance(row, dict):
        raise FormatError.at(path, number, f"a JSON object is needed, got {type(row).__name__}")
    return cast(Row, row)
