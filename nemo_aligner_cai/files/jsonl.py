# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing data files without losing a row.

Readers stream, and name the file and line of whatever they cannot read. Writers put a file in place in one step, so
that a crash leaves either the old file or the new one. A `RowCounts` accounts for every row that a command has seen.
"""

import glob
import gzip
import hashlib
import io
import os
import platform
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.files.derived_files import remove_indexes
from nemo_aligner_cai.files.gzip_reader import GZIP_ERRORS, GZIP_MAGIC, ThreadedGzipReader
from nemo_aligner_cai.files.json_items import MOST_VALUES, BrokenListError, has_too_many_values, split_list
from nemo_aligner_cai.files.output_paths import check_output

PathLike = str | os.PathLike[str]
Row = dict[str, Any]

LONGEST = 16 << 20
"""Bytes of a line, of an item of a list or of a settings file: gzip makes a thousand bytes of one."""
_BOM = b"\xef\xbb\xbf"
# Rows are short: with the default of 8 KiB, half of the time of a large file goes into system calls.
_BUFFER = 1 << 20
_MOST_COLUMNS = 20
"""Of a message about them."""
_DEEPEST = 100
"""Levels of a JSON document. Python's own recursion, in repr() or ==, fails at about 1,000, and orjson writes 254."""
_TEMPORARY_BYTES = 96
"""What a temporary name keeps of the file's own; a machine's name, a process id and 16 random digits follow."""


@dataclass
class RowCounts:
    """Where every row went: ``rows_in == written + sum(skipped.values())``, or the command is wrong.

    `skipped` counts rows by reason; a reason is a short phrase that a reader of the summary understands. `noted`
    counts what happened to rows that are kept all the same ("template tokens escaped"). `made` counts the rows of the
    output, where one row in can give several. `unused` names the columns of the input that no output has.
    `stopped_at` is the limit at which reading stopped though there were more rows.
    """

    rows_in: int = 0
    written: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])
    noted: Counter[str] = field(default_factory=Counter[str])
    made: int = 0
    unused: set[str] = field(default_factory=set[str])
    stopped_at: int | None = None

    def skip(self, reason: str, rows: int = 1) -> None:
        """Count `rows` rows that are not written, and why."""
        self.skipped[reason] += rows

    def note(self, what: str, rows: int = 1) -> None:
        """Count `rows` rows that are kept, but not as they came."""
        self.noted[what] += rows

    def check(self) -> None:
        """Raises CaiError when a row is neither written nor skipped for a reason."""
        if self.rows_in != self.written + sum(self.skipped.values()):
            raise CaiError(f"rows are unaccounted for, which is a defect of this program; please report it: {self}")

    def require_written(self, source: object) -> None:
        """Raises CaiError where nothing is written, with where the rows went."""
        if not self.written:
            raise CaiError(f"{source}: nothing is left to write: {self}")

    def merge(self, other: "RowCounts") -> None:
        """Add another file's counts to this one."""
        self.rows_in += other.rows_in
        self.written += other.written
        self.skipped.update(other.skipped)
        self.noted.update(other.noted)
        self.made += other.made
        self.unused.update(other.unused)

    def to_dict(self) -> Row:
        """As it stands in a manifest; reasons in alphabetical order, so that equal balances give equal bytes."""
        return {
            "rows_in": self.rows_in,
            "written": self.written,
            "left_out": dict(sorted(self.skipped.items())),
            "noted": dict(sorted(self.noted.items())),
            **({"made": self.made} if self.made not in (0, self.written) else {}),
            **({"unused_columns": sorted(self.unused)} if self.unused else {}),
            **({"stopped_at": self.stopped_at} if self.stopped_at else {}),
        }

    def __str__(self) -> str:
        reasons, notes = (
            ", ".join(f"{count} {what}" for what, count in sorted(counter.items()))
            for counter in (self.skipped, self.noted)
        )
        return (
            f"{self.rows_in} rows in = {self.written} written + {sum(self.skipped.values())} skipped"
            + (f" ({reasons})" if reasons else "")
            + (f"; of the written: {notes}" if notes else "")
            + (f"; {self.made} rows out" if self.made not in (0, self.written) else "")
            + (f"; more rows were not read, the limit is {self.stopped_at}" if self.stopped_at else "")
            + (f"; columns that nothing is made of: {self._columns()}" if self.unused else "")
        )

    def _columns(self) -> str:
        names = sorted(self.unused)
        more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
        return ", ".join(name[:40] for name in names[:_MOST_COLUMNS]) + more


def require_file(path: PathLike) -> Path:
    """The path of a file that can be opened for reading; raises UsageError otherwise."""
    path = Path(path)
    try:
        # Without waiting for whoever writes into a pipe.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{path}: is a folder, a file is needed")
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: is a device, a pipe or a socket; files are read more than once, save it as one")
    finally:
        os.close(opened)
    return path


@contextmanager
def open_binary(path: PathLike) -> Generator[BinaryIO, None, None]:
    """A file's bytes, unpacked where the file is gzip (told by its first bytes, not by its name)."""
    path = require_file(path)
    with path.open("rb", buffering=_BUFFER) as raw:
        packed = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        if not packed:
            yield raw
            return
        with ThreadedGzipReader(raw) as unpacked:
            yield cast(BinaryIO, io.BufferedReader(unpacked, _BUFFER))


def read_text(path: PathLike) -> str:
    """A whole UTF-8 file (gzip or not), without its byte order mark; raises UsageError when it is not UTF-8."""
    try:
        with open_binary(path) as handle:
            content = handle.read(LONGEST + 1)
            if len(content) > LONGEST:
                raise UsageError(f"{path}: has more than {LONGEST >> 20} MiB, after decompression; no settings have")
            return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except GZIP_ERRORS as error:
        raise UsageError(f"{path}: the gzip data is damaged ({error}); fetch the file again") from error


def read_json(path: PathLike) -> Any:
    """One JSON document; raises FormatError with the line where it stops being JSON."""
    text = read_text(path)
    try:
        return _loads(path, 1, text.encode())
    except orjson.JSONDecodeError as error:
        raise FormatError.at(path, error.lineno, f"not JSON: {error.msg} (column {error.colno})") from error


def _too_deep(document: object) -> bool:
    level = [document]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner += cast(Row, item).values()
            elif isinstance(item, list):
                inner += cast(list[object], item)
        if not inner:
            return False
        level = inner
    return any(isinstance(item, (dict, list)) for item in level)


def read_lines(path: PathLike) -> Generator[tuple[int, bytes], None, None]:
    """(1-based line number, line without its line end) of a file, gzip or not, without its byte order mark.

    Raises:
        UsageError: the file cannot be opened.
        FormatError: the gzip data is damaged.
    """
    number = 0
    try:
        with open_binary(path) as handle:
            while line := handle.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise FormatError.at(path, number, f"a line of more than {LONGEST >> 20} MiB; rows are shorter")
                if number == 1:
                    line = line.removeprefix(_BOM)
                yield number, line.rstrip(b"\r\n")
    except GZIP_ERRORS as error:
        raise FormatError.at(
            path, number + 1, f"the gzip data is damaged ({error}); fetch the file again, its tail is missing"
        ) from error


def read_jsonl(path: PathLike, *, allow_blank: bool = True) -> Iterator[tuple[int, Row]]:
    """(1-based line number, row) of a .jsonl, .jsonl.gz or .json file, one row in memory at a time.

    A file whose first character is ``[`` is read as one JSON list; its "line numbers" are positions in the list.

    Args:
        path: the file.
        allow_blank: False makes a blank line an error, as it is for NeMo's readers.

    Raises:
        UsageError: the file cannot be opened (at the call, not at the first row).
        FormatError: a line is not a JSON object.
    """
    return _rows(require_file(path), allow_blank=allow_blank)


def _rows(path: Path, *, allow_blank: bool) -> Iterator[tuple[int, Row]]:
    if is_json_list(path):
        for number, item in read_items(path):
            yield number, _as_row(path, number, item)
        return
    for number, line in read_lines(path):
        if not line.strip():
            if not allow_blank:
                raise FormatError.at(path, number, "a blank line; remove it, NeMo's readers stop there")
            continue
        try:
            row = _loads(path, number, line)
        except orjson.JSONDecodeError as error:
            raise FormatError.at(path, number, f"not JSON: {error.msg} (column {error.colno})") from error
        yield number, _as_row(path, number, row)


def is_json_list(path: PathLike) -> bool:
    """Whether a file's first character is ``[``; raises UsageError where it cannot be opened."""
    return next((block for block in _blocks(path) if block.strip()), b"").lstrip().startswith(b"[")


def read_items(path: PathLike) -> Iterator[tuple[int, Any]]:
    """(1-based position, item) of a file that holds a JSON list; one item is in memory at a time.

    Raises:
        UsageError: the file cannot be opened.
        FormatError: it is not JSON, or the gzip data is damaged.
    """
    line, position = 1, 0
    try:
        for line, item in split_list(_blocks(path), longest=LONGEST):
            position += 1
            yield position, _loads(path, line, item)
    except BrokenListError as error:
        raise FormatError.at(path, error.line, str(error)) from error
    except orjson.JSONDecodeError as error:
        where = line + error.lineno - 1
        raise FormatError.at(path, where, f"not JSON: {error.msg} (column {error.colno})") from error


def _loads(path: PathLike, line: int, content: bytes) -> Any:
    """JSON of bounded size and depth."""
    if has_too_many_values(content):
        raise FormatError.at(path, line, f"has more than {MOST_VALUES:,} values")
    document: object = orjson.loads(content)
    # Most rows have fewer brackets than levels are allowed, and need no walk through them.
    if content.count(b"{") + content.count(b"[") > _DEEPEST and _too_deep(document):
        raise FormatError.at(path, line, f"is nested more than {_DEEPEST} levels deep")
    return document


def _blocks(path: PathLike) -> Generator[bytes, None, None]:
    """A file, gzip or not, in blocks, without its byte order mark."""
    try:
        with open_binary(path) as handle:
            block = handle.read(_BUFFER).removeprefix(_BOM)
            while block:
                yield block
                block = handle.read(_BUFFER)
    except GZIP_ERRORS as error:
        raise FormatError.at(path, 1, f"the gzip data is damaged ({error}); fetch the file again") from error


def _as_row(path: Path, number: int, row: object) -> Row:
    if not isinstance(row, dict):
        raise FormatError.at(path, number, f"a JSON object is needed, this is a {type(row).__name__}")
    return cast(Row, row)


def to_json(obj: object, *, indent: bool = False) -> bytes:
    """JSON bytes; raises CaiError for what JSON cannot hold, such as a lone surrogate in a text."""
    try:
        return orjson.dumps(obj, option=orjson.OPT_INDENT_2 if indent else None)
    except TypeError as error:
        raise CaiError(f"cannot be written as JSON: {error}") from error


@contextmanager
def atomic_writer(path: PathLike, *, overwrite: bool = False) -> Generator[BinaryIO, None, None]:
    """A binary handle whose content takes the place of `path` when the block ends without an error.

    The permissions of a file that is replaced are kept.

    Raises:
        UsageError: as `check_output`, or the file cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        handle, temporary = _open_temporary(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(made: Path, path: Path) -> None:
    """Give a finished file its name, in one step, and the permissions and no index of the file that it replaces."""
    if path.exists():
        made.chmod(stat.S_IMODE(path.stat().st_mode))
    remove_indexes(path)
    os.replace(made, path)
    _sync_folder(path.parent)


def _open_temporary(path: Path) -> tuple[BinaryIO, Path]:
    """A new file beside `path`, under a name that nobody can foresee; never one that is there, nor through a link."""
    # Nobody reads it earlier than the file that it replaces allows.
    mode = 0o600 if path.exists() else 0o666
    temporary = path.with_name(f"{_temporary_start(path)}{os.getpid()}.{secrets.token_hex(8)}.tmp")
    created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    return os.fdopen(created, "wb", buffering=_BUFFER), temporary


def _temporary_start(path: Path) -> str:
    # A long name leaves no room for more; what is cut off makes no difference, a process id follows.
    name = os.fsencode(path.name)[:_TEMPORARY_BYTES]
    return f".{os.fsdecode(name)}.{platform.node()}."


def _remove_leftovers(path: Path) -> None:
    """Delete what writers of this file left behind that were killed, on this machine."""
    start = _temporary_start(path)
    for leftover in path.parent.glob(f"{glob.escape(start)}*.tmp"):
        pid = leftover.name.removeprefix(start).split(".")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            leftover.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def _sync_folder(folder: Path) -> None:
    # Without this the rename itself can be lost in a power cut.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def jsonl_writer(path: PathLike, *, overwrite: bool = False) -> Generator[Callable[[Row], None], None, None]:
    """A function that writes a row as a line of JSON; the file is put in place when the block ends without an error.

    Raises:
        UsageError: the file exists and `overwrite` is False.
        CaiError: a row holds what JSON cannot, with the row's number.
    """
    with atomic_writer(path, overwrite=overwrite) as raw:
        # mtime=0: equal rows give equal bytes.
        packer = gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) if str(path).endswith(".gz") else None
        target = packer or raw
        number = 0

        def write(row: Row) -> None:
            nonlocal number
            number += 1
            try:
                target.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError as error:
                raise CaiError(f"{path}: row {number} cannot be written as JSON: {error}") from error

        yield write
        if packer is not None:
            packer.close()


def write_jsonl(path: PathLike, rows: Iterable[Row], *, overwrite: bool = False) -> int:
    """Write one JSON object per line (packed where the name ends in .gz), in one step; returns the rows written.

    Raises:
        UsageError, CaiError: as `jsonl_writer`.
    """
    written = 0
    with jsonl_writer(path, overwrite=overwrite) as write:
        for row in rows:
            write(row)
            written += 1
    return written


def write_json(path: PathLike, obj: object, *, overwrite: bool = False) -> None:
    """Write one indented JSON document, in one step."""
    content = to_json(obj, indent=True) + b"\n"
    with atomic_writer(path, overwrite=overwrite) as handle:
        handle.write(content)


def sha256_file(path: PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with require_file(path).open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(obj: object, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `obj` as JSON with sorted keys.

    The same content gives the same name on every machine, in every process and in any order of keys.
    """
    try:
        canonical = orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise CaiError(f"has no content hash: {error}") from error
    return hashlib.sha256(canonical).hexdigest()[:length]
