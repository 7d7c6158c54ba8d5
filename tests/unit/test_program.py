# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How every program starts and ends: streams that fail, interruptions, secrets in what it says."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from nemo_aligner_cai.console import program
program.begin()
from nemo_aligner_cai.errors import UsageError

def work():
    print("line", end="")
    sys.stdout.flush()
    print(" of output")
    if "bad" in sys.argv:
        raise UsageError("bad flag " + sys.argv[-1])
    if "stop" in sys.argv:
        raise KeyboardInterrupt("the same command resumes")
    if "defect" in sys.argv:
        raise RuntimeError("no " + sys.argv[-1])
    with open(sys.argv[-1], "w") as file:
        file.write("data")
    return 0

sys.exit(program.main_guard(work))
"""


def shell(line: str, *words: str, tmp: object) -> tuple[int, str]:
    """Run the program by a shell line in which "$@" is its command; returns (exit code, standard error)."""
    command = ["bash", "-c", line, "bash", sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=str(tmp), timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("closed", ['"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-', '"$@" 2>/dev/full'])
def test_b6_a_closed_stream_stops_no_work_and_swallows_no_data(closed: str, tmp_path: object) -> None:
    code, said = shell(closed, "out", tmp=tmp_path)
    assert (code, said) == (0, "")
    with open(f"{tmp_path}/out") as file:
        assert file.read() == "data"
    assert shell(closed, "bad", "x", tmp=tmp_path)[0] == 2


def test_b6_a_reader_that_leaves_does_not_stop_the_work(tmp_path: object) -> None:
    code, said = shell('"$@" | true; exit ${PIPESTATUS[0]}', "out", tmp=tmp_path)
    assert (code, said) == (0, "")
    assert shell("test -s out", tmp=tmp_path)[0] == 0


def test_b6_output_that_a_full_disk_swallows_is_an_error_after_the_work(tmp_path: object) -> None:
    code, said = shell('"$@" > /dev/full', "out", tmp=tmp_path)
    assert code == 1
    assert said.splitlines() == ["cai: standard output: No space left on device"]
    assert shell("test -s out", tmp=tmp_path)[0] == 0


def test_an_interruption_is_one_line_that_says_how_to_resume(tmp_path: object) -> None:
    assert shell('"$@"', "stop", tmp=tmp_path) == (130, "cai: interrupted; the same command resumes\n")


@pytest.mark.parametrize("how", ["bad", "defect"])
def test_c4_no_error_and_no_traceback_shows_a_secret_or_acts_on_a_terminal(how: str, tmp_path: object) -> None:
    code, said = shell('"$@"', how, "--api-key", "geheim", "\x1b[31m http://me:pass@host geheim", tmp=tmp_path)
    assert code in (1, 2)
    assert r"\x1b[31m http://***@host ***" in said
    assert not {"geheim", "pass"} & set(said.replace("@", " ").replace(":", " ").split())
