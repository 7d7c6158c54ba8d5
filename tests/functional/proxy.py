# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A proxy between an actor and its critic, on the loopback interface, that gets in the way of chosen requests."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host"}


class Refused(Exception):
    """A request is to be answered with 500."""


@contextmanager
def proxy(port: int, passing: Callable[[str], AbstractContextManager[None]]) -> Iterator[int]:
    """Serve what `port` serves on another port, which is yielded.

    Args:
        port: of the server behind.
        passing: called with each request's path; the request is forwarded inside of what it returns, which may raise
            `Refused`.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            try:
                with passing(self.path):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    status, headers, content = answer.status, dict(answer.getheaders()), answer.read()
                    connection.close()
            except Refused:
                status, headers, content = 500, {}, b'{"error": "refused by the test"}'
            self.reply(status, headers, content)

        do_GET = do_POST = forward

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output to itself."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
