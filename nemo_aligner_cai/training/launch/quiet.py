# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Redirects the output of NeMo and its libraries to a file; only this package's log lines stay on the terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from nemo_aligner_cai.console.printable import printable, redacted

_log = logging.getLogger(__name__)
# A subfolder: NeMo moves the files of a log folder when a run resumes.
_FOLDER = "output"
_TAIL_LINES = 20


def output_file(log_dir: Path) -> Path:
    """The output file of this rank."""
    return log_dir / _FOLDER / f"rank{os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0'))}.log"


@contextmanager
def quiet(log: Path) -> Generator[None]:
    """Redirect standard output and error to a file, except this package's log lines; show its end after a failure.

    The file descriptors are redirected, because libraries write to them from C and from child processes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    _log.info("the output of NeMo is in %s", log)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    handlers = [
        handler
        for handler in logging.getLogger("nemo_aligner_cai").handlers
        if isinstance(handler, logging.StreamHandler)
    ]
    streams = [handler.stream for handler in handlers]
    with log.open("ab") as file, os.fdopen(kept[1], "w", buffering=1, errors="backslashreplace", closefd=False) as own:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        for handler in handlers:
            handler.setStream(own)
        failed = True
        try:
            yield
            failed = False
        except KeyboardInterrupt:
            failed = False
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)
            if failed:
                sys.stderr.write(printable(redacted(tail(log)), keep="\n\t") + "\n")


def tail(log: Path) -> str:
    """The last lines of a log, with carriage returns of progress bars as line ends."""
    if not log.is_file():
        return f"(no log at {log})"
    text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace").replace("\r", "\n")
    kept = [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
    return "\n".join([f"--- end of {log} ---", *kept])
