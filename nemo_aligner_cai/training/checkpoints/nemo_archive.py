# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reading .nemo archives from untrusted sources: the list of files, the small files, and safe extraction.

NeMo extracts an archive, links included, into the temporary folder. So every member is checked first; a compressed
archive is decompressed as a stream.
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

from nemo_aligner_cai.errors import UsageError, one_line
from nemo_aligner_cai.files import require_file

_log = logging.getLogger(__name__)
MODEL_CONFIG = "model_config.yaml"
_SMALL_BYTES = 16 << 20
"""Configurations and tokenizers are smaller."""


@dataclass(frozen=True)
class Archive:
    """The contents of a .nemo model.

    Attributes:
        names: its files, without a leading "./".
        small: the contents of small files at the top level; of an extracted archive, the configuration alone.
    """

    names: frozenset[str]
    small: dict[str, bytes]


def read(path: Path) -> Archive:
    """Check all members of a .nemo archive; an extracted one is only listed.

    Raises:
        UsageError: the file is not an archive or is truncated; a member is a link, a device, sparse, a duplicate or
            outside the archive's folder; or the archive would fill the disk.
    """
    try:
        if path.is_dir():
            files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
            small = {MODEL_CONFIG: files[MODEL_CONFIG].read_bytes()} if MODEL_CONFIG in files else {}
            return Archive(frozenset(files), small)
        status = require_file(path).stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error
    return _read(path, (status.st_ino, status.st_size, status.st_mtime_ns))


def unpack(path: Path, folder: Path) -> None:
    """Extract an archive; raises UsageError like `read`, and if a file cannot be written."""
    read(path)
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{path} cannot be unpacked: {one_line(error)}") from error


class _BoundedReader:
    """A file that limits the size of each read: tarfile reads a header at once, whatever its length.

    Attributes:
        seek, tell: the methods of the file.
    """

    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _SMALL_BYTES:
            raise UsageError(f"{self._path}: a header has {size} bytes; this is not a valid .nemo model")
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
            _log.info("%s is compressed, and is decompressed to check it; gunzip makes one that starts faster", path)
        # NeMo reads these two forms.
        with (
            gzip.open(path) if compressed else path.open("rb") as file,
            tarfile.open(fileobj=cast(BinaryIO, _BoundedReader(file, path)), mode="r:") as archive,
        ):
            for member in archive:
                name = _checked_name(member, path)
                if member.isdir():
                    continue
                if name in names:
                    raise UsageError(f"{path}: it has two members {member.name!r}; this is not a valid .nemo model")
                names.add(name)
                size += member.size
                if size > free:
                    raise UsageError(
                        f"{path}: unpacked it has at least {size >> 20:,} MiB, and {tempfile.gettempdir()}, where "
                        f"NeMo unpacks it, has {free >> 20:,} MiB free; set TMPDIR to a folder with more space"
                    )
                if member.size <= _SMALL_BYTES and "/" not in name and (content := archive.extractfile(member)):
                    small[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = (
            "cannot be read to its end: copy or download it again" if names else "is not a .nemo model (a tar archive)"
        )
        raise UsageError(f"{path} {reason}: {one_line(error)}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from error
    return Archive(frozenset(names), small)


def _checked_name(member: tarfile.TarInfo, path: Path) -> str:
    name = PurePosixPath(member.name)
    plain = member.isdir() or (member.isfile() and not member.issparse() and member.size >= 0)
    if name.is_absolute() or ".." in name.parts or not plain:
        raise UsageError(
            f"{path}: its member {member.name!r} is a link, a device, sparse or outside the archive's folder; this is "
            "not a valid .nemo model"
        )
    return str(name)
