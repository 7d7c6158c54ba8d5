# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Before and after a generation run: what it would ask, what it would cost, what it did."""

import argparse
import asyncio
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from nemo_aligner_cai import __version__
from nemo_aligner_cai.commands.same_files import refuse_same
from nemo_aligner_cai.commands.terminal import open_console, table_of
from nemo_aligner_cai.conversation import ChatTemplate, Role
from nemo_aligner_cai.files import PathLike, sha256_file, write_json
from nemo_aligner_cai.generate.engine import Engine, HasId, Step
from nemo_aligner_cai.generate.plan import plan
from nemo_aligner_cai.generate.summary import Summary
from nemo_aligner_cai.models import ModelClient, Request, ScriptedClient
from nemo_aligner_cai.output_paths import check_output
from nemo_aligner_cai.sources import DataFile, data_files

R = TypeVar("R", bound=HasId)
_SECRET = ("ngc_api_key",)


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


def input_files(*sources: PathLike | None) -> list[DataFile]:
    """The files behind what a run reads, in order: a folder's files, and a data set on the hub as itself."""
    return [file for source in sources if source for file in data_files(source)]


def check_files(
    inputs: Sequence[DataFile], outputs: Sequence[Path], *, journal: Path, manifest: Path, replace: bool
) -> None:
    """Raises UsageError for the first output that is an input, or that exists and may not be replaced."""
    refuse_same([one for one in inputs if isinstance(one, Path)], [*outputs, journal, manifest])
    for path in outputs:
        check_output(path, overwrite=replace)


def remove_stale(outputs: Iterable[Path], written: Iterable[Path]) -> None:
    """Remove those outputs of an earlier run that this one has nothing to replace with."""
    for path in set(outputs) - set(written):
        path.unlink(missing_ok=True)


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


def write_manifest(
    path: Path,
    args: argparse.Namespace,
    summary: Summary,
    *,
    models: Mapping[str, ModelClient],
    inputs: Sequence[DataFile],
    outputs: Sequence[Path],
) -> None:
    """Write what a run was made of, what it made (those of `outputs` that exist), and when; no secret is in it."""
    shown = {name: value for name, value in sorted(vars(args).items()) if name not in _SECRET}
    manifest: dict[str, Any] = {
        "flags": shown,
        "summary": summary.to_dict(),
        "models": {name: client.identity for name, client in models.items()},
        "inputs": {str(one): sha256_file(one) if isinstance(one, Path) else one.split for one in inputs},
        "outputs": {str(one): sha256_file(one) for one in outputs if one.exists()},
        "versions": {"nemo_aligner_cai": __version__, "python": platform.python_version()},
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_json(path, manifest, overwrite=True)
