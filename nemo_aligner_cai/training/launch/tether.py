# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Ends a process with the one that has started it, even by SIGKILL.

As a program it replaces itself by another one, which then gets SIGTERM:

    python -m nemo_aligner_cai.training.launch.tether PID PROGRAM ARGUMENT...

Without it, a server would outlive a run that is killed, and keep its memory and its port. Linux only: elsewhere
processes are left as they are.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def command(program: Sequence[str]) -> list[str]:
    """The command line that starts a program tied to this process."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *program]


def end_with_starter(number: signal.Signals) -> None:
    """Let this process get a signal when the one that has started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def main(argv: Sequence[str]) -> int:
    """Become the program; returns only if that fails."""
    starter, program = int(argv[0]), list(argv[1:])
    end_with_starter(signal.SIGTERM)
    # The starter may have ended before the call.
    if sys.platform == "linux" and os.getppid() != starter:
        return 1
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror or error}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
