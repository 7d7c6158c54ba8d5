# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Terminal output of a generation run: its prompts, the number of its calls, its results."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nemo_aligner_cai.chat import ChatTemplate, Role
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.console.printable import shortened
from nemo_aligner_cai.engine.engine import Engine, HasId, Step
from nemo_aligner_cai.engine.planned_calls import count_calls
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.models import Request, ScriptedClient
from nemo_aligner_cai.stages.report import StageReport
from nemo_aligner_cai.stages.rl_cai import RlCaiStage
from nemo_aligner_cai.stages.sl_cai import SlCaiStage

R = TypeVar("R", bound=HasId)
_LONGEST_TEXT = 20_000
"""Characters of a message in a preview; a longer one loses its middle there, not in the request."""


def show_preview(
    records: Iterable[R], steps_for: Callable[..., Sequence[Step[R]]], *templates: ChatTemplate | None
) -> None:
    """Show the requests of each record as they are sent; scripted models reply.

    A request is skipped if a later one begins with all of its messages.

    Args:
        records: the records to show.
        steps_for: returns the steps for one client per template.
        templates: the template that renders each model's prompts; None if its server receives messages. The models
            are called in this order.
    """
    console = open_console()
    for record in records:
        clients = [ScriptedClient() for _ in templates]
        asyncio.run(Engine(seed=0).run([record], steps_for(*clients), lambda outcome: None))
        sent = [
            (request, template)
            for client, template in zip(clients, templates, strict=True)
            for request in client.requests
        ]
        for number, (request, template) in enumerate(sent, start=1):
            if not any(_is_prefix(request, later) for later, _ in sent[number:]):
                console.rule(f"prompt {record.id}, call {number} of {len(sent)}", align="left")
                console.print(_as_sent(request, template), soft_wrap=True)


def _as_sent(request: Request, template: ChatTemplate | None) -> str:
    conversation, choices = request.conversation, " | ".join(request.choices)
    if template is not None:
        return shortened(template.generation_prompt(conversation), _LONGEST_TEXT, "\n") + choices
    shown = (
        (message.role.value, shortened(message.content, _LONGEST_TEXT, "\n")) for message in conversation.messages
    )
    messages = [f"[{role}]\n{content}" for role, content in shown]
    return "\n\n".join([*messages, f"[{Role.ASSISTANT.value}]\n{choices}"])


def _is_prefix(request: Request, later: Request) -> bool:
    messages = request.conversation.messages
    return later.conversation.messages[: len(messages)] == messages and not request.choices


def show_plan(records: Iterable[R], steps: Sequence[Step[R]], run: RunSettings, journal_path: Path) -> None:
    """Show for each step how many calls are new, and how many are in the journals; see `count_calls`."""
    counts = asyncio.run(count_calls(records, steps, run, journal_path))
    rows = [(step.name, counts.calls[step.name], counts.reused[step.name]) for step in steps]
    rows.append(("all", counts.calls.total(), counts.reused.total()))
    console = open_console()
    console.print(f"{counts.records} prompts; a call that depends on a new call counts as new")
    console.print(table_of(("step", "to be made", "in the journal"), rows))


def show_stage_plan(stage: SlCaiStage | RlCaiStage, steps: Sequence[Step[Any]]) -> None:
    """Check a stage's inputs and show its plan."""
    stage.check_inputs()
    stage.run_files.adopt_journal()
    show_plan(stage.records(), steps, stage.config.run, stage.run_files.journal)


def show_summary(title: str, summary: Summary, lines: Sequence[str]) -> None:
    """Show the counts of a run, and one line per result."""
    console = open_console()
    console.print(table_of((title, ""), list(summary.rows())))
    for line in lines:
        console.print(line, soft_wrap=True)


def show_report(report: StageReport, written: PathLike, *, dry_run: bool) -> None:
    """Show a stage's report and the path of its output; raises CaiError if the stage wrote too little."""
    lines = list(report.lines)
    if dry_run:
        lines.append("dry run: nothing was kept")
    elif report.missing is None and report.summary.counts.written and report.files:
        lines.append(f"written: {written}")
    show_summary(report.title, report.summary, lines)
    report.check()
