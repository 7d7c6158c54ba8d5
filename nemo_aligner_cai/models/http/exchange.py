# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One HTTP exchange: safe connection reuse, bounded responses, key redaction, proxies, permanent failures.

Input:  an aiohttp response whose body has not been read
Output: the decompressed body of at most `limit` bytes
"""

import asyncio
import html
import logging
import re
import select
import socket
import ssl
import weakref
import zlib
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import quote, quote_plus
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from nemo_aligner_cai.errors import UsageError, one_line
from nemo_aligner_cai.models.http.inflate import INFLATE_ERRORS, Inflater
from nemo_aligner_cai.models.http.retry import RetryableError

ACCEPTED_ENCODINGS = "gzip, deflate"
"""Encodings that the standard library can decompress incrementally."""
_log = logging.getLogger(__name__)
_SMALL = 256 << 10
"""Bytes up to which responses are read concurrently; larger ones are read one at a time."""
_BLOCK = 64 << 10
_READ_BYTES = 16 << 10
"""Bytes that are read from a connection at once. asyncio takes 256 KiB from the heap for each read and gives nearly
all of them back. What is placed there meanwhile leaves gaps too small for the next read, so the heap grew by 167 bytes
with each call (glibc 2.36)."""
_MIN_REST = 0.25
"""Seconds between two uses of a connection."""
_MAX_RESTING = 512
"""Connections: enough for 2,000 short exchanges a second, below the usual limit on open files."""
_TLS_SECONDS = 2.0
_MIN_SECRET_LENGTH, _MIN_WORD_SECRET_LENGTH = 8, 20
_ESCAPE = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|(/)|.)", re.DOTALL)


class CleanConnector(aiohttp.TCPConnector):
    """A connection pool that never reuses a connection that has received an unsolicited response.

    A late or duplicate response would be taken for the response to the connection's next request. aiohttp checks for
    unread bytes only when a connection is released. Here a released connection rests first, for as long as its
    exchange took, and is checked again before reuse. Once a server has sent an unsolicited response, connections are
    not reused.
    """

    def __init__(self) -> None:
        """Create an empty pool without a limit."""
        super().__init__(limit=0)  # pyright: ignore[reportUnknownMemberType]
        self._used: weakref.WeakSet[asyncio.BaseProtocol] = weakref.WeakSet()
        self._by_server: dict[URL, weakref.WeakSet[asyncio.BaseProtocol]] = {}
        self._resting: dict[Connection, asyncio.TimerHandle] = {}
        self._reuses = True

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a new connection, or one without unread bytes."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol not in self._used:
                break
            self._check(connection, req.url)
            if self._reuses and not _is_readable(connection):
                break
            connection.close()
        assert connection.protocol is not None, "it is connected"
        self._used.add(connection.protocol)
        if hasattr(connection.transport, "max_size"):
            # Only asyncio's own transport of a plain socket has it.
            cast(Any, connection.transport).max_size = _READ_BYTES
        if req.proxy is None:
            self._by_server.setdefault(req.url.origin(), weakref.WeakSet()).add(connection.protocol)
        self._delay_release(connection, req.url)
        return connection

    def drop(self, url: URL) -> None:
        """Close all connections to a server; requests in progress on them fail. Does nothing behind a proxy."""
        for protocol in tuple(self._by_server.pop(url.origin(), ())):
            if isinstance(protocol, ResponseHandler) and protocol.transport is not None:
                protocol.transport.abort()

    async def close(self, **options: Any) -> None:
        """Release the resting connections and close the pool."""
        for connection, timer in self._resting.items():
            timer.cancel()
            Connection.release(connection)
        self._resting.clear()
        await super().close(**options)

    def _check(self, connection: Connection, url: URL) -> None:
        protocol = connection.protocol
        if self._reuses and protocol is not None and protocol.should_close and protocol.is_connected():
            self._reuses = False
            _log.warning("%s: sends more responses than requests; connections are no longer reused", url)

    def _delay_release(self, connection: Connection, url: URL) -> None:
        """Replace the connection's `release`, which aiohttp calls at the end of an exchange."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Weak: in a cycle with its method, each connection would wait for the garbage collector.
        reference = weakref.ref(connection)

        def rest() -> None:
            used = reference()
            assert used is not None, "it is released by its own method"
            if not self._reuses or len(self._resting) >= _MAX_RESTING or used.protocol is None:
                used.close()
            elif used.protocol.should_close:
                Connection.release(used)
            else:
                rest_seconds = max(_MIN_REST, loop.time() - started)
                self._resting[used] = loop.call_later(rest_seconds, self._release_rested, used, url)

        connection.release = rest

    def _release_rested(self, connection: Connection, url: URL) -> None:
        # aiohttp closes the connection here if something has arrived in the meantime.
        del self._resting[connection]
        self._check(connection, url)
        Connection.release(connection)


def _is_readable(connection: Connection) -> bool:
    """True if the kernel holds bytes or an end of file that the event loop has not read yet."""
    if connection.transport is None:
        return True
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket"), select.POLLIN)
    return bool(poll.poll(0))


async def read_payload(response: aiohttp.ClientResponse, *, limit: int, lock: asyncio.Lock) -> bytes:
    """Read and decompress the body of a response.

    Args:
        response: an unread response. aiohttp must not decompress it, since that needs memory for the whole body.
        limit: maximum number of bytes.
        lock: held while a large response is read, so that many of them cannot fill the memory.

    Raises:
        RetryableError: the body is too large, damaged, or in an encoding that was not requested.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    length = response.content_length
    if encoding == "identity" and length is not None and length <= _SMALL:
        return await response.read()
    payload = bytearray()
    inflater: Inflater | None = None
    has_lock = False
    try:
        async for piece in response.content.iter_any():
            if encoding != "identity" and inflater is None:
                window_bits = _window_bits(encoding, piece)
                if window_bits is None:
                    raise _malformed(response, f"content encoding {encoding!r} was not requested")
                inflater = Inflater(window_bits, block=_BLOCK)
            for block in inflater.feed(piece) if inflater is not None else (piece,):
                payload += block
                if len(payload) > limit:
                    raise _malformed(response, f"more than {limit >> 20} MiB")
                if len(payload) > _SMALL and not has_lock:
                    has_lock = await lock.acquire()
        if inflater is not None:
            inflater.finish()
        return bytes(payload)
    except INFLATE_ERRORS as error:
        raise _malformed(response, f"damaged compressed data ({error})") from None
    finally:
        payload.clear()
        if has_lock:
            lock.release()


def _window_bits(encoding: str, start: bytes) -> int | None:
    """Return zlib's `wbits` for a content encoding, or None if it is not supported."""
    if encoding in ("gzip", "x-gzip"):
        return zlib.MAX_WBITS | 16
    if encoding == "deflate":
        # Servers send either the zlib format, which RFC 9110 defines, or raw deflate data.
        is_zlib = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2].ljust(2), "big") % 31 == 0
        return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
    return None


def _malformed(response: aiohttp.ClientResponse, reason: str) -> RetryableError:
    return RetryableError("malformed answer", f"{response.url}: {reason}")


def redact(payload: bytes, key: str | None) -> bytes:
    """Replace the API key, which a server may echo with JSON escapes, by ``***``.

    Short or alphabetic keys, such as the placeholder "EMPTY", are kept: a reply may contain them as words.
    """
    if not key or len(key) < (_MIN_WORD_SECRET_LENGTH if key.isalpha() else _MIN_SECRET_LENGTH):
        return payload
    if b"\\/" in payload or b"\\u00" in payload:
        payload = _ESCAPE.sub(_unescape, payload)
    for spelling in key_spellings(key):
        payload = payload.replace(spelling.encode(), b"***")
    return payload


@lru_cache(maxsize=64)
def key_spellings(key: str) -> tuple[str, ...]:
    """Return the key's spellings in plain text, URLs, HTML, and JSON within JSON."""
    slashes = (key.replace("/", "\\" * count + "/") for count in range(4))
    urls = (quote(key, safe=""), quote(key), quote_plus(key))
    pages = (html.escape(key), *(_html_entities(key, form) for form in ("&#{};", "&#x{:X};", "&#x{:x};")))
    return tuple(dict.fromkeys((*slashes, *urls, *pages)))


def _html_entities(text: str, form: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else form.format(ord(c)) for c in text)


def _unescape(escape: re.Match[bytes]) -> bytes:
    """Resolve an escape that JSON does not require."""
    character = escape[2] or (bytes.fromhex(escape[1].decode()) if escape[1] else b"")
    return escape[0] if character in (b"", b'"', b"\\", b"\x7f") else character


def proxy_of(url: URL) -> URL | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY configure for a URL; None for loopback addresses.

    Raises:
        UsageError: the proxy's scheme is not supported.
    """
    host = url.host or ""
    proxies = getproxies()
    configured = proxies.get(url.scheme) or proxies.get("all")
    if not configured or _is_loopback(host) or proxy_bypass(f"{host}:{url.port}"):
        return None
    proxy = URL(configured if "://" in configured else f"http://{configured}")
    if proxy.scheme != "http" or not proxy.host:
        # The message does not show the proxy's URL, which may contain a password.
        raise UsageError(
            f"{url.origin()}: the environment configures a proxy with the unsupported scheme {proxy.scheme!r}; set "
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


def described(error: Exception) -> str:
    """Return the class and the message of a connection error; its repr would contain the headers, with the API key."""
    # str() of a response error has the URL and a status that no server sent.
    message = error.message if isinstance(error, aiohttp.ClientResponseError) else one_line(error)
    return f"{type(error).__name__}: {' '.join(message.split())}"


async def permanent_failure(error: Exception, url: URL) -> str | None:
    """Explain a connection error that every request to a URL would have; None if a later request may succeed."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"its certificate was rejected ({error.certificate_error}); use the host name of the certificate, or "
            "set SSL_CERT_FILE to its issuer's certificate"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"the TLS handshake failed ({error}); if the server does not use TLS, write http://"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.__cause__, socket.gaierror):
        return f"unknown host {error.host!r} ({error}); check the spelling"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses the connection: HTTP {error.status} {error.message}"
    if url.scheme == "http" and isinstance(error, aiohttp.ClientError) and await _speaks_tls(url):
        return "the server uses TLS; write https://"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the server does not speak HTTP: {error.message}"
    return None


async def _speaks_tls(url: URL) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Not wait_for: in Python 3.11 it drops a cancellation that arrives together with the result.
    opening = asyncio.ensure_future(asyncio.open_connection(url.host, url.port, ssl=context))
    try:
        await asyncio.wait({opening}, timeout=_TLS_SECONDS)
    finally:
        opening.cancel()
        (result,) = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(result, OSError | asyncio.CancelledError):
        return False
    if isinstance(result, BaseException):
        raise result
    _, writer = result
    writer.close()
    return True
