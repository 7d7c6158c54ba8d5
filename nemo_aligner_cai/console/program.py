# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The start of every program of this package: standard streams that cannot fail, and hidden secrets.

Finished work must not be lost because its output cannot be printed: after ``| head`` has closed the pipe, with
``>&-``, or on a full disk.
"""

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from nemo_aligner_cai.console.printable import error_line, printable, redacted
from nemo_aligner_cai.console.secrets import hide_secrets
from nemo_aligner_cai.errors import CaiError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.RawIOBase):
    """Writes to a file descriptor until that fails, and drops all later data."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.failure: OSError | None = None

    def write(self, b: "ReadableBuffer", /) -> int:
        """Write some of the data; returns the number of bytes written or dropped."""
        if self.failure is None:
            try:
                return os.write(self._number, b)
            except BlockingIOError:
                raise
            except OSError as failure:
                self.failure = failure
        return memoryview(b).nbytes

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor, for child processes."""
        return self._number

    def isatty(self) -> bool:
        """True for a terminal."""
        return os.isatty(self._number)


def begin(argv: Sequence[str] = ()) -> None:
    """Hide secrets and guard the standard streams; every program calls it first. A second call has no effect.

    Args:
        argv: the program's command line, if it is not the process's own.
    """
    hide_secrets(argv)
    # torch prints this warning when it is imported; an error of this package is one line.
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the shell (`>&-`): the next file to be opened would get this number, and the messages with it.
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - None if it was closed
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open until the process ends
    # Tests replace these streams.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(2, sys.stderr)
        sys.excepthook = _print_traceback


def main_guard(work: Callable[[], int], argv: Sequence[str] = (), *, catch_defects: bool = False) -> int:
    """Begin a program, run its work and return its exit code. An error becomes one line on standard error.

    The exit code is 0 for success, 1 for a failure, 2 for a usage error and 130 for an interruption. The text of a
    KeyboardInterrupt says how to resume. Any other error is a defect of this program.

    Args:
        work: returns the exit code if it raises nothing.
        argv: see `begin`.
        catch_defects: show the traceback of a defect and return 1. By default it propagates.
    """
    begin(argv)
    try:
        code = work()
    except SystemExit:  # argparse, after --help
        if _lost_output() is None:
            raise
        code = 0
    except CaiError as error:
        sys.stderr.write(error_line(error))
        code = error.exit_code
    except KeyboardInterrupt as stop:
        sys.stderr.write(error_line("; ".join(["interrupted", *map(str, stop.args)])))
        code = 130
    except Exception as error:
        if catch_defects:
            sys.stderr.write(printable(redacted(traceback.format_exc()), keep="\n\t"))
        elif isinstance(error, OSError):
            sys.stderr.write(error_line(error))
        else:
            raise
        code = 1
    if (lost := _lost_output()) is not None:
        sys.stderr.write(error_line(f"standard output: {lost.strerror}"))
        return code or 1
    return code


def _lost_output() -> OSError | None:
    """The error that lost output; None if all is written, or if the reader has closed the pipe."""
    try:
        sys.stdout.flush()
    except OSError as failure:
        return failure
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Descriptor) else None
    return None if isinstance(failure, BrokenPipeError) else failure


def _guarded(number: int, stream: TextIO | None) -> TextIO:
    raw = _Descriptor(number)
    # Data and file names may contain characters that the locale cannot encode; they are escaped.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
        write_through=number == 2,
    )


def _print_traceback(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        # During imports, or while the first one is handled.
        sys.stderr.write("interrupted\n")
        return
    text = "".join(traceback.format_exception(kind, error, where))
    sys.stderr.write(printable(redacted(text), keep="\n\t"))
