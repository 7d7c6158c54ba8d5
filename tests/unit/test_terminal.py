# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that commands print: data is never markup, and nothing in it acts on a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.made_run import Sizes, make_run
from nemo_aligner_cai import cli
from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.console.printable import error_line
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


LONG = f"{EVIL}{'w' * 1_000_000}{EVIL}"


def _evaluation(folder: Path) -> list[str]:
    (folder / "set.jsonl").write_text(json.dumps({"prompt": LONG, "side": "harmful", "category": LONG}) + "\n")
    (folder / "saved.jsonl").write_text(json.dumps({"prompt": LONG, "completion": LONG}) + "\n")
    grader = ["--grader=xstest", "--grader-model=http://127.0.0.1:9/v1#m", "--preview=1"]
    files = [f"--set=s={folder}/set.jsonl", f"--model=m={folder}/saved.jsonl", f"--output={folder}/out"]
    return ["evaluate", *grader, *files]


def _verdicts(folder: Path) -> list[str]:
    item = {"question": LONG, "response_A": "a", "response_B": "b", "label": "A>B", "source": LONG}
    row = item | {"judgments": [{"decision": "A>B"}]}
    (folder / "verdicts.jsonl").write_text(json.dumps(row) + "\n")
    return ["accuracy", str(folder / "verdicts.jsonl")]


def _ranking(folder: Path) -> list[str]:
    row = {"left": LONG, "right": "b", "winner": "left", "prompt": LONG}
    (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return ["rank", str(folder / "pairs.jsonl")]


def _wrong_row(folder: Path) -> list[str]:
    turns = [{"from": LONG, "value": LONG}, {"from": "Assistant", "value": LONG}]
    row = {"system": LONG, "conversations": turns, "mask": LONG}
    (folder / "wrong.jsonl").write_text(json.dumps(row) + "\n")
    return ["validate", str(folder / "wrong.jsonl"), "--as", "sft-chat"]


def _runs(folder: Path) -> list[str]:
    made = [make_run(folder / name, Sizes(revisions=2), extra=[LONG] * 4) for name in "ab"]
    record = json.loads((made[1] / "run.json").read_text())
    record["settings"][EVIL] = LONG
    (made[1] / "run.json").write_text(json.dumps(record))
    revisions = made[1] / "2_sl_cai" / "revisions.jsonl"
    revisions.write_text(revisions.read_text().replace("I will not.", "Other words."))
    return ["compare", *map(str, made)]


def _report(folder: Path) -> list[str]:
    return ["report", str(make_run(folder / EVIL, Sizes(revisions=2), extra=[LONG] * 4))]


@pytest.mark.parametrize("made", [_evaluation, _verdicts, _ranking, _wrong_row, _runs, _report])
def test_c4_a_line_of_a_megabyte_neither_acts_on_the_terminal_nor_floods_it(
    made: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(made(tmp_path))
    printed = "".join(capsys.readouterr())
    assert SHOWN in printed
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed)
    assert len(printed) < 50_000


def test_c4_an_error_keeps_its_place_and_its_fix() -> None:
    line = error_line(f"file.jsonl:3: {LONG}; write it again")
    assert line.startswith("cai: file.jsonl:3: ") and line.endswith("; write it again\n")
    assert "characters omitted" in line and len(line) < 3_000


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
