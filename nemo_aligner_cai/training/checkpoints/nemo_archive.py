# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A .nemo file, which is a tar archive of a stranger: its names and its small files, and a safe way to unpack it.

NeMo unpacks what it is given into the temporary folder, links included. So every archive is read to its end first, a
compressed one as a stream.
"""

from __future__ import annotations

import functools
import gzip
import logging
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.config import one_line

_log = logging.getLogger(__name__)
_KEPT_BYTES = 16 << 20
"""A configuration or a tokenizer has less."""


@dataclass(frozen=True)
class Archive:
    """What is in an archive.

    Attributes:
        names: of its files, without "./".
        small: contents of those that are in no folder and not large.
    """

    names: frozenset[str]
    small: dict[str, bytes]


def read(path: Path) -> Archive:
    """The names and small files of a .nemo archive, all of whose members have been looked at.

    Raises:
        UsageError: it is no archive, or cut short; a member is a link, a device, sparse, outside the archive's folder
            or there twice; or it would fill the disk.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error
    return _read(path, (status.st_ino, status.st_size, status.st_mtime_ns))


def unpack(path: Path, folder: Path) -> None:
    """Extract an archive; raises as `read`, and UsageError for what cannot be written."""
    try:
        read(path)
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{path} cannot be unpacked: {one_line(error)}") from error


class _Bounded:
    """A file of which only small pieces are read: tarfile reads a header whole, whatever its length.

    Attributes:
        seek, tell: the file's.
    """

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _KEPT_BYTES:
            raise UsageError(f"{self._path}: a header has {size} bytes: no .nemo model has such")
        return self._file.read(size)


@functools.lru_cache(maxsize=8)
def _read(path: Path, _: tuple[int, ...]) -> Archive:
    names: set[str] = set()
    small: dict[str, bytes] = {}
    size, free = 0, shutil.disk_usage(tempfile.gettempdir()).free
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        if compressed:
            _log.info("%s is compressed and read whole, for its check; gunzip makes one that starts faster", path)
        # These are the two forms that NeMo reads.
        with (
            gzip.open(path) if compressed else path.open("rb") as file,
            tarfile.open(fileobj=cast(BinaryIO, _Bounded(file, path)), mode="r:") as archive,
        ):
            for member in archive:
                name = _checked(member, path)
                if member.isdir():
                    continue
                if name in names:
                    raise UsageError(f"{path}: its member {member.name!r} is there twice: no .nemo model has such")
                names.add(name)
                size += member.size
                if size > free:
                    raise UsageError(
                        f"{path}: unpacked it has {size >> 20:,} MiB or more, and {tempfile.gettempdir()}, where NeMo "
                        f"unpacks it, has {free >> 20:,} MiB free; set TMPDIR to a folder with more"
                    )
                if member.size <= _KEPT_BYTES and "/" not in name and (content := archive.extractfile(member)):
                    small[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        why = (
            "cannot be read to its end: copy or download it again" if names else "is not a .nemo model (a tar archive)"
        )
        raise UsageError(f"{path} {why}: {one_line(error)}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error
    return Archive(frozenset(names), small)


def _checked(member: tarfile.TarInfo, path: Path) -> str:
    name = PurePosixPath(member.name)
    plain = member.isdir() or (member.isfile() and not member.issparse() and member.size >= 0)
    if name.is_absolute() or ".." in name.parts or not plain:
        raise UsageError(
            f"{path}: its member {member.name!r} is a link, a device, sparse or outside the archive's folder: no "
            ".nemo model has such"
        )
    return str(name)
