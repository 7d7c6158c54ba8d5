# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands that make data, run as users run them: in a process of their own, against servers at addresses."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workload import prompt_text
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.files import write_jsonl

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPTS = _ROOT / "examples" / "nlp" / "cai"
PROMPTS, _HELPFUL, OUT = "prompts.jsonl", "helpful.jsonl", "out/sft.jsonl"
COMPARISONS = "out/cai_comparisons.jsonl"
REVISIONS = "out/cai_output/sft.jsonl/cai_revisions.jsonl"
LEFT_OUT = "out/cai_output/sft.jsonl/cai_revisions.left_out.jsonl"
_HOLDS_TIMES = ("journal", "manifest")
"""What a file's name contains that differs from run to run."""


@dataclass(frozen=True)
class SlCai:
    """Runs of the command in one folder. All paths are relative to it, so that equal runs write equal bytes."""

    folder: Path
    url: str
    concurrency: int = 64
    endpoints: Path | None = None
    """A folder of endpoints, instead of `url`."""

    def prepare(self, prompts: int, *, first: int = 0) -> "SlCai":
        """Write what the command reads: so many different prompts, some in other scripts, and helpfulness data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = range(first, first + prompts)
        texts = (prompt_text(number) + (" 怎么办 😀 é" if number % 10 == 0 else "") for number in numbers)
        write_jsonl(self.folder / PROMPTS, ({"prompt": text} for text in texts))
        helpful = (
            Conversation.of_user(f"How far is {number}?").with_turn(Role.ASSISTANT, "Far.") for number in range(9)
        )
        write_jsonl(self.folder / _HELPFUL, (sft_row(conversation, dataset="helpful") for conversation in helpful))
        return self

    def command(self, *options: str) -> list[str]:
        """The command line."""
        flags = {
            **({"--endpoints-dir": str(self.endpoints)} if self.endpoints else {"--model-url": self.url}),
            "--model": "standin",
            "--concurrency": str(self.concurrency),
            "--greedy": "False",
            "--red-teaming-prompts-dataset-path": PROMPTS,
            "--helpfulness-dataset-path": _HELPFUL,
            "--output-filepath": OUT,
        }
        return _command("generate_sl_cai_dataset.py", flags, options)

    def start(self, *options: str) -> "subprocess.Popen[str]":
        """Start the command; what it says goes into the folder's ``said.txt``."""
        with (self.folder / "said.txt").open("a", encoding="utf-8") as said:
            return subprocess.Popen(
                self.command(*options),
                cwd=self.folder,
                stdout=said,
                stderr=said,
                text=True,
                env={"PYTHONPATH": str(_ROOT)},
            )

    def run(self, *options: str) -> int:
        """Run the command to its end; returns the exit code."""
        process = self.start(*options)
        try:
            return process.wait()
        finally:
            process.kill()

    def said(self) -> str:
        """What the runs have said so far."""
        return (self.folder / "said.txt").read_text(encoding="utf-8")

    def outputs(self) -> dict[str, bytes]:
        """Every file that the command has left behind, by its path, but for those that hold times."""
        files = sorted(file for file in (self.folder / OUT).parent.rglob("*") if file.is_file())
        return {
            str(file.relative_to(self.folder)): file.read_bytes()
            for file in files
            if not any(part in file.name for part in _HOLDS_TIMES)
        }


@dataclass(frozen=True)
class RlCai(SlCai):
    """Runs of the RL-CAI command in one folder: tournaments of four, with reasonings, in both orders."""

    judge_url: str = ""

    def command(self, *options: str) -> list[str]:
        """The command line."""
        flags = {
            "--model-url": self.url,
            "--model": "standin",
            "--concurrency": str(self.concurrency),
            "--judge-url": self.judge_url,
            "--judge-model": "standin",
            "--judge-concurrency": str(self.concurrency),
            "--judge": "chain-of-thought",
            "--pairs": "tournament",
            "--num-responses": "4",
            "--tokens_to_generate": "400",
            "--red-teaming-file-path": PROMPTS,
            "--output-dir": "out",
        }
        return _command("generate_rl_cai_dataset.py", flags, options)


def _command(script: str, flags: Mapping[str, str], options: Sequence[str]) -> list[str]:
    return [sys.executable, str(_SCRIPTS / script), *(part for flag in flags.items() for part in flag), *options]
