# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The one check of a path that is to be written."""

import os
from pathlib import Path

from nemo_aligner_cai.errors import UsageError

_NAME_BYTES = 255
"""The longest name that file systems take."""


def check_output(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Check that a file can be written; call it before expensive work.

    Raises:
        UsageError: it is there and `overwrite` is False, it is not a regular file, its name is too long, or its folder
            cannot be written.
    """
    path = Path(path)
    # These functions, unlike pathlib's, have an answer for names that no file can have.
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder, a file name is needed")
    if (os.path.exists(path) and not os.path.isfile(path)) or _is_of_system(path.parent):
        raise UsageError(f"{path}: is a device, a pipe or a socket; choose the name of a regular file")
    _check_place(path, overwrite=overwrite, fix="choose another name or give --overwrite")


def check_new(path: str | os.PathLike[str]) -> None:
    """Check that a model's file or folder, which is never replaced, can be made.

    Raises:
        UsageError: it is there, its name is too long, or the folder it is in cannot be written.
    """
    _check_place(Path(path), overwrite=False, fix="remove it or choose another name")


def _check_place(path: Path, *, overwrite: bool, fix: str) -> None:
    for part in path.parts:
        if len(os.fsencode(part)) > _NAME_BYTES:
            raise UsageError(f"{path}: {part[:20]}... has more than {_NAME_BYTES} bytes; choose a shorter name")
    if not overwrite and os.path.lexists(path):
        raise UsageError(f"{path}: already exists; {fix}")
    folder = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not folder.is_dir():
        raise UsageError(f"{path}: cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written: there is no permission to write into {folder}")


def _is_of_system(folder: Path) -> bool:
    """Tell folders of devices and processes; a link in them, such as /dev/stdout, would itself be replaced."""
    real = os.path.realpath(folder)
    return real == "/dev" or real.startswith(("/proc/", "/sys/"))
