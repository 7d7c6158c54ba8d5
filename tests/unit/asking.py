# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Requests to fake servers."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.models import (
    Completion,
    ModelClient,
    NemoServerClient,
    OpenAIClient,
    Request,
    RetryPolicy,
    Sampling,
)
from tests.unit.fake_servers import FakeNemo, FakeOpenAI, FakeServer

QUICK = RetryPolicy(timeout=2.0, attempts=2, max_outage=2.0, initial_wait=0.01, max_wait=0.05)


def ask(text: str = "q") -> Request:
    return Request(Conversation.of_user(text), Sampling(seed=1))


def client_of(server: FakeServer, **kwargs: Any) -> ModelClient:
    if isinstance(server, FakeNemo):
        return NemoServerClient("127.0.0.1", server.port, retry_policy=QUICK, **kwargs)
    return OpenAIClient(f"http://127.0.0.1:{server.port}", "m", retry_policy=QUICK, **kwargs)


def complete(server: FakeServer, request: Request, **kwargs: Any) -> Completion:
    async def run() -> Completion:
        client = client_of(server, **kwargs)
        try:
            return await client.complete(request)
        finally:
            await client.close()

    return asyncio.run(run())


class Packing(FakeOpenAI):
    """Sends `packed` with a content encoding."""

    def __init__(self, encoding: str, packed: bytes, *, chunked: bool = False) -> None:
        super().__init__()
        self.encoding, self.packed, self.chunked = encoding, packed, chunked

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        body = http.rfile.read(int(http.headers["Content-Length"]))
        self.bodies.append(json.loads(body))
        self.headers.append(dict(http.headers.items()))
        http.send_response(200)
        if self.encoding:
            http.send_header("Content-Encoding", self.encoding)
        if self.chunked:
            http.send_header("Transfer-Encoding", "chunked")
            http.end_headers()
            for start in range(0, len(self.packed), 1000):
                part = self.packed[start : start + 1000]
                http.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            http.wfile.write(b"0\r\n\r\n")
        else:
            http.send_header("Content-Length", str(len(self.packed)))
            http.end_headers()
            http.wfile.write(self.packed)
