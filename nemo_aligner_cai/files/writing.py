# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Atomic writers of files, JSON lines and JSON: a crash leaves either the old file or the new one."""

import glob
import gzip
import io
import os
import platform
import secrets
import stat
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files.nemo_indexes import remove_indexes
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.files.reading import NamedFile, PathLike, Row

_BUFFER = 1 << 20
_TEMPORARY_BYTES = 96
"""The bytes of a file's name that its temporary name keeps; a host name, a process id and random digits follow."""


@contextmanager
def atomic_writer(path: PathLike, *, overwrite: bool = False) -> Generator[BinaryIO, None, None]:
    """Open a binary handle whose content replaces `path` if the block ends without an error.

    A file that is replaced passes on its permissions.

    Raises:
        UsageError: as for `check_output`, or the file cannot be created.
        CaiError: the file cannot be written, such as on a full disk.
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
            with _naming(path):
                os.fsync(handle.fileno())
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(made: Path, path: Path) -> None:
    """Rename a finished file to `path`, with the permissions of the file there, and remove that file's indexes.

    Raises CaiError if that fails.
    """
    with _naming(path):
        if path.exists():
            made.chmod(stat.S_IMODE(path.stat().st_mode))
        remove_indexes(path)
        os.replace(made, path)
        _sync_folder(path.parent)


@contextmanager
def _naming(path: Path) -> Generator[None, None, None]:
    """Name the file that is written in the system's errors."""
    try:
        yield
    except OSError as error:
        raise CaiError(f"{path}: cannot be written: {error.strerror or error}") from error


def _open_temporary(path: Path) -> tuple[BinaryIO, Path]:
    """Create a file in the folder of `path` under a random name; fails for an existing file or a link."""
    # The content must not be readable before the permissions of the replaced file apply.
    mode = 0o600 if path.exists() else 0o666
    temporary = path.with_name(f"{_temporary_start(path)}{os.getpid()}.{secrets.token_hex(8)}.tmp")
    created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    return io.BufferedWriter(NamedFile(created, "wb", path), _BUFFER), temporary


def _temporary_start(path: Path) -> str:
    # Shortened, since the longest file name leaves no room for a suffix.
    name = os.fsencode(path.name)[:_TEMPORARY_BYTES]
    return f".{os.fsdecode(name)}.{platform.node()}."


def _remove_leftovers(path: Path) -> None:
    """Delete the temporary files of killed writers of this file on this machine."""
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
        pass  # a process of another user
    return True


def _sync_folder(folder: Path) -> None:
    # Without this, a power cut can undo the rename.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def jsonl_writer(path: PathLike, *, overwrite: bool = False) -> Generator[Callable[[Row], None], None, None]:
    """A function that writes a row as a line of JSON, compressed if the name ends in .gz; atomic.

    Raises:
        UsageError: as for `atomic_writer`.
        CaiError: a row cannot be written as JSON; the message has the row's number.
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
    """Write one JSON object per line with `jsonl_writer`; returns the number of rows."""
    written = 0
    with jsonl_writer(path, overwrite=overwrite) as write:
        for row in rows:
            write(row)
            written += 1
    return written


def to_json(obj: object, *, indent: bool = False) -> bytes:
    """Encode as JSON; raises CaiError for values that JSON cannot represent, such as a lone surrogate."""
    try:
        return orjson.dumps(obj, option=orjson.OPT_INDENT_2 if indent else None)
    except TypeError as error:
        raise CaiError(f"cannot be written as JSON: {error}") from error


def write_json(path: PathLike, obj: object, *, overwrite: bool = False) -> None:
    """Write one indented JSON document, atomically."""
    content = to_json(obj, indent=True) + b"\n"
    with atomic_writer(path, overwrite=overwrite) as handle:
        handle.write(content)


def write_json_list(path: PathLike, rows: Iterable[Row], *, overwrite: bool = False) -> None:
    """Write one indented JSON list, atomically and in constant memory: the format of upstream's long lists."""
    with atomic_writer(path, overwrite=overwrite) as handle:
        handle.write(b"[")
        for number, row in enumerate(rows):
            handle.write(b",\n" if number else b"\n")
            handle.write(orjson.dumps(row, option=orjson.OPT_INDENT_2))
        handle.write(b"\n]\n")
