# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Just enough of HTTP/1.1 on asyncio's sockets: a server framework would cost more than all else that happens here."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

import orjson

_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client's connection; its requests are answered one after the other.

    `handle(connection, method, path, content)` has to end in one of `send`, `send_half` and `reset`, at once or later;
    `lost` is called when the client is gone.
    """

    def __init__(
        self,
        handle: Callable[["Connection", str, str, bytes], None],
        opened: Callable[["Connection"], None],
        lost: Callable[["Connection"], None],
    ) -> None:
        """See the class."""
        self._handle, self._opened, self._lost = handle, opened, lost
        self._buffer = bytearray()
        self._answering = False
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        self._next()

    def _next(self) -> None:
        while not self._answering and (end := self._buffer.find(_HEAD_END)) >= 0:
            line, *fields = bytes(self._buffer[:end]).split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (field.partition(b":") for field in fields)}
            start = end + len(_HEAD_END)
            stop = start + int(headers.get(b"content-length", b"0"))
            if len(self._buffer) < stop:
                return
            content = bytes(self._buffer[start:stop])
            del self._buffer[:stop]
            method, path, _ = line.decode("latin-1").split(" ", 2)
            self._answering, self._last = True, headers.get(b"connection") == b"close"
            self._handle(self, method, path, content)

    def send(self, payload: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer the request."""
        self._transport.write(_head(status, len(payload), headers) + payload)
        self._answering = False
        if self._last:
            self._transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    def send_json(self, answer: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer the request with a JSON document."""
        self.send(orjson.dumps(answer), status, headers)

    def send_half(self, payload: bytes) -> None:
        """Promise the whole payload, send half of it, and close."""
        self._transport.write(_head(200, len(payload), None) + payload[: len(payload) // 2])
        self._transport.close()

    def reset(self) -> None:
        """Break the connection off, as a crashed server's machine does."""
        # Closing without lingering sends RST in place of FIN.
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._transport.abort()


def _head(status: int, length: int, headers: Mapping[str, str] | None) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode("latin-1")
