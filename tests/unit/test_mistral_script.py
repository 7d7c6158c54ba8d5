# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""run_mistral_7b.sh: its commands are the tutorial's, which a functional test runs; its bookkeeping is tested here."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.documented import commands_of

_SCRIPT = Path("examples") / "nlp" / "cai" / "run_mistral_7b.sh"
# What the page has besides: how a reader stops servers, looks at files, trains by DPO, and asks the finished model.
_BY_HAND = {"kill", "wait", "export"}
_LOOKS = {
    ("cai", "inspect"),
    ("cai", "audit"),
    ("cai", "plan"),
    ("cai", "doctor"),
    ("cai", "train"),
    ("cai", "merge-lora"),
}
# A program that notes its command; a server runs until it is stopped.
_PROGRAM = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
if [[ "$(basename "$0")" = curl ]]; then until [[ -s $CALLS.servers ]]; do sleep 0.02; done; fi
if [[ "$*" == *"$FAIL"* ]]; then exit 1; fi
for word in "$@"; do
    case "$previous" in --output-filepath) mkdir -p "$(dirname "$word")"; seq 10 > "$word" ;; esac
    previous=$word
done
case "$*" in serve\\ *|*serve_ppo_critic.py*) echo $$ >> "$CALLS.servers"; while true; do sleep 0.05; done ;; esac
"""


class Machine:
    """A folder with stand-ins for the programs, and what they were asked."""

    def __init__(self, repo_root: Path, folder: Path) -> None:
        self.script, self.folder = repo_root / _SCRIPT, folder
        programs = folder / "programs"
        programs.mkdir()
        for name in ("python", "cai", "huggingface-cli", "curl"):
            (programs / name).write_text(_PROGRAM, encoding="utf-8")
            (programs / name).chmod(0o755)

    def run(self, fail: str = "nothing fails") -> tuple[int, list[str]]:
        """Run the script; returns its exit code, and the commands that it gave."""
        calls = self.folder / "calls"
        calls.write_text("", encoding="utf-8")
        env = os.environ | {
            "PATH": f"{self.folder / 'programs'}:{os.environ['PATH']}",
            "MODELS": str(self.folder / "models"),
            "DATA": str(self.folder / "data"),
            "RESULTS": str(self.folder / "results"),
            "VALIDATION_ROWS": "4",
            "CALLS": str(calls),
            "FAIL": fail,
            "previous": "",
        }
        done = subprocess.run([str(self.script)], env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, calls.read_text(encoding="utf-8").splitlines()

    @property
    def servers(self) -> list[int]:
        """The servers that still run, by process id."""
        pids = map(int, (self.folder / "calls.servers").read_text(encoding="utf-8").split())
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    @property
    def finished(self) -> list[str]:
        """The steps with a marker."""
        return sorted(marker.name for marker in (self.folder / "results" / "finished").iterdir())


@pytest.fixture
def machine(repo_root: Path, tmp_path: Path) -> Machine:
    return Machine(repo_root, tmp_path)


def test_it_gives_the_tutorials_commands_word_for_word(repo_root: Path) -> None:
    page = [words[:-1] if words[-1] == "&" else words for words in commands_of(repo_root / "docs" / "tutorial.rst")]
    steps_1_to_6 = page[: next(n for n, words in enumerate(page) if "1427" in words)]
    expected = [
        words
        for words in steps_1_to_6
        if words[0] not in _BY_HAND and "=$!" not in words[0] and tuple(words[:2]) not in _LOOKS
    ]
    # Looked at by hand too, but for the files that training starts from.
    expected = [words for words in expected if words[:2] != ["cai", "validate"] or "validation.jsonl" in words[-1]]
    printed = subprocess.run(
        [str(repo_root / _SCRIPT)],
        env={"PATH": os.environ["PATH"], "DRY_RUN": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    given = [shlex.split(line) for line in printed.splitlines()]
    assert len(given) > 20
    assert given == expected


def test_finished_steps_are_skipped(machine: Machine) -> None:
    code, calls = machine.run()
    assert code == 0
    assert any("train_gpt_ppo_actor.py" in call for call in calls)
    assert len(machine.finished) == 7
    assert machine.run() == (0, [])


def test_a_failed_step_stops_its_server_leaves_no_marker_and_is_repeated(machine: Machine) -> None:
    code, calls = machine.run(fail="generate_rl_cai_dataset.py")
    assert code == 1
    assert machine.servers == []
    assert "step_4_rl_cai_data" not in machine.finished
    code, calls = machine.run()
    assert code == 0
    assert not any("train_gpt_sft.py" in call for call in calls), "a finished step is repeated"
    assert len(machine.finished) == 7


@pytest.mark.parametrize("place", ["cai_revisions_aligner_chat_template.jsonl", ""])
def test_generation_goes_on_from_its_journal(machine: Machine, place: str) -> None:
    journal = machine.folder / "results" / "sl_cai_data" / "cai_output" / place / "cai_revisions.journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.touch()
    _, calls = machine.run()
    resumed = [call for call in calls if call.endswith("--resume")]
    assert len(resumed) == 1
    assert "generate_sl_cai_dataset.py" in resumed[0]


def test_no_training_row_is_a_validation_row(machine: Machine) -> None:
    machine.run()
    folder = machine.folder / "results" / "sl_cai_data"
    assert (folder / "validation.jsonl").read_text(encoding="utf-8").split() == ["1", "2", "3", "4"]
    assert (folder / "train.jsonl").read_text(encoding="utf-8").split() == ["5", "6", "7", "8", "9", "10"]


def test_a_server_that_never_answers_ends_the_script(machine: Machine) -> None:
    code, calls = machine.run(fail="/health")
    assert code == 1
    assert machine.servers == []
    assert not any("generate_sl" in call for call in calls)
