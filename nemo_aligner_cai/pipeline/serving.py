# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Models behind real servers for as long as a step needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from nemo_aligner_cai.models import ModelClient, OpenAIClient
from nemo_aligner_cai.models.nemo_server import NemoServerClient
from nemo_aligner_cai.training.config import quoted
from nemo_aligner_cai.training.launch import jobs

T = TypeVar("T")

HOST = "127.0.0.1"
_POLL_S = 0.5


class ServedClient(NemoServerClient):
    """A client of a server that is a job of this process."""

    def __init__(self, port: int, job: jobs.Job, *, model: str, batch_size: int) -> None:
        super().__init__(HOST, port, model=model, batch_size=batch_size)
        self.job = job


class ServedChatClient(OpenAIClient):
    """A client of the chat endpoint of a server that is a job of this process."""

    def __init__(self, port: int, job: jobs.Job, *, model: str) -> None:
        super().__init__(f"http://{HOST}:{port}/v1", model)
        self.job = job


@contextmanager
def served(model: Path, log: Path, *, identity: str, batch_size: int) -> Generator[ServedClient, None, None]:
    """A client of a text-generation server for ``model``, which is stopped when the block ends, however it ends.

    The client is used in one :func:`ask`.

    Args:
        model: a .nemo file.
        log: where the server writes.
        identity: tells this model from every other one; journals find answers by it.
        batch_size: sentences per request.

    Raises:
        CaiError: the server did not get ready; with its log's last lines.
    """
    with _server(model, log) as (port, job):
        yield ServedClient(port, job, model=identity[:16], batch_size=batch_size)


@contextmanager
def served_chat(model: Path, log: Path, template: str | None) -> Generator[ServedChatClient, None, None]:
    """Serve ``model`` and give a client that leaves the chat template to the server; see `served`.

    Args:
        model: a .nemo file.
        log: where the server writes.
        template: a chat template's name or folder, in place of the one that the model names.

    Raises:
        CaiError: the server did not get ready; with its log's last lines.
    """
    overrides = [f"chat_template={quoted(template)}"] if template else []
    with _server(model, log, *overrides) as (port, job):
        yield ServedChatClient(port, job, model=model.name.removesuffix(".nemo"))


@contextmanager
def _server(model: Path, log: Path, *overrides: str) -> Generator[tuple[int, jobs.Job], None, None]:
    """A text-generation server; gives its port and its process."""
    port = jobs.free_port()
    settings = [f"gpt_model_file={quoted(model)}", f"host={HOST}", f"port={port}", *overrides]
    urls = [f"http://{HOST}:{port}/health"]
    with jobs.server("nemo_aligner_cai.training.inference_server", settings, log, urls) as job:
        yield port, job


def ask(work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
    """Run ``work``, which uses ``clients``, to its end and close them.

    Raises:
        CaiError: a server of this process ended; a client would wait for it to come back.
    """
    servers = [client.job for client in clients if isinstance(client, ServedClient | ServedChatClient)]

    async def and_close() -> T:
        task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_watch(servers))
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else watch.result()
        finally:
            for one in (task, watch):
                one.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)
            for client in clients:
                await client.close()

    return asyncio.run(and_close())


async def _watch(servers: Sequence[jobs.Job]) -> NoReturn:
    """Raise CaiError when a server ends."""
    while True:
        for job in servers:
            jobs.require_running(job)
        await asyncio.sleep(_POLL_S)
