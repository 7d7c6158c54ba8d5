# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for model servers, on real sockets: the answers' shapes are NeMo 2.2.1's and OpenAI's, the model is not.

`FakeNemo` serves ``PUT /generate`` as `MegatronServer` does: one batch at a time under a lock, one seed for the whole
batch, prompts decoded again from tokens (characters the tokenizer does not know come back as " ⁇ "), rows padded to
one length, errors about settings as HTTP 200 with a JSON string.
"""

import hashlib
import json
import math
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = re.compile(r"<extra_id_\d>|</s>|\n|▁?\w+|.", re.DOTALL)
_UNKNOWN = re.compile("[\U00010000-\U0010ffff]")


def answer_by_hash(prompt: str, rng: random.Random | None) -> str:
    """A reply that depends on the prompt, and on the batch's random numbers where there are any."""
    drawn = rng.randrange(10**6) if rng is not None else 0
    return f"reply {hashlib.sha256(prompt.encode()).hexdigest()[:8]} {drawn}"


class FakeServer:
    """A server in a thread; `with` starts and stops it. `faults` are taken from its front, one per request:

    an int is a status, "hang", "reset", "truncated", "garbage", "utf8" and "string" are what they say, None is none,
    "twice" sends the answer once more, "late" too, a moment later.
    """

    path = ""

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[int | str | None] = []
        self.fault_of: Callable[[dict[str, Any]], int | str | None] = lambda body: None
        self.retry_after = ""
        self.late = 0.02
        self.hangs = 1.0
        """Seconds after which "hang" closes the connection."""
        self.model: dict[str, Any] | None = None
        self.lock = threading.Lock()
        self.busy = 0
        self.most_busy = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self) -> None:
                if server.model is None:
                    self.send_error(404)
                    return
                payload = json.dumps({"object": "list", "data": server.list_models()}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def do_PUT(self) -> None:
                server.handle(self)

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that gave up on a hanging answer

        self._http = Server(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self.close()

    def close(self) -> None:
        """Give the port back."""
        self._http.server_close()

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["Content-Length"])))
        with self.lock:
            self.headers.append(dict(http.headers.items()))
            fault = self.faults.pop(0) if self.faults else self.fault_of(body)
        if http.path != self.path:
            fault = 404
        payload, status = b"", 200
        if fault == "hang":
            time.sleep(self.hangs)
            http.close_connection = True
            return
        if fault == "reset":
            http.connection.shutdown(socket.SHUT_RDWR)
            http.close_connection = True
            return
        if isinstance(fault, int):
            status, payload = fault, b'{"error": "told to"}'
        elif fault == "string":
            payload = b'"temperature must be a positive number less than or equal to 100.0"'
        elif fault == "garbage":
            payload = b"<html>busy</html>"
        elif fault == "utf8":
            payload = b'{"sentences": ["\xff\xfe"]}'
        else:
            with self.lock:
                self.bodies.append(body)
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
            status, answer = self.answer(body)
            payload = self.respond(http, json.dumps(answer).encode())
            with self.lock:
                self.busy -= 1
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(payload) + (50 if fault == "truncated" else 0)))
        if fault == "truncated":
            http.close_connection = True
        if status == 429 or (status == 503 and self.retry_after):
            http.send_header("Retry-After", self.retry_after or "0.05")
        http.end_headers()
        http.wfile.write(payload)
        if fault in ("twice", "late"):
            http.wfile.flush()
            time.sleep(self.late if fault == "late" else 0)
            http.send_response(status)
            http.send_header("Content-Length", str(len(payload)))
            http.end_headers()
            http.wfile.write(payload)

    def list_models(self) -> list[Any]:
        return [self.model]

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        raise NotImplementedError

    def respond(self, http: BaseHTTPRequestHandler, payload: bytes) -> bytes:
        return payload


class FakeNemo(FakeServer):
    """See the module.

    `reply(prompt, rng)` is what the model writes (rng None when greedy), without the end of its turn. `first_letter`
    says how probable "A" is, against "B", where a reply's letter stands.
    """

    path = "/generate"

    def __init__(
        self,
        reply: Callable[[str, random.Random | None], str] = answer_by_hash,
        *,
        first_letter: Callable[[str], float] = lambda prompt: 0.5,
        delay: float = 0.0,
        ending: str = "\n<extra_id_1>",
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.reply, self.first_letter, self.delay, self.ending = reply, first_letter, delay, ending
        self.generating = threading.Lock()

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        sentences = body["sentences"]
        if len(sentences) > 128:
            return 400, "Maximum number of sentences is 128"
        if not 0.0 < body.get("temperature", 1.0) <= 100.0:
            return 200, "temperature must be a positive number less than or equal to 100.0"
        if not isinstance(body.get("tokens_to_generate", 64), int) or body.get("tokens_to_generate", 64) < 1:
            return 200, "tokens_to_generate must be an integer greater than 0"
        seed = body.get("random_seed")
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            return 200, "random_seed must be a positive integer number or None"
        if sentences and isinstance(sentences[0], dict):
            sentences = self._chat(sentences)
        with self.generating:
            if self.delay:
                time.sleep(self.delay)
            rng = None if body.get("greedy") else random.Random(seed)
            return 200, self._generate(sentences, body, rng)

    def _chat(self, columns: list[dict[str, list[str]]]) -> list[str]:
        rows: list[str] = []
        for row in range(len(columns[0]["role"])):
            turns = [(column["role"][row], column["content"][row]) for column in columns]
            assert all(role in ("User", "Assistant") for role, _ in turns)
            rows.append("".join(f"[INST] {text} [/INST]" if role == "User" else text for role, text in turns))
        return rows

    def _generate(self, sentences: list[str], body: dict[str, Any], rng: random.Random | None) -> dict[str, Any]:
        rows: list[list[str]] = []
        for sentence in sentences:
            context = _PIECE.findall(sentence)
            written = _PIECE.findall(self.reply(sentence, rng) + self.ending)
            rows.append([*context, *written[: body["tokens_to_generate"]]])
        longest = max(map(len, rows))
        rows = [row + ["</s>"] * (longest - len(row)) for row in rows]
        logprob = [self._logprobs(row) for row in rows] if body.get("compute_logprob") else None
        return {
            "sentences": [_UNKNOWN.sub(" ⁇ ", "".join(row).replace("</s>", "")) for row in rows],
            "tokens": rows,
            "token_ids": [[int.from_bytes(hashlib.md5(t.encode()).digest()[:4], "big") for t in row] for row in rows],
            "logprob": logprob,
            "offsets": [[0] * len(row) for row in rows],
        }

    def _logprobs(self, row: list[str]) -> list[float]:
        scores: list[float] = []
        for position in range(1, len(row)):
            before = "".join(row[:position])
            if before.endswith("<extra_id_1>Assistant\n("):
                p = self.first_letter(before)
                scores.append(math.log({"A": p, "B": 1 - p}.get(row[position], 1e-9) or 1e-9))
            else:
                scores.append(-0.25)
        return scores


class FakeOpenAI(FakeServer):
    """A chat server. `reply(body)` is a text, or a whole ``choices[0]``."""

    path = "/v1/chat/completions"

    def __init__(self, reply: Callable[[dict[str, Any]], Any] = lambda body: "hello") -> None:
        super().__init__()
        self.reply = reply

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        said = self.reply(body)
        choice = said if isinstance(said, dict) else {"message": {"content": said}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


class FakeVllm(FakeOpenAI):
    """A chat server that continues the assistant's last message where it is asked to, and writes prose elsewhere.

    Its answers have the shape of vLLM's (`vllm_answers.json`): the sampled token stands first among its alternatives,
    which are the model's own at any temperature. `first(body)` says how probable "A" is against "B".

    Attributes:
        kind: "vllm" continues by flag, "llama.cpp" continues every last message of the assistant's and ignores flags,
            "strict" refuses flags that OpenAI does not have, "prose" ignores them.
    """

    def __init__(self, first: Callable[[dict[str, Any]], float] = lambda body: 0.62, *, kind: str = "vllm") -> None:
        super().__init__(self._reply)
        self.first, self.kind = first, kind

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.kind == "strict" and {"continue_final_message", "add_generation_prompt"} & set(body):
            return 400, {"error": {"message": "Unrecognized request argument supplied"}}
        return super().answer(body)

    def _reply(self, body: dict[str, Any]) -> Any:
        is_prefilled = body["messages"][-1]["role"] == "assistant"
        continues = is_prefilled and (body.get("continue_final_message") if self.kind == "vllm" else True)
        if self.kind == "prose":
            continues = False
        if continues and body["messages"][-1]["content"].endswith("("):
            p = self.first(body)
            token = self._token("C", {"A": 0.7 * p, "B": 0.7 * (1 - p), "C": 0.1, "D": 0.05})
            return {"message": {"content": "C"}, "finish_reason": "length", "logprobs": {"content": [token]}}
        token = self._token("Sure", {"Sure": 0.5, "\u010a": 0.3, "The": 0.1})
        logprobs = {"content": [token]} if body.get("logprobs") else None
        return {"message": {"content": "Sure, both are fine."}, "finish_reason": "stop", "logprobs": logprobs}

    @staticmethod
    def _token(sampled: str, alternatives: dict[str, float]) -> dict[str, Any]:
        entries = {token: {"token": token, "logprob": math.log(p)} for token, p in alternatives.items()}
        others = [entry for token, entry in entries.items() if token != sampled]
        return entries[sampled] | {"top_logprobs": [entries[sampled], *others]}
