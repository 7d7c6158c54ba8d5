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
"""Models behind real servers for as long as a step needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.models.nemo_server import NemoServerClient
from nemo_aligner_cai.training import launch
from nemo_aligner_cai.training.config import quoted

T = TypeVar("T")

HOST = "127.0.0.1"


@contextmanager
def served(model: Path, log: Path, *, identity: str, batch_size: int) -> Generator[NemoServerClient, None, None]:
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
    port = launch.free_port()
    overrides = [f"gpt_model_file={quoted(model)}", f"host={HOST}", f"port={port}"]
    urls = [f"http://{HOST}:{port}/health"]
    with launch.server("nemo_aligner_cai.training.inference_server", overrides, log, urls):
        yield NemoServerClient(HOST, port, model=identity[:16], batch_size=batch_size)


def ask(work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
    """Run ``work``, which uses ``clients``, to its end and close them."""

    async def and_close() -> T:
        try:
            return await work
        finally:
            for client in clients:
                await client.close()

    return asyncio.run(and_close())
