# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Servers that answer twice, reject one request or all, send bombs, repeat the key, or are not at the address."""

import asyncio
import gzip
import json
import random
import shutil
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import orjson
import pytest
from yarl import URL

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.engine import Engine, Outcome, Step
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.models import (
    BodyChanges,
    CallFailed,
    Completion,
    ModelClient,
    NemoServerClient,
    OpenAIClient,
    Request,
    RetryPolicy,
    Sampling,
    ServerRefused,
)
from nemo_aligner_cai.models.http.exchange import proxy_of, redact
from tests.unit.fake_servers import FakeNemo, FakeOpenAI, FakeServer

QUICK = RetryPolicy(timeout=2.0, attempts=2, max_outage=2.0, initial_wait=0.01, max_wait=0.05)
SECRET = "nvapi-very-secret"


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


def steps_of(client: ModelClient) -> Step[Any]:
    return Step("answer", client, lambda record: [ask(record.id)], lambda record, answers: record)


class Record:
    def __init__(self, name: str) -> None:
        self.id = name


def served(server: FakeServer, names: list[str], concurrency: int) -> list[tuple[str, str | None]]:
    """(record, why it was dropped) of a run."""
    outcomes: list[tuple[str, str | None]] = []

    def finished(outcome: Outcome[Any]) -> None:
        outcomes.append((outcome.record.id, outcome.skipped.reason if outcome.skipped else None))

    async def run() -> None:
        client = client_of(server, concurrency=concurrency)
        try:
            await Engine(seed=1).run([Record(name) for name in names], [steps_of(client)], finished)
        finally:
            await client.close()

    asyncio.run(run())
    return outcomes


def flag(status: int | str, word: str = "bad") -> Callable[[dict[str, Any]], int | str | None]:
    return lambda body: status if word in json.dumps(body) else None


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 302, 451])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_b1_rejected_prompts_are_their_own_failure_wherever_they_stand(status: int, concurrency: int) -> None:
    names = [f"bad {n}" for n in range(12)] + [f"{'bad' if n % 7 == 0 else 'good'} {n}" for n in range(40)]
    with FakeOpenAI() as server:
        server.fault_of = flag(status)
        outcomes = served(server, names, concurrency)
    expected = [(name, f"answer call failed: HTTP {status}" if "bad" in name else None) for name in names]
    assert outcomes == expected


def test_b1_a_batch_with_a_rejected_sentence_is_halved() -> None:
    names = [f"{'bad' if n in (3, 17) else 'good'} {n}" for n in range(20)]
    with FakeNemo() as server:
        server.fault_of = flag(403)
        assert [name for name, why in served(server, names, 3) if why] == ["bad 3", "bad 17"]


@pytest.mark.parametrize("concurrency", [1, 16])
def test_b1_a_server_that_rejects_greetings_too_serves_what_it_has_served(concurrency: int) -> None:
    names = [f"{'bad' if n in (25, 30, 31) else 'good'} {n}" for n in range(40)]
    with FakeOpenAI() as server:
        server.fault_of = lambda body: (
            403 if {"bad", "Hello"} & set(json.dumps(body).replace('"', " ").split()) else None
        )
        assert [name for name, why in served(server, names, concurrency) if why] == ["bad 25", "bad 30", "bad 31"]
        greetings = len(server.headers) - len(server.bodies) - 3
    assert greetings <= 1


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("status", [401, 403, 404, 400, 422, 301])
def test_b1_a_server_that_rejects_all_ends_the_run_at_once(status: int, concurrency: int) -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: status
        with pytest.raises(ServerRefused, match=f"HTTP {status}"):
            served(server, [str(n) for n in range(1000)], concurrency)
    assert len(server.headers) <= concurrency + 4


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("status", [400, 403])
def test_b1_a_server_that_rejects_the_first_prompts_and_greetings_serves_others(status: int, concurrency: int) -> None:
    names = [f"{'bad' if n in (0, 1, 30) else 'good'} {n}" for n in range(40)]
    with FakeOpenAI() as server:
        server.fault_of = lambda body: (
            status if {"bad", "Hello"} & set(json.dumps(body).replace('"', " ").split()) else None
        )
        assert [name for name, why in served(server, names, concurrency) if why] == ["bad 0", "bad 1", "bad 30"]
    assert len(server.headers) <= len(names) + 4


@pytest.mark.parametrize("concurrency", [1, 16])
def test_b1_a_key_that_is_revoked_ends_the_run(concurrency: int) -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: 401 if len(server.headers) > 50 else None
        with pytest.raises(ServerRefused, match="HTTP 401"):
            served(server, [str(n) for n in range(1000)], concurrency)
    assert len(server.headers) <= 52 + 2 * concurrency, "one more may be sent while the run stops"


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


def test_c4_placeholders_and_escapes_stay() -> None:
    payload = rb'{"a": "EMPTY \\u0041 \u00e9 \u0022 \/ caf\u00e9 placeholder"}'
    for key in (None, "EMPTY", "placeholder", SECRET):
        assert json.loads(redact(payload, key)) == json.loads(payload)


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


def test_b8_the_first_failure_is_logged_with_the_servers_words(caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI() as server:
        server.fault_of = flag(400)
        served(server, ["good", "bad 1", "bad 2"], 1)
    assert [("bad 1" in line, "told to" in line) for line in caplog.messages] == [(True, True)]


@pytest.mark.parametrize("written", [0, 3])
def test_b8_the_end_message_holds_the_servers_words(written: int) -> None:
    summary = Summary(RowCounts(rows_in=5, written=written), faults=5 - written, first_fault="HTTP 400: told to")
    with pytest.raises(CaiError, match="told to"):
        summary.check(0.01)


def test_d13_keys_are_omitted_renamed_and_added() -> None:
    changes = BodyChanges({"top_logprobs": 5, "chat_template_kwargs": {"x": 1}}, {"seed": None, "max_tokens": "m_c_t"})
    with FakeOpenAI() as server:
        complete(server, ask(), changes=changes)
        complete(server, replace(ask(), choices=("A", "B")), changes=changes)
    free = server.bodies[0]
    scored = next(body for body in server.bodies if "top_logprobs" in body)
    assert "seed" not in free and "top_logprobs" not in free and free["m_c_t"] == 1024
    assert free["chat_template_kwargs"] == {"x": 1} and scored["top_logprobs"] == 5 and "m_c_t" in scored


@pytest.mark.parametrize(
    ("extra", "omitted"),
    [({"messages": []}, {}), ({"stream": True}, {}), ({}, {"model": None}), ({}, {"sed": None}), ({}, {"seed": "n"})],
)
def test_d13_keys_that_cannot_be_changed(extra: dict[str, Any], omitted: dict[str, str | None]) -> None:
    with pytest.raises(UsageError):
        BodyChanges(extra, omitted)


def test_d13_journal_keys_change_with_the_body_alone() -> None:
    plain = OpenAIClient("http://127.0.0.1:1", "m").identity
    assert OpenAIClient("http://127.0.0.1:1", "m", changes=BodyChanges()).identity == plain
    assert OpenAIClient("http://127.0.0.1:1", "m", changes=BodyChanges({}, {"seed": None})).identity != plain


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Unknown parameter: 'repetition_penalty'", "--omit repetition_penalty"),
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "--omit max_tokens=max_completion_tokens",
        ),
    ],
)
def test_d13_an_unknown_key_names_the_flag(words: str, advice: str) -> None:
    class Strict(FakeOpenAI):
        def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
            return 400, {"error": {"message": words}}

    request = Request(Conversation.of_user("q"), Sampling(repetition_penalty=1.2))
    with Strict() as server, pytest.raises(ServerRefused, match=advice):
        complete(server, request)


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


_BOMBED = """
import asyncio, gzip, io
from tests.unit.peak_memory import peak_memory
from tests.unit.test_models_exchange import Packing, ask, client_of
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
