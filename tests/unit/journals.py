# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Journals that tests write and read."""

import asyncio
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.commands import journal as journal_command
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.models import Completion, Request, Sampling, Usage

MODEL = {"server": "scripted", "model": "m"}


def call(record: str, *, step: str = "answer", shared: int = 0, sample: int = 0, **sampling: Any) -> Call:
    shots = [Message(Role.USER, "shot"), Message(Role.ASSISTANT, "reply")] if shared else []
    conversation = Conversation((*shots, Message(Role.USER, f"prompt {record}")))
    return Call(step, record, sample, Request(conversation, Sampling(**sampling), shared=shared), MODEL)


def done(one: Call, text: str = "x") -> tuple[str, Call, Completion]:
    return one.key, one, Completion(text, "stop", Usage(3, 4), raw={"content": text})


def write(path: Path, *groups: tuple[str | None, list[tuple[str, Call, Completion]]], **kwargs: bool) -> None:
    async def run() -> None:
        journal = Journal.open(path, **kwargs)
        for batch, calls in groups:
            journal.append(calls, batch=batch)
        await journal.close()

    asyncio.run(run())


def found(path: Path, *calls: Call) -> list[str | None]:
    journal = Journal.open(path, resume=True)
    answers = [journal.lookup(one.key) for one in calls]
    asyncio.run(journal.close())
    return [answer.text if answer else None for answer in answers]


def cai_journal(*arguments: str) -> int:
    parser = Parser()
    journal_command.add_arguments(parser)
    return journal_command.run(parser.parse_args(list(arguments)))
