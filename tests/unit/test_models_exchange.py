# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Answers that come twice or late, are too deep or too large, or repeat the key."""

import asyncio
import gc
import gzip
import json
import random
import subprocess
import sys
import time
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from nemo_aligner_cai.models import (
    CallFailed,
    OpenAIClient,
    RetryPolicy,
    ServerRefused,
)
from nemo_aligner_cai.models.http.exchange import redact
from nemo_aligner_cai.models.http.retry import RetryableError
from tests.unit.asking import QUICK, Packing, ask, client_of, complete
from tests.unit.fake_servers import FakeNemo, FakeOpenAI, FakeServer
from tests.unit.living import living

SECRET = "nvapi-very-secret"


@pytest.mark.parametrize("kind", ["openai", "nemo"])
@pytest.mark.parametrize("fault", ["twice", "late"])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a4_a_second_answer_is_never_another_requests(kind: str, fault: str, concurrency: int) -> None:
    drawn = random.Random(1)
    server: FakeServer = FakeOpenAI(lambda body: f"re {body['messages'][0]['content']}")
    if kind == "nemo":
        server = FakeNemo(lambda prompt, _: f"re {prompt.split('User' + chr(10))[-1].splitlines()[0]}")
    server.fault_of = lambda body: fault if drawn.random() < 0.05 else None

    async def run() -> list[str]:
        client = client_of(server, concurrency=concurrency)
        answers = await asyncio.gather(*(client.complete(ask(f"number {number}")) for number in range(200)))
        await client.close()
        return [answer.text.strip() for answer in answers]

    with server:
        assert asyncio.run(run()) == [f"re number {number}" for number in range(200)]


def test_a4_a_late_answer_after_a_timeout_is_nobodys() -> None:
    slow = RetryPolicy(timeout=0.1, attempts=3, initial_wait=0.01)

    async def run(port: int) -> list[str]:
        client = OpenAIClient(f"http://127.0.0.1:{port}", "m", retry_policy=slow, concurrency=4)
        answers = await asyncio.gather(*(client.complete(ask(f"number {n}")) for n in range(20)))
        await client.close()
        return [answer.text for answer in answers]

    seen: set[str] = set()

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        if text not in seen and text.endswith("5"):
            seen.add(text)
            time.sleep(0.2)
        return f"re {text}"

    with FakeOpenAI(reply) as server:
        assert asyncio.run(run(server.port)) == [f"re number {n}" for n in range(20)]


def test_a_finished_exchange_leaves_no_trace_in_memory() -> None:
    async def run(server: FakeServer) -> tuple[int, int]:
        client = client_of(server, concurrency=4)
        await asyncio.gather(*(client.complete(ask(f"number {number}")) for number in range(100)))
        ends = [one for one in living(asyncio.Transport) if isinstance(one.get_protocol(), ResponseHandler)]
        sizes = [int(one.max_size) for one in ends]
        await client.close()
        await asyncio.sleep(0)
        return max(sizes), len(living(Connection, RetryableError))

    gc.collect()
    gc.disable()
    try:
        with FakeOpenAI(lambda body: "re") as server:
            server.faults = [500, *[None] * 20] * 2
            read_bytes, left = asyncio.run(run(server))
    finally:
        gc.enable()
    # Reads of 256 KiB, asyncio's size, would make gaps in the heap.
    assert read_bytes <= 16 << 10
    assert left == 0, "connections and errors that wait for the garbage collector"


@pytest.mark.parametrize("depth", [253, 254, 300, 900, 1000, 1023, 5000])
@pytest.mark.parametrize("place", ["choice", "content", "answer", "usage"])
def test_b6_deep_answers_are_malformed(depth: int, place: str) -> None:
    deep = "[" * depth + "]" * depth
    content, usage = '"x"', '{"prompt_tokens": 1, "completion_tokens": 1}'
    choice = f'{{"message": {{"content": {deep if place == "content" else content}}}, "finish_reason": "stop"'
    choice += f', "extra": {deep}}}' if place == "choice" else "}"
    answer = f'{{"choices": [{choice}], "usage": {deep if place == "usage" else usage}}}'

    class Deep(FakeOpenAI):
        def respond(self, http: BaseHTTPRequestHandler, payload: bytes) -> bytes:
            return (deep if place == "answer" else answer).encode()

    with Deep() as server:
        if place == "usage" and depth < 1024:
            assert complete(server, ask()).text == "x"
        else:
            with pytest.raises(CallFailed, match="malformed answer"):
                complete(server, ask())


def test_b6_the_deepest_choice_that_is_taken_fits_into_a_journal() -> None:
    nested: Any = 1
    for _ in range(251):
        nested = [nested]
    with FakeOpenAI(lambda body: {"message": {"content": "x"}, "extra": nested}) as server:
        raw = complete(server, ask()).raw
    orjson.dumps({"raw": raw})


ANSWER = json.dumps({"choices": [{"message": {"content": "hello " * 1000}, "finish_reason": "stop"}]}).encode()


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("", ANSWER),
        ("gzip", gzip.compress(ANSWER)),
        ("x-gzip", gzip.compress(ANSWER[:50]) + gzip.compress(ANSWER[50:])),
        ("deflate", zlib.compress(ANSWER)),
        ("deflate", bare_deflate(ANSWER)),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_b7_packed_answers_are_read(encoding: str, packed: bytes, chunked: bool) -> None:
    with Packing(encoding, packed, chunked=chunked) as server:
        assert complete(server, ask()).text == "hello " * 1000


BOMB = b'{"choices": "' + b" " * (8 << 20) + b'"}'


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("", BOMB),
        ("gzip", gzip.compress(BOMB)),
        ("deflate", zlib.compress(BOMB)),
        ("br", ANSWER),
        ("zstd", ANSWER),
        ("gzip, gzip", ANSWER),
        ("gzip", ANSWER),
        ("gzip", gzip.compress(ANSWER)[:-20]),
    ],
    ids=["bomb", "gzip-bomb", "deflate-bomb", "br", "zstd", "twice", "not-packed", "cut"],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_b7_bombs_and_what_was_not_asked_for_are_malformed(encoding: str, packed: bytes, chunked: bool) -> None:
    with Packing(encoding, packed, chunked=chunked) as server, pytest.raises(CallFailed, match="malformed answer"):
        complete(server, ask())
    assert len(server.bodies) == QUICK.attempts


@pytest.mark.parametrize("spelled", [SECRET, SECRET.replace("-", "\\u002d"), SECRET.replace("-", "\\u002D")])
def test_c4_a_key_that_an_answer_repeats_is_hidden(spelled: str) -> None:
    answer = f'{{"choices": [{{"message": {{"content": "it is {spelled}"}}, "x": "{spelled}"}}]}}'.encode()
    with Packing("", answer) as server:
        completion = complete(server, ask(), key=SECRET)
    assert SECRET not in completion.text + json.dumps(completion.raw) and "***" in completion.text


ODD_SECRET = "nvapi-SECRET/key+1234=="


@pytest.mark.parametrize(
    "spelled",
    [
        ODD_SECRET.replace("/", "\\/"),
        ODD_SECRET.replace("/", "\\\\/"),
        ODD_SECRET.replace("/", "\\\\\\/"),
        ODD_SECRET.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D"),
        ODD_SECRET.replace("/", "&#x2F;").replace("+", "&#x2B;").replace("=", "&#x3D;"),
        ODD_SECRET.replace("/", "&#47;").replace("+", "&#43;").replace("=", "&#61;"),
    ],
)
def test_c4_a_key_in_another_spelling_is_hidden(spelled: str) -> None:
    answer = f'{{"choices": [{{"message": {{"content": "it is {spelled}"}}}}]}}'.encode()
    with Packing("", answer) as server:
        assert "SECRET" not in repr(complete(server, ask(), key=ODD_SECRET))

    class Moved(FakeOpenAI):
        def handle(self, http: BaseHTTPRequestHandler) -> None:
            http.send_response(302)
            http.send_header("Location", f"http://elsewhere/?key={spelled}")
            http.send_header("Content-Length", "0")
            http.end_headers()

    with Moved() as server, pytest.raises(ServerRefused) as caught:
        complete(server, ask(), key=ODD_SECRET)
    assert "SECRET" not in str(caught.value)


def test_c4_half_a_key_at_the_cut_is_hidden_in_malformed_answers() -> None:
    for pad in range(200, 300, 7):
        answer = json.dumps({"choices": "x" * pad + SECRET}).encode()
        with Packing("", answer) as server, pytest.raises(CallFailed) as caught:
            complete(server, ask(), key=SECRET)
        assert SECRET[:5] not in str(caught.value)


@pytest.mark.parametrize("valid", [0, 1])
def test_c4_an_invalid_status_line_does_not_show_the_key(valid: int) -> None:
    async def run(padding: int) -> str:
        count = 0

        async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            if await reader.readexactly(4) != b"POST":
                writer.close()  # it is asked whether it speaks TLS
                return
            count += 1
            await reader.readuntil(b"\r\n\r\n")
            good = b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}'
            if count <= valid:
                head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(good)
                writer.write(head + good)
            else:
                writer.write(b"HTTP/1.1 %b%b broken\r\n\r\n" % (b"x" * padding, SECRET.encode()))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        client = OpenAIClient(url, "m", key=SECRET, retry_policy=QUICK)
        try:
            for _ in range(valid):
                await client.complete(ask())
            with pytest.raises((CallFailed, ServerRefused)) as failure:
                await client.complete(ask())
            return str(failure.value)
        finally:
            await client.close()
            server.close()

    for padding in range(0, 300, 30):
        message = asyncio.run(run(padding))
        assert "status" in message
        assert SECRET[:5] not in message
        assert "Authorization" not in message


def test_c4_placeholders_and_escapes_stay() -> None:
    payload = rb'{"a": "EMPTY \\u0041 \u00e9 \u0022 \/ caf\u00e9 placeholder"}'
    for key in (None, "EMPTY", "placeholder", SECRET):
        assert json.loads(redact(payload, key)) == json.loads(payload)


_BOMBED = """
import asyncio, gzip, io
from tests.unit.peak_memory import peak_memory
from tests.unit.asking import Packing, ask, client_of
packed = io.BytesIO()
with gzip.open(packed, "wb", compresslevel=9) as handle:
    handle.write(b'{"choices": "')
    for _ in range(400):
        handle.write(b" " * (1 << 20))
async def run():
    with Packing("gzip", packed.getvalue()) as server:
        client = client_of(server, concurrency=32)
        answers = await asyncio.gather(*(client.complete(ask(str(n))) for n in range(32)), return_exceptions=True)
        await client.close()
    print({type(answer).__name__ for answer in answers}, peak_memory())
asyncio.run(run())
"""


@pytest.mark.slow
def test_b7_many_bombs_at_once_take_little_memory(repo_root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _BOMBED], capture_output=True, text=True, check=True, cwd=repo_root)
    kinds, megabytes = done.stdout.rsplit(maxsplit=1)
    assert kinds == "{'CallFailed'}" and int(megabytes) < 300
