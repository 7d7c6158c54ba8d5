# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that commands print: data is never markup, and nothing in it acts on a terminal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.models import CallFailed, Completion, Request, Sampling, Usage

EVIL = "\x1b[31m\x9b2J\u202e[red]:skull:"
SHOWN = r"\x1b[31m\x9b2J\u202e[red]:skull:"


def _journal(folder: Path) -> Path:
    path = folder / "evil.journal.jsonl"

    async def write() -> None:
        journal = Journal.open(path)
        for step, number in (("answer", 1), (EVIL, 2)):
            call = Call(step, EVIL, number, Request(Conversation.of_user(EVIL), Sampling()), {"model": "m"})
            journal.append([(call.key, call, Completion(EVIL, "stop", Usage(1, 1)))])
        journal.append_failure(call.key, call, CallFailed(EVIL, EVIL))
        await journal.close()

    asyncio.run(write())
    return path


def _constitution(folder: Path) -> Path:
    path = folder / "evil.json"
    document = {EVIL: {"prompt": [f"CritiqueRequest: {EVIL}"], "edit_request": f"RevisionRequest: {EVIL}"}}
    path.write_text(json.dumps(document))
    return path


def _rows(folder: Path) -> Path:
    path = folder / f"{EVIL}.jsonl"
    turns = [{"from": "User", "value": EVIL}, {"from": "Assistant", "value": EVIL}]
    path.write_text(json.dumps({"system": EVIL, "conversations": turns, "mask": "User", "dataset": EVIL}) + "\n")
    return path


@pytest.mark.parametrize(
    ("make", "command"),
    [
        (_journal, ["journal", "show"]),
        (_journal, ["journal", "stats"]),
        (_constitution, ["constitution", "check", "--preview"]),
        (_rows, ["validate"]),
        (_rows, ["inspect"]),
        (_rows, ["plan"]),
        (_rows, ["convert"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_c4_no_command_lets_data_reach_the_terminal(
    make: type, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == ["plan"]:
        pytest.importorskip("hydra", reason="`cai plan` reads the trainers' settings by Hydra")
    path = str(make(tmp_path))
    words = [*command[:2], path, *command[2:]] if len(command) > 1 else [*command, path]
    more = [str(tmp_path / f"{EVIL}.out.jsonl"), "--to", "dpo"] if command == ["convert"] else []
    cli.main([*words, *more])
    printed = "".join(capsys.readouterr())
    assert SHOWN in printed
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed)


def test_c4_a_console_takes_no_string_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console = open_console()
    console.print(EVIL, soft_wrap=True)
    console.rule(EVIL)
    console.print(table_of((EVIL, EVIL), [(EVIL, EVIL)]))
    lines = capsys.readouterr().out
    assert lines.count(SHOWN) == 6
    assert not {"\x1b", "\x9b", "\u202e"} & set(lines)


def test_c4_a_wrong_flag_is_shown_without_acting_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "x", f"--{EVIL}", "--api-key=geheimes"]) == 2
    said = capsys.readouterr().err
    assert SHOWN in said
    assert "geheimes" not in said
    assert said.count("\n") == 1
