# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One HTTP exchange: connections that are safe to reuse, answers of bounded size, proxies, addresses that cannot work.

Input:  an aiohttp response with headers and a body that is still on its way
Output: the body, decompressed, at most `limit` bytes; Retriable where it is not that
"""

import asyncio
import html
import re
import select
import socket
import ssl
import weakref
import zlib
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import quote, quote_plus
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.gzip_reader import GZIP_ERRORS, Inflater
from nemo_aligner_cai.models.retry import RetryableError

ACCEPTED_ENCODINGS = "gzip, deflate"
"""Only what the standard library decompresses piece by piece."""
_SMALL = 256 << 10
"""Bytes of an answer that any number of requests may hold at once; longer answers are read one at a time."""
_BLOCK = 64 << 10
_LEAST_REST = 0.25
"""Seconds between two uses of a connection."""
_MOST_RESTING = 512
"""Connections: enough for 2,000 short exchanges a second, and within what systems allow a process to open."""
_TLS_SECONDS = 2.0
_LEAST_SECRET, _SECRET_WORD = 8, 20
_ESCAPE = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|(/)|.)", re.DOTALL)


class CleanConnector(aiohttp.TCPConnector):
    """A connection pool that gives out no connection on which an answer came that nobody waits for.

    A late or a second answer would be taken for that of the connection's next request. aiohttp looks for unread bytes
    at the moment when a connection is given back. Here a connection rests first, for as long as its exchange took, and
    is looked at again before it is used. A server that has sent such an answer gets a new connection for each request.
    """

    def __init__(self) -> None:
        """An empty pool without a limit."""
        super().__init__(limit=0)  # pyright: ignore[reportUnknownMemberType]
        self._used: weakref.WeakSet[asyncio.BaseProtocol] = weakref.WeakSet()
        self._resting: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self.caught = False

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A connection that is new, or has nothing unread on it."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol not in self._used:
                break
            self._look_at(connection)
            if not self.caught and not _is_readable(connection):
                break
            connection.close()
        assert connection.protocol is not None, "it is connected"
        self._used.add(connection.protocol)
        self._let_rest(connection)
        return connection

    def drop_resting(self) -> None:
        """Give back the connections that rest; call it before the session is closed."""
        for give_back, timer in self._resting.items():
            timer.cancel()
            give_back()
        self._resting.clear()

    def _look_at(self, connection: Connection) -> None:
        protocol = connection.protocol
        if protocol is not None and protocol.should_close and protocol.is_connected():
            self.caught = True

    def _let_rest(self, connection: Connection) -> None:
        """Delay the moment when the connection is given back, which is when aiohttp calls its `release`."""
        loop = asyncio.get_running_loop()
        taken, give_back = loop.time(), connection.release

        def rested() -> None:
            # aiohttp closes it now where something has arrived in the meantime.
            del self._resting[give_back]
            self._look_at(connection)
            give_back()

        def release() -> None:
            if self.caught or len(self._resting) >= _MOST_RESTING or connection.protocol is None:
                connection.close()
            elif connection.protocol.should_close:
                give_back()
            else:
                self._resting[give_back] = loop.call_later(max(_LEAST_REST, loop.time() - taken), rested)

        connection.release = release


def _is_readable(connection: Connection) -> bool:
    """Whether the system holds bytes, or the connection's end, that the event loop has not read yet."""
    if connection.transport is None:
        return True
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


async def read_payload(response: aiohttp.ClientResponse, *, limit: int, turn: asyncio.Lock) -> bytes:
    """The body of an answer, decompressed.

    Args:
        response: not yet read, and not decompressed by aiohttp, which would hold all of it in memory.
        limit: the most bytes that it may have.
        turn: held while a long answer is read, so that not many of them fill the memory at once.

    Raises:
        Retriable: it is too long, damaged, or compressed in a way that was not asked for.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    length = response.content_length
    if encoding == "identity" and length is not None and length <= _SMALL:
        return await response.read()
    payload = bytearray()
    inflater: Inflater | None = None
    has_turn = False
    try:
        async for piece in response.content.iter_any():
            if encoding != "identity":
                inflater = inflater or Inflater(_window_bits(encoding, piece), block=_BLOCK)
            for block in inflater.feed(piece) if inflater is not None else (piece,):
                payload += block
                if len(payload) > limit:
                    raise _malformed(response, f"it has more than {limit >> 20} MiB")
                if len(payload) > _SMALL and not has_turn:
                    has_turn = await turn.acquire()
        if inflater is not None:
            inflater.finish()
        return bytes(payload)
    except GZIP_ERRORS as error:
        raise _malformed(response, f"its compressed data is damaged ({error})") from None
    except _UnknownEncoding:
        raise _malformed(response, f"its content encoding {encoding!r} was not asked for") from None
    finally:
        payload.clear()
        if has_turn:
            turn.release()


class _UnknownEncoding(Exception):
    pass


def _window_bits(encoding: str, start: bytes) -> int:
    """What zlib calls a content encoding."""
    if encoding in ("gzip", "x-gzip"):
        return zlib.MAX_WBITS | 16
    if encoding == "deflate":
        # Some servers send the zlib format, which the standard names, and some the bare one.
        named = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2].ljust(2), "big") % 31 == 0
        return zlib.MAX_WBITS if named else -zlib.MAX_WBITS
    raise _UnknownEncoding


def _malformed(response: aiohttp.ClientResponse, why: str) -> RetryableError:
    return RetryableError("malformed answer", f"{response.url}: {why}")


def redacted(payload: bytes, key: str | None) -> bytes:
    """An answer without the API key, which a server may repeat in any part of it, and JSON may spell with escapes.

    Placeholders for a key that nobody checks, such as "EMPTY", stay: they are words that a reply may contain.
    """
    if not key or len(key) < (_SECRET_WORD if key.isalpha() else _LEAST_SECRET):
        return payload
    if b"\\/" in payload or b"\\u00" in payload:
        payload = _ESCAPE.sub(_unescaped, payload)
    for spelled in spellings(key):
        payload = payload.replace(spelled.encode(), b"***")
    return payload


@lru_cache(maxsize=64)
def spellings(key: str) -> tuple[str, ...]:
    """A key as it stands in texts, addresses, web pages, and JSON within JSON."""
    slashes = (key.replace("/", "\\" * count + "/") for count in range(4))
    quoted = (quote(key, safe=""), quote(key), quote_plus(key))
    pages = (html.escape(key), *(_by_number(key, form) for form in ("&#{};", "&#x{:X};", "&#x{:x};")))
    return tuple(dict.fromkeys((*slashes, *quoted, *pages)))


def _by_number(text: str, form: str) -> str:
    return "".join(one if one.isalnum() or one in "-_." else form.format(ord(one)) for one in text)


def _unescaped(escape: re.Match[bytes]) -> bytes:
    """A character for its escape, where JSON needs none."""
    character = escape[2] or (bytes.fromhex(escape[1].decode()) if escape[1] else b"")
    return escape[0] if character in (b"", b'"', b"\\", b"\x7f") else character


def proxy_of(url: URL) -> URL | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, HTTP_PROXY, NO_PROXY); None on this machine.

    Raises:
        UsageError: it is a kind of proxy that cannot be used.
    """
    host = url.host or ""
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or _is_loopback(host) or proxy_bypass(f"{host}:{url.port}"):
        return None
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.host:
        # Its address is not shown: it may hold a password.
        raise UsageError(
            f"{url.origin()}: the environment names a proxy of the kind {proxy.scheme!r} for it; set "
            f"{url.scheme.upper()}_PROXY to http://HOST:PORT, or NO_PROXY to {host}"
        )
    return proxy


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def hopeless(error: Exception, url: URL) -> str | None:
    """Why no request can get through to an address that has never served one; None where a later one may."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"its certificate is not accepted ({error.certificate_error}); write the host that the certificate is "
            "for, or name its issuer: SSL_CERT_FILE=FILE"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"TLS cannot be spoken there ({error}); if the server has none, write http://"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.__cause__, socket.gaierror):
        return f"the name {error.host!r} is not known ({error}); is it spelled as it should be?"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses the connection: HTTP {error.status} {error.message}"
    if url.scheme == "http" and isinstance(error, aiohttp.ClientError) and await _speaks_tls(url):
        return "the server speaks TLS; write https://"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the server does not speak HTTP: {error.message}"
    return None


async def _speaks_tls(url: URL) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        opened = asyncio.open_connection(url.host, url.port, ssl=context)
        _, writer = await asyncio.wait_for(opened, _TLS_SECONDS)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True
