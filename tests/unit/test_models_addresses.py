# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Addresses at which no server of ours answers, and proxies: an error at once that says what to change."""

import asyncio
import shutil
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from yarl import URL

from nemo_aligner_cai.models import (
    OpenAIClient,
    ServerRefused,
)
from nemo_aligner_cai.models.http.exchange import proxy_of
from tests.unit.asking import ask, complete
from tests.unit.fake_servers import FakeOpenAI


def test_b9_a_redirect_names_the_address_to_use() -> None:
    class Moved(FakeOpenAI):
        def handle(self, http: BaseHTTPRequestHandler) -> None:
            http.rfile.read(int(http.headers["Content-Length"]))
            http.send_response(301)
            http.send_header("Location", "https://elsewhere.test/v1")
            http.send_header("Content-Length", "0")
            http.end_headers()

    with Moved() as server, pytest.raises(ServerRefused, match=r"https://elsewhere\.test/v1"):
        complete(server, ask())


def test_b9_an_unknown_host_ends_at_once() -> None:
    async def run() -> None:
        client = OpenAIClient("http://no-such-host.invalid", "m")
        try:
            await client.complete(ask())
        finally:
            await client.close()

    with pytest.raises(ServerRefused, match="no-such-host"):
        asyncio.run(asyncio.wait_for(run(), 30))


def test_b9_https_on_an_http_port_ends_at_once() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        client = OpenAIClient(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", "m")
        try:
            await client.complete(ask())
        finally:
            await client.close()
            server.close()

    with pytest.raises(ServerRefused, match="http://"):
        asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://api.test/v1", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://api.test/v1", {"https_proxy": "http://p:1", "no_proxy": "api.test"}, None),
        ("http://api.test/v1", {"https_proxy": "http://p:1"}, None),
        ("http://127.0.0.1:8000", {"http_proxy": "http://p:1"}, None),
        ("http://localhost:8000", {"http_proxy": "http://p:1"}, None),
        ("http://[::1]:8000", {"http_proxy": "http://p:1"}, None),
    ],
)
def test_b9_proxies(url: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_of(URL(url))
    assert (str(found).rstrip("/") if found else None) == proxy


def test_b9_http_on_an_https_port_ends_at_once(tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"]
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl")
    subprocess.run([*made, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def run(scheme: str) -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
        client = OpenAIClient(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", "m")
        try:
            await client.complete(ask())
        finally:
            await client.close()
            server.close()

    for scheme, advice in (("http", "https://"), ("https", "certificate")):
        with pytest.raises(ServerRefused, match=advice):
            asyncio.run(asyncio.wait_for(run(scheme), 30))
