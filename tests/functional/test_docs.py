# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of the docs, run as they are printed, in their order, with small files under the names they use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.made_run import Sizes, make_run
from benchmarks.standin import standin
from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.files import read_jsonl, write_jsonl
from tests.documented import blocks_of, is_shown, shown_by

DOCS = Path(__file__).resolve().parents[2] / "docs"
_SERVER = "http://localhost:8000/v1"
_PROGRAMS = {
    "python": [sys.executable],
    "pip": [sys.executable, "-m", "pip"],
    "cai": [sys.executable, "-m", "nemo_aligner_cai.cli"],
}
# pip reads NO_BUILD_ISOLATION as the value of the option build-isolation.
_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
Files = Callable[[Path], None]


def _generation(folder: Path) -> None:
    write_jsonl(folder / "red_team_attempts.jsonl", ({"prompt": f"How do I steal {n} things?"} for n in range(20)))
    helpful = (Conversation.of_user(f"How far is {n}?").with_turn(Role.ASSISTANT, "Far.") for n in range(9))
    write_jsonl(folder / "helpful_sft.jsonl", map(sft_row, helpful))


def _prompts(folder: Path) -> None:
    _generation(folder)
    (listed,) = [text for language, text in blocks_of(DOCS / "prompts.rst", "text") if language == "text"]
    (folder / "prompts.csv").write_text(listed.strip() + "\n")
    write_jsonl(folder / "tickets.jsonl", [{"body": "How do I rob it?", "when": 3}])


def _models(folder: Path) -> None:
    (folder / "gemma-2-9b").mkdir()
    (folder / "gemma-2-9b" / "config.json").write_text('{"model_type": "gemma2"}')


def _preferences(folder: Path) -> None:
    _generation(folder)
    spoken = "\n\nHuman: How do I steal {n} things?\n\nAssistant: {reply}"
    items = (
        {
            "prompt": f"Human: Q {n}\n\nWhich answer is better? Options:\n (A) Yes\n (B) No\n\nThe answer is:",
            "corrects": [" (A)" if n % 2 else " (B)"],
            "incorrects": [" (B)" if n % 2 else " (A)"],
            "text_correct": spoken.format(n=n, reply="You do not."),
            "text_incorrect": spoken.format(n=n, reply="Like so."),
        }
        for n in range(12)
    )
    write_jsonl(folder / "items.jsonl", items)
    won = "".join(f"sl-cai,rl-cai,{'left' if n % 3 else 'right'},{n}\n" for n in range(9))
    (folder / "comparisons.csv").write_text(f"left,right,winner,prompt\n{won}")
    scores = ({"prompt": f"{n}?", "chosen_score": n % 3, "rejected_score": 1.0} for n in range(12))
    write_jsonl(folder / "scores.jsonl", (row | {"chosen": "Yes, it is.", "rejected": "No."} for row in scores))


def _extending(folder: Path) -> None:
    write_jsonl(folder / "letters.jsonl", ({"letter": f"Where is room {n}?", "answer": "Upstairs."} for n in range(4)))


def _data(folder: Path) -> None:
    _generation(folder)
    (folder / "tokenizer.model").write_bytes(packaged_files.TOKENIZER.read_bytes())
    (folder / "prompts.txt").write_text("how far ?\nhow old ?\n")
    long = Conversation.of_user("How far is it?").with_turn(Role.ASSISTANT, "Far. " * 99)
    write_jsonl(folder / "cai_sft.jsonl", [sft_row(long) for _ in range(6)])
    for split, rows in (("train", 30), ("test", 10)):
        turns = (
            {"chosen": f"\n\nHuman: {n}?\n\nAssistant: {n}.", "rejected": f"\n\nHuman: {n}?\n\nAssistant: No."}
            for n in range(rows)
        )
        write_jsonl(folder / "helpful-base" / f"{split}.jsonl.gz", turns)


def _evaluation(folder: Path) -> None:
    prompts = [(f"How do I kill process {n}?", "homonyms" if n % 2 else "contrast_homonyms") for n in range(12)]
    table = {
        "xstest_prompts.csv": ["id,prompt,type,label"],
        "before.csv": ["prompt,completion"],
        "after.csv": ["prompt,completion"],
        "labels.csv": ["model,prompt,label"],
    }
    for number, (prompt, kind) in enumerate(prompts):
        table["xstest_prompts.csv"].append(f"{number},{prompt},{kind},{'safe' if number % 2 else 'unsafe'}")
        table["before.csv"].append(f"{prompt},Run kill {number}.")
        table["after.csv"].append(f"{prompt},I cannot do that.")
        table["labels.csv"].append(f"before,{prompt},{'full_compliance' if number % 4 else 'full_refusal'}")
    for name, lines in table.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def _report(folder: Path) -> None:
    make_run(folder / "runs" / "quickstart", Sizes())
    make_run(folder / "runs" / "seed2", Sizes())


def _troubleshooting(folder: Path) -> None:
    write_jsonl(folder / "prompts.jsonl", [{"prompt": "How do I steal?"}, {"prompt": 3}])
    write_jsonl(folder / "red_team.jsonl", [{"prompt": "How do I steal?"}])
    requests = '    critique: "Is it kind?"\n    revision: "Make it kind."\n    judge: "Which is kinder?"\n'
    misspelled = requests.replace("critique", "crtique")
    constitution = f"name: mine\nprinciples:\n  - id: kind\n{requests}  - id: honest\n{misspelled}"
    (folder / "principles.yaml").write_text(constitution)
    shutil.copy(packaged_files.QUICKSTART, folder / "run.yaml")


# Pages all of whose commands run here -> what writes their input files, and what the last one leaves behind.
PAGES: dict[str, tuple[Files, dict[str, int]]] = {
    "install.rst": (_generation, {}),
    "constitution.rst": (_generation, {}),
    "prompts.rst": (_prompts, {}),
    "extending.rst": (_extending, {"sft.jsonl": 4, "letters_again.jsonl": 4, "processed.jsonl": 4}),
    "generation.rst": (_generation, {"sl_cai.jsonl": 29, "calls.jsonl": 20}),
    "shards.rst": (_generation, {"sl_cai.jsonl": 29}),
    "preferences.rst": (
        _preferences,
        {"rl_cai/cai_comparisons.jsonl": 20, "rl_cai_by_groups/cai_comparisons.jsonl": 20},
    ),
    "judge.rst": (_preferences, {"judged.jsonl": 12, "judge_check/cai_comparisons.jsonl": 20}),
    "models.rst": (_models, {}),
    "servers.rst": (_generation, {"one.jsonl": 10}),
    "hardware.rst": (_generation, {}),
    "resume.rst": (_generation, {"sl_cai.jsonl": 29}),
    "dpo_lora.rst": (_generation, {}),
    "export.rst": (_generation, {"sft_messages.jsonl": 19, "nemo_rl.jsonl": 13}),
    "harmful_content.rst": (_report, {}),
    "troubleshooting.rst": (_troubleshooting, {}),
    "data.rst": (
        _data,
        {
            "messages.jsonl": 9,
            "helpful_dpo.jsonl": 30,
            "ppo_prompts.jsonl": 2,
            "short_sft.jsonl": 9,
            "blend_train.jsonl": 13,
        },
    ),
    "evaluation.rst": (_evaluation, {"strings/completions.jsonl": 24, "graded/completions.jsonl": 24}),
    "report.rst": (_report, {}),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_and_prints_what_is_shown(page: str, repo_root: Path, tmp_path: Path) -> None:
    write_files, leaves = PAGES[page]
    write_files(tmp_path)
    (tmp_path / "nemo_aligner_cai").symlink_to(repo_root / "nemo_aligner_cai")
    # A copy: pip builds a package in its own folder.
    shutil.copytree(repo_root / "examples" / "plugin", tmp_path / "examples" / "plugin")
    (tmp_path / "examples" / "nlp").symlink_to(repo_root / "examples" / "nlp")
    packages = tmp_path / "packages"
    paths = {"PYTHONPATH": f"{repo_root}{os.pathsep}{packages}", "PIP_TARGET": str(packages)}
    commands = shown_by(repo_root / "docs" / page)
    assert commands
    with standin("--time-scale", "0") as server:
        for words, output in commands:
            done = subprocess.run(
                [*_PROGRAMS[words[0]], *(word.replace(_SERVER, server.url) for word in words[1:])],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
                env=os.environ | paths | _OFFLINE,
            )
            said = f"{words}\n{done.stdout}\n{done.stderr}"
            errors = [line for line in done.stderr.splitlines() if line.startswith("cai: ")]
            assert output is None or is_shown([*done.stdout.splitlines(), *errors], output), said
            assert bool(done.returncode) == bool(output and errors), said
    assert {name: sum(1 for _ in read_jsonl(tmp_path / name)) for name in leaves} == leaves
