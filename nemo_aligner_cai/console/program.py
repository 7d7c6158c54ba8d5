# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The start of every program of this package: standard streams that cannot fail, and secrets out of sight.

Finished work must not be lost, nor end in a traceback, since nobody reads what is printed about it: after ``| head``
has closed the pipe, with ``>&-``, or on a full disk.
"""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from nemo_aligner_cai.console.printable import printable, redacted
from nemo_aligner_cai.console.process_list import hide_secrets

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.RawIOBase):
    """Writes to a file descriptor until that fails; what comes later is dropped."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.failure: OSError | None = None

    def write(self, b: "ReadableBuffer", /) -> int:
        """Write some of the data; returns how many bytes are done with."""
        if self.failure is None:
            try:
                return os.write(self._number, b)
            except BlockingIOError:
                raise
            except OSError as failure:
                self.failure = failure
        return memoryview(b).nbytes

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor: for what looks at it, or hands it to a child."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)


def begin(argv: Sequence[str] = ()) -> None:
    """Start a program, as the first thing it does: hide its secrets, guard its streams. A second call changes nothing.

    Args:
        argv: its command line, where it is not the process's own.
    """
    hide_secrets(argv)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the shell (`>&-`). The next file to be opened would get its number, and with it our messages.
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - None where it was closed
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    # Tests put streams of their own there.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(2, sys.stderr)
        sys.excepthook = _show_defect


def lost_output() -> OSError | None:
    """The error that kept output from its place; None where it is there, or where its reader has left."""
    try:
        sys.stdout.flush()
    except OSError as failure:
        return failure
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Descriptor) else None
    return None if isinstance(failure, BrokenPipeError) else failure


def _guarded(number: int, stream: TextIO | None) -> TextIO:
    raw = _Descriptor(number)
    # File names and data are in every script, and terminals and locales are not: what a stream cannot show, it shows
    # as an escape.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=number == 2,
    )


def _show_defect(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        # During imports, or again while the first one is answered.
        sys.stderr.write("interrupted\n")
        return
    text = "".join(traceback.format_exception(kind, error, where))
    sys.stderr.write(printable(redacted(text), keep="\n\t"))
