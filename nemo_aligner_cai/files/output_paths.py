# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of output paths; call them before expensive work."""

import os
from collections.abc import Iterable
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.reading import PathLike, is_object

_MAX_NAME_BYTES = 255
"""The longest file name on common file systems."""


def check_output(path: PathLike, *, overwrite: bool) -> None:
    """Check that a file can be written.

    Raises:
        UsageError: it exists and `overwrite` is False, it is not a regular file, its name is too long, or its folder
            cannot be written.
    """
    path = Path(path)
    # Unlike pathlib's, these functions do not raise for invalid names.
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder, a file name is needed")
    if (os.path.exists(path) and not os.path.isfile(path)) or _is_system_folder(path.parent):
        raise UsageError(f"{path}: is a device, a pipe or a socket; choose the name of a regular file")
    _check_location(path, overwrite=overwrite, fix="choose another name or give --overwrite")


def refuse_object(path: PathLike) -> None:
    """Raises UsageError for an output in an object store: an object cannot be appended to, nor renamed."""
    if is_object(path):
        raise UsageError(
            f"{path}: outputs are written to a file system; give a path on this machine and copy the finished files "
            "from there; cai data sl-cai and cai data rl-cai do so by --upload"
        )


def check_new(path: PathLike) -> None:
    """Check that a model's file or folder, which is never replaced, can be created.

    Raises:
        UsageError: it exists, its name is too long, or its folder cannot be written.
    """
    _check_location(Path(path), overwrite=False, fix="remove it or choose another name")


def refuse_same(inputs: Iterable[PathLike], outputs: Iterable[PathLike]) -> None:
    """Raises UsageError if an output is an input or another output, under any name or link."""
    seen: list[tuple[Path, str]] = [(Path(path), "is read by this command") for path in inputs]
    for output in map(Path, outputs):
        for path, what in seen:
            if os.path.realpath(path) == os.path.realpath(output) or (
                path.exists() and output.exists() and path.samefile(output)
            ):
                raise UsageError(f"{output}: {what}, and would be replaced; choose another name")
        seen.append((output, "is written twice"))


def _check_location(path: Path, *, overwrite: bool, fix: str) -> None:
    refuse_object(path)
    for part in path.parts:
        if len(os.fsencode(part)) > _MAX_NAME_BYTES:
            raise UsageError(f"{path}: {part[:20]}... has more than {_MAX_NAME_BYTES} bytes; choose a shorter name")
    if not overwrite and os.path.lexists(path):
        raise UsageError(f"{path}: already exists; {fix}")
    folder = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not folder.is_dir():
        raise UsageError(f"{path}: cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written: no permission to write into {folder}")


def _is_system_folder(folder: Path) -> bool:
    # A link in a folder of devices or processes, such as /dev/stdout, would itself be replaced.
    real = os.path.realpath(folder)
    return real == "/dev" or real.startswith(("/proc/", "/sys/"))
