# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What the stand-in answers, and what it counts.

POST /v1/chat/completions   as OpenAI has it, one choice, not streamed
GET  /v1/models, /health    the model's name; whether it serves
GET  /stats                 what was asked since the last reset, see `StandIn.stats`
POST /reset                 start counting anew
POST /away                  {"seconds": 5, "how": "closed" or "503"}: be away for a while
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from benchmarks.standin.connection import Connection
from benchmarks.standin.faults import STATUSES, Faults
from benchmarks.standin.replies import BYTES_PER_TOKEN, Lengths, Reply, content_digest, reply_to
from benchmarks.standin.slots import Job, Pace, Slots

HOST = "127.0.0.1"


class StandIn:
    """A server; `start` opens its socket, and everything happens in the event loop that is running then."""

    def __init__(
        self,
        *,
        pace: Pace | None = None,
        lengths: Lengths | None = None,
        faults: Faults | None = None,
        retry_after: float = 1.0,
        slow_seconds: float = 5.0,
        host: str = HOST,
    ) -> None:
        """Create a server that does not listen yet.

        Args:
            pace: slots and times.
            lengths: of the replies.
            faults: shares of the attempts that fail.
            retry_after: seconds, sent with status 429.
            slow_seconds: delay of an answer that the fault "slow" hits.
            host: the address to listen on.
        """
        self.host = host
        self._pace = pace or Pace()
        self._lengths = lengths or Lengths()
        self.faults = faults or Faults()
        self._retry_after, self._slow_seconds = retry_after, slow_seconds
        self._slots = Slots(self._pace)
        self._jobs: dict[Connection, Job] = {}
        self._connections: set[Connection] = set()
        self._socket: asyncio.Server | None = None
        self._turning_away = False
        self.port = 0
        self._reset()

    def _reset(self) -> None:
        self._slots.reset_counts()
        self._attempts: dict[bytes, int] = {}
        self._requests = 0
        self._answered = 0
        self._most_in_flight = 0
        self._by_messages: Counter[int] = Counter()
        self._injected: Counter[str] = Counter()
        self._first: float | None = None
        self._last = 0.0

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._socket = await loop.create_server(self._connection, self.host, port or self.port, backlog=1024)
        self.port = self._socket.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening, and break off every connection."""
        if self._socket is not None:
            self._socket.close()
        for connection in tuple(self._connections):
            connection.reset()

    @property
    def url(self) -> str:
        """What a client is given."""
        return f"http://{self.host}:{self.port}/v1"

    @property
    def slot_seconds(self) -> float:
        """Slot-seconds in use so far."""
        return self._slots.used

    @property
    def requests(self) -> int:
        """Chat requests so far, repeated ones included."""
        return self._requests

    @property
    def answered(self) -> int:
        """Requests that it has answered."""
        return self._answered

    @property
    def contents(self) -> Iterable[bytes]:
        """The digests of the different requests."""
        return self._attempts.keys()

    def stats(self) -> dict[str, Any]:
        """What happened since the last reset.

        ``requests`` counts chat requests, faults included, and ``contents`` those that differ; ``repeated`` is the
        difference. ``by_messages`` counts them by the length of the conversation, which tells the steps of a chain
        apart. ``makespan`` goes from the first request to the last answer, and ``utilization`` is the share of its
        slot-seconds that wrote or read tokens. ``cached_tokens`` are those of ``prompt_tokens`` that the prefix cache
        knew.
        """
        makespan = self._last - self._first if self._first is not None else 0.0
        slots = self._slots
        return {
            "requests": self._requests,
            "contents": len(self._attempts),
            "repeated": self._requests - len(self._attempts),
            "answered": self._answered,
            "by_messages": {str(length): count for length, count in sorted(self._by_messages.items())},
            "faults": dict(sorted(self._injected.items())),
            "in_flight": len(self._jobs),
            "most_in_flight": self._most_in_flight,
            "makespan": makespan,
            "slot_seconds": slots.busy,
            "utilization": slots.busy / (self._pace.slots * makespan) if makespan else 0.0,
            "prompt_tokens": slots.prompt_tokens,
            "cached_tokens": slots.cached_tokens,
            "written_tokens": slots.written_tokens,
        }

    def _connection(self) -> Connection:
        return Connection(self._handle, self._connections.add, self._lost)

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if (job := self._jobs.pop(connection, None)) is not None:
            self._slots.abandon(job)

    def _handle(self, connection: Connection, method: str, path: str, content: bytes) -> None:
        if self._turning_away and path != "/stats":
            connection.send_json({"error": {"message": "away"}}, 503)
        elif (method, path) == ("POST", "/v1/chat/completions"):
            self._chat(connection, content)
        elif (method, path) == ("GET", "/stats"):
            connection.send_json(self.stats())
        elif (method, path) == ("POST", "/reset"):
            self._reset()
            connection.send_json({})
        elif (method, path) == ("POST", "/away"):
            self._go_away(connection, **orjson.loads(content))
        elif (method, path) in (("GET", "/v1/models"), ("GET", "/health")):
            connection.send_json({"object": "list", "data": [{"id": "standin", "object": "model"}]})
        else:
            connection.send_json({"error": {"message": f"no such thing here: {method} {path}"}}, 404)

    def _chat(self, connection: Connection, content: bytes) -> None:
        try:
            body = orjson.loads(content)
            digest = content_digest(body)
            prompt = rendered(body)
            reply = reply_to(body, digest, self._lengths)
            if body.get("stream") or body.get("n", 1) != 1:
                raise ValueError("neither streams nor several choices are answered here")
        except (KeyError, TypeError, ValueError) as error:
            connection.send_json({"error": {"message": f"not a chat request: {error!r}"}}, 400)
            return
        attempt = self._attempts[digest] = self._attempts.get(digest, 0) + 1
        self._requests += 1
        self._by_messages[len(body["messages"])] += 1
        now = asyncio.get_running_loop().time()
        self._first = now if self._first is None else self._first
        fault = self.faults.of(digest, attempt)
        if fault is not None:
            self._injected[fault] += 1
        if fault in STATUSES:
            headers = {"Retry-After": f"{self._retry_after:g}"} if fault == "429" else None
            connection.send_json({"error": {"message": "told to"}}, STATUSES[fault], headers)
        elif fault == "reset":
            connection.reset()
        elif fault != "hang":
            self._generate(connection, prompt, reply, answer_to(body, digest, prompt, reply), fault)

    def _generate(
        self, connection: Connection, prompt: str, reply: Reply, answer: dict[str, Any], fault: str | None
    ) -> None:
        def done(cached: int) -> None:
            self._jobs.pop(connection, None)
            self._answered += 1
            self._last = asyncio.get_running_loop().time()
            answer["usage"]["prompt_tokens_details"] = {"cached_tokens": cached}
            if fault == "slow":
                asyncio.get_running_loop().call_later(self._slow_seconds, self._send_late, connection, answer)
            else:
                _send(connection, answer, fault)

        job = Job(prompt.encode(), (prompt + reply.text).encode(), reply.tokens, done)
        self._jobs[connection] = job
        self._most_in_flight = max(self._most_in_flight, len(self._jobs))
        self._slots.submit(job)

    def _send_late(self, connection: Connection, answer: dict[str, Any]) -> None:
        if connection in self._connections:
            _send(connection, answer, None)

    def _go_away(self, connection: Connection, *, seconds: float, how: str = "closed") -> None:
        """Answer first, then be away."""
        connection.send_json({})
        loop = asyncio.get_running_loop()
        self._turning_away = how == "503"
        if how == "closed":
            loop.call_later(0.05, self.close)
        loop.call_later(seconds, self._come_back, how)

    def _come_back(self, how: str) -> None:
        self._turning_away = False
        if how == "closed":
            self._opening = asyncio.ensure_future(self.start())


def rendered(body: Mapping[str, Any]) -> str:
    """The prompt as a chat template makes it: with the reply behind it, it begins the conversation's next prompt."""
    turns = "".join(f"<{one['role']}>{one['content']}" for one in body["messages"])
    return turns + ("" if body.get("continue_final_message") else "<assistant>")


def answer_to(body: Mapping[str, Any], digest: bytes, prompt: str, reply: Reply) -> dict[str, Any]:
    """The answer of a server without faults; `digest`, `prompt` and `reply` are those of the body."""
    read = -(-len(prompt.encode()) // BYTES_PER_TOKEN)
    return {
        "id": f"chatcmpl-{digest.hex()}",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "standin"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": reply.text, "refusal": None},
                "logprobs": reply.logprobs,
                "finish_reason": reply.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": reply.tokens,
            "total_tokens": read + reply.tokens,
        },
    }


def _send(connection: Connection, answer: dict[str, Any], fault: str | None) -> None:
    choice = answer["choices"][0]
    text: str = choice["message"]["content"]
    if fault == "empty":
        choice["message"]["content"] = ""
    elif fault == "length":
        choice["message"]["content"], choice["finish_reason"] = text[: len(text) // 2], "length"
    payload = orjson.dumps(answer)
    if fault == "malformed":
        payload = b"<html>" + payload
    elif fault == "utf8":
        payload = payload.replace(json.dumps(text).encode()[1:-1], b"\xff\xfe" + text.encode())
    if fault == "truncated":
        connection.send_half(payload)
    else:
        connection.send(payload)
