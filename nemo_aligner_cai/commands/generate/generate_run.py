# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Before and after a generation run: what it would ask, what it would cost, what it did."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from nemo_aligner_cai.chat import ChatTemplate, Role
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.engine.engine import Engine, HasId, Step
from nemo_aligner_cai.engine.plan import plan
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.models import ModelClient, Request, ScriptedClient
from nemo_aligner_cai.stages.report import StageReport

R = TypeVar("R", bound=HasId)
T = TypeVar("T")


def show_preview(
    records: Iterable[R], steps_for: Callable[..., Sequence[Step[R]]], *templates: ChatTemplate | None
) -> None:
    """Show whole chains as they are sent; scripted models reply.

    A call that only begins a later one is not shown by itself: of a chain that is one conversation, the last call has
    everything.

    Args:
        records: whose chains are shown.
        steps_for: the steps, from a client for each template.
        templates: that each model's prompts are rendered with; None where its server is sent messages. A model is
            asked after those before it.
    """
    console = open_console()
    for record in records:
        clients = [ScriptedClient() for _ in templates]
        asyncio.run(Engine(seed=0).run([record], steps_for(*clients), lambda outcome: None))
        asked = [
            (request, template)
            for client, template in zip(clients, templates, strict=True)
            for request in client.requests
        ]
        for number, (request, template) in enumerate(asked, start=1):
            if any(_begins(request, later) for later, _ in asked[number:]):
                continue
            console.rule(f"prompt {record.id}, call {number} of {len(asked)}", align="left")
            text = _as_sent(request, template)
            console.print(text, soft_wrap=True)


def _as_sent(request: Request, template: ChatTemplate | None) -> str:
    conversation, choices = request.conversation, " | ".join(request.choices)
    if template is not None:
        return template.generation_prompt(conversation) + choices
    messages = [f"[{message.role.value}]\n{message.content}" for message in conversation.messages]
    return "\n\n".join([*messages, f"[{Role.ASSISTANT.value}]\n{choices}"])


def _begins(request: Request, later: Request) -> bool:
    messages = request.conversation.messages
    return later.conversation.messages[: len(messages)] == messages and not request.choices


def show_plan(records: Iterable[R], steps: Sequence[Step[R]], *, seed: int, journal_path: PathLike | None) -> None:
    """Show how many calls of each step are to be made, and how many are in the journal."""
    tally = asyncio.run(plan(records, steps, seed=seed, journal_path=journal_path))
    rows = [(step.name, tally.calls[step.name], tally.reused[step.name]) for step in steps]
    rows.append(("all", tally.calls.total(), tally.reused.total()))
    console = open_console()
    console.print(f"{tally.records} prompts; what depends on a call that is to be made counts as to be made")
    console.print(table_of(("step", "to be made", "in the journal"), rows))


def show_summary(title: str, summary: Summary, lines: Sequence[str]) -> None:
    """Show what a run did, and what was made of it."""
    console = open_console()
    console.print(table_of((title, ""), list(summary.rows())))
    for line in lines:
        console.print(line, soft_wrap=True)


def run_and_close(work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
    """Run `work`, which uses `clients`, to its end and close them."""

    async def and_close() -> T:
        try:
            return await work
        finally:
            for client in clients:
                await client.close()

    return asyncio.run(and_close())


def show_report(report: StageReport, written: PathLike, *, dry_run: bool) -> None:
    """Show what a stage did, and where its output is.

    Raises:
        CaiError: it is too little.
    """
    lines = list(report.lines)
    if dry_run:
        lines.append("dry run: nothing was kept")
    elif report.missing is None and report.summary.counts.written:
        lines.append(f"written: {written}")
    show_summary(report.title, report.summary, lines)
    report.check()
