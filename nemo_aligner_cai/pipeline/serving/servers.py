# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Inference servers that run for the duration of a step."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from nemo_aligner_cai.chat import ChatTemplate, template_named
from nemo_aligner_cai.models import BodyChanges, ModelClient, OpenAIClient
from nemo_aligner_cai.models.nemo_server import NemoServerClient
from nemo_aligner_cai.models.running import run_and_close
from nemo_aligner_cai.pipeline.sections.serve import NemoServer
from nemo_aligner_cai.training.config import compose, quoted, select
from nemo_aligner_cai.training.launch import jobs

T = TypeVar("T")

HOST = "127.0.0.1"
NO_PORT = 1
_POLL_S = 0.5


class ServedClient(NemoServerClient):
    """A client of `/generate` of a server that this process started."""

    def __init__(self, port: int, job: jobs.Job, *, model: str, batch_size: int, template: ChatTemplate) -> None:
        super().__init__(HOST, port, model=model, batch_size=batch_size, template=template)
        self.servers = (job,)


class ServedChatClient(OpenAIClient):
    """A client of the chat endpoints of equivalent servers that this process started, by port."""

    def __init__(
        self,
        servers: Mapping[int, jobs.Job],
        *,
        model: str,
        concurrency: int = 64,
        changes: BodyChanges | None = None,
    ) -> None:
        urls = [f"http://{HOST}:{port}/v1" for port in servers]
        super().__init__(urls, model, concurrency=concurrency, changes=changes)
        self.servers = tuple(servers.values())


@contextmanager
def served(
    model: Path, log: Path, settings: NemoServer, *, identity: str, batch_size: int
) -> Generator[ServedClient, None, None]:
    """Serve a model while the block runs. Use the client in one :func:`ask`.

    The model's `identity` is part of journal keys; `batch_size` is in sentences.

    Raises:
        CaiError: the server did not become ready; with the last lines of its log.
    """
    template = template_named(settings.chat_template)
    with _server(model, log, *settings.overrides, gpus=settings.gpus, timeout_s=settings.ready_timeout_s) as started:
        yield ServedClient(*started, model=identity[:16], batch_size=batch_size, template=template)


def without_server(settings: NemoServer, *, identity: str, batch_size: int) -> NemoServerClient:
    """The client of a server that is not started, with the identity of `served`'s, for a run that makes no calls."""
    template = template_named(settings.chat_template)
    return NemoServerClient(HOST, NO_PORT, model=identity[:16], batch_size=batch_size, template=template)


@contextmanager
def served_chat(model: Path, log: Path, template: str | None) -> Generator[ServedChatClient, None, None]:
    """Serve a model's chat endpoint while the block runs, like `served`.

    Args:
        model: a .nemo file.
        log: the server's log file.
        template: the name or folder of a chat template; None for the model's own.
    """
    overrides = [f"chat_template={quoted(template)}"] if template else []
    with _server(model, log, *overrides) as (port, job):
        yield ServedChatClient({port: job}, model=model.name.removesuffix(".nemo"))


@contextmanager
def _server(
    model: Path, log: Path, *overrides: str, gpus: Sequence[int] = (), timeout_s: float = 300.0
) -> Generator[tuple[int, jobs.Job], None, None]:
    port = jobs.free_port()
    settings = [f"gpt_model_file={quoted(model)}", f"host={HOST}", f"port={port}", *overrides]
    urls, env = [f"http://{HOST}:{port}/health"], jobs.visible_gpus(gpus)
    module = "nemo_aligner_cai.training.inference_server"
    with jobs.server(module, settings, log, urls, env=env, timeout_s=timeout_s, tasks=_processes(overrides)) as job:
        yield port, job


def _processes(overrides: Sequence[str]) -> int:
    """The number of processes of a server; without a GPU, it uses one."""
    devices = select(compose("cai_inference", overrides), "trainer.devices") if jobs.has_gpu() else 1
    return devices if isinstance(devices, int) and devices > 0 else 1


def ask(work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
    """Run a coroutine that uses `clients`, and close them.

    Raises:
        CaiError: one of the servers ended. Without this check a client would retry until its time is up.
    """
    known = [client for client in clients if isinstance(client, ServedClient | ServedChatClient)]
    servers = [job for client in known for job in client.servers]

    async def watched() -> T:
        task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_watch(servers))
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else watch.result()
        finally:
            for pending in (task, watch):
                pending.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    return run_and_close(watched(), *clients)


async def _watch(servers: Sequence[jobs.Job]) -> NoReturn:
    """Raise CaiError when a server ends."""
    while True:
        for job in servers:
            jobs.require_running(job)
        await asyncio.sleep(_POLL_S)
