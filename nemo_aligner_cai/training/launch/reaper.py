# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a program as a task of a Slurm step, and ends the processes that it leaves behind.

    python -m nemo_aligner_cai.training.launch.reaper PROGRAM ARGUMENT...

A critic that is killed leaves its Triton server. Slurm ends such orphans with proctrack/cgroup, but not with
proctrack/linuxproc or proctrack/pgid, where they would keep their memory and their port. Linux only: elsewhere,
orphans are not found.
"""

import contextlib
import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence

_PR_SET_CHILD_SUBREAPER = 36
_KILL_S = 5


def command(python: str, program: Sequence[str]) -> list[str]:
    """The command line that runs a program under this one."""
    return [python, "-m", __name__, *program]


def main(program: Sequence[str]) -> int:
    """Run the program; returns its exit code, or 128 and the number of the signal that ended it."""
    # Slurm sends a signal to all processes of a step, and so to the program: this one waits for it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        code = subprocess.Popen(program).wait()
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror or error}\n")
        return 127
    _end_children()
    return code if code >= 0 else 128 - code


def _end_children() -> None:
    import psutil

    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_KILL_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
