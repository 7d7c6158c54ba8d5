# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How a command ends: with an exit code and, where something is wrong, one line about it."""

import logging
import sys
from collections.abc import Callable

from nemo_aligner_cai.console import program
from nemo_aligner_cai.console.printable import PrintableFormatter, error_line
from nemo_aligner_cai.errors import CaiError


def exit_code(work: Callable[[], int], name: str) -> int:
    """Do a program's work; returns its exit code, or that of the error that ended it, which is shown as one line.

    0 done, 1 failed, 2 usage, 130 interrupted; the text of a KeyboardInterrupt says how to resume. An error that is
    neither a `CaiError` nor one of the system, such as a full disk, is a defect of this program and is not caught.

    Args:
        work: the work.
        name: the program's name, with which the line starts.
    """
    program.begin()
    try:
        code = work()
    except SystemExit:  # argparse, after --help
        if program.lost_output() is None:
            raise
        code = 0
    except CaiError as error:
        sys.stderr.write(error_line(name, error))
        code = error.exit_code
    except OSError as error:
        sys.stderr.write(error_line(name, error))
        code = 1
    except KeyboardInterrupt as stop:
        sys.stderr.write(error_line(name, "; ".join(["interrupted", *map(str, stop.args)])))
        code = 130
    if (lost := program.lost_output()) is not None:
        sys.stderr.write(error_line(name, f"standard output: {lost.strerror}"))
        return code or 1
    return code


def log_to_stderr() -> None:
    """Show log lines on standard error, where they can do nothing to a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
