# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The server's routes.

PUT  /generate              like NeMo's server; chat messages are rendered with the model's template
POST /v1/chat/completions   like OpenAI's and vLLM's
POST /v1/completions        the same, with `echo`
GET  /v1/models             the model's name and the hash of its file
GET  /health
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from nemo_aligner_cai.chat import ChatTemplate, Conversation, TokenPolicy, guard
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.training.serving import responses
from nemo_aligner_cai.training.serving.calls import ChatCall, CompletionCall, GenerateCall, SampleCall
from nemo_aligner_cai.training.serving.engine import Engine, Row, SamplingSettings
from nemo_aligner_cai.training.serving.model_info import Text
from nemo_aligner_cai.training.serving.replies import Ending
from nemo_aligner_cai.training.serving.request_body import MOST_BYTES, Limits, RequestError, read_body

_log = logging.getLogger(__name__)
_BLOCK = 1 << 16
_MOST_DISCARDED = 1 << 28
"""Bytes of a too large body that are read: a client does not read the response while it is sending."""


@dataclass(frozen=True)
class Server:
    """The state of the routes.

    Attributes:
        name: the model's name.
        root: the path of its file.
        fingerprint: the hash of its file, computed in the background.
        created: start of the server, in seconds since the epoch.
        template: its chat template; None if it has none.
        log_requests: log the body of each request.
    """

    engine: Engine
    text: Text
    name: str
    root: str
    fingerprint: Future[str]
    created: int
    template: ChatTemplate | None
    log_requests: bool

    @property
    def limits(self) -> Limits:
        """The bounds of requests."""
        return Limits(self.engine.vocabulary, (self.name,))

    def model(self) -> dict[str, Any]:
        """The model in OpenAI's format, with vLLM's `root` and `max_model_len`, and the hash of its file."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "nemo_aligner_cai",
            "root": self.root,
            "max_model_len": self.engine.positions,
            "fingerprint": self.fingerprint.result(),
        }

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Respond to `/generate`."""
        call = GenerateCall.parse(body, self.limits)
        if isinstance(call.sentences[0], Conversation):
            return self._generate_chat(call)
        prompts = [self._sentence(str(text), place, call.add_bos) for place, text in enumerate(call.sentences)]
        return _to_lists(self.engine.nemo_generate(call, prompts, call.end_strings), call)

    def _sentence(self, text: str, place: int, add_bos: bool) -> list[int]:
        where = f"sentences[{place}]"
        if add_bos and not text:
            return [self.engine.bos]
        ids = self.engine.tokenize(text, where)
        ids = [self.engine.bos, *ids] if add_bos else ids
        self.engine.check_prompt(ids, where)
        return ids

    def _generate_chat(self, call: GenerateCall) -> dict[str, Any]:
        """NeMo's response with the parsed replies, which clients cannot find without the chat template."""
        prompts = [
            self._chat_ids(conversation, f"sentences[{place}]", continue_final=False)
            for place, conversation in enumerate(call.sentences)
            if isinstance(conversation, Conversation)
        ]
        ending = Ending(tuple(text for text in call.end_strings if text != "<|endoftext|>"), self._template())
        stops = dict.fromkeys((*ending.strings, *call.end_strings))
        output = _to_lists(self.engine.nemo_generate(call, prompts, tuple(stops)), call)
        replies: list[dict[str, str]] = []
        for prompt, ids in zip(prompts, output["token_ids"], strict=True):
            tokens, ended = self.engine.up_to_end(ids[len(prompt) :][: call.tokens_to_generate], ending.strings)
            reply = ending.reply(self.text.after(prompt, tokens), ended=ended)
            replies.append({"text": reply.text, "finish_reason": reply.finish_reason})
        return output | {"replies": replies}

    def sample(self, call: SampleCall) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """Respond to one of OpenAI's routes: a response, or the chunks of a stream."""
        prompts = [self._prompt_ids(call, prompt) for prompt in call.prompts]
        ending = Ending(call.stop, self._template() if call.chat else None)
        rows = [
            Row(tuple(prompt), self._limit(call, prompt), ending.strings) for prompt in prompts for _ in range(call.n)
        ]
        sampling = SamplingSettings(
            greedy=call.greedy,
            temperature=1.0 if call.greedy else call.temperature,
            top_p=1.0 if call.greedy else call.top_p,
            top_k=0 if call.greedy else call.top_k,
            min_tokens=min(call.min_tokens, *(row.limit for row in rows)),
            penalty=call.repetition_penalty,
            logprobs=call.logprobs,
            echo=call.echo and call.logprobs is not None,
        )
        texts = [
            given if isinstance(given, str) else self.text.after((), ids)
            for given, ids in zip(call.prompts, prompts, strict=True)
        ]
        head = responses.head(call, self.name, self.fingerprint.result())
        builder = responses.ResponseBuilder(call, rows, texts, ending, self.text, head)
        if call.stream:
            return builder.chunks(self.engine.stream(rows, sampling, call.seed))
        return builder.response(self.engine.generate(rows, sampling, call.seed))

    def _limit(self, call: SampleCall, prompt: list[int]) -> int:
        room = self.engine.room(prompt)
        # NeMo needs one step to process the prompt even without a reply.
        return room if call.max_tokens is None else min(room, max(1, call.max_tokens))

    def _prompt_ids(self, call: SampleCall, prompt: Conversation | str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, Conversation):
            continued = isinstance(call, ChatCall) and call.continue_final_message
            return self._chat_ids(prompt, "messages", continue_final=continued)
        if isinstance(prompt, str):
            return self.engine.tokenize(prompt, "prompt")
        self.engine.check_prompt(prompt, "prompt")
        return list(prompt)

    def _template(self) -> ChatTemplate:
        if self.template is None:
            raise RequestError(
                400,
                f"the model {self.name} has no chat template; start the server with --chat-template NAME, or send "
                "a text to /v1/completions",
                code="no_chat_template",
            )
        return self.template

    def _chat_ids(self, conversation: Conversation, where: str, *, continue_final: bool) -> list[int]:
        template = self._template()
        # Texts of requests are untrusted: they must not forge a turn.
        safe = guard(conversation, template, policy=TokenPolicy.ESCAPE, counts=RowCounts())
        assert safe is not None, "this policy does not drop conversations"
        try:
            if continue_final:
                text = template.generation_prompt(safe.without_last()) + template.reply_start
                text += safe.messages[-1].content
            else:
                text = template.generation_prompt(safe)
        except UsageError as error:
            raise RequestError(400, f"{where}: {error}", param=where) from None
        self.engine.check_text(text, where)
        ids = self.text.rendered_ids(text, template)
        self.engine.check_prompt(ids, where)
        return ids


def _to_lists(output: dict[str, Any], call: GenerateCall) -> dict[str, Any]:
    """NeMo's response with tensors as lists."""
    lists = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in output.items()}
    if not call.all_probs:
        del lists["full_logprob"]
    return lists


def make_app(server: Server) -> Flask:
    """The WSGI application."""
    app = Flask(__name__)

    def body() -> dict[str, Any]:
        content = _body()
        if server.log_requests:
            _log.info("%s %s: %s", request.method, request.path, content.decode("utf-8", "replace"))
        return read_body(content)

    def sample(call: type[SampleCall]) -> Response:
        response = server.sample(call.parse(body(), server.limits))
        return _json(response) if isinstance(response, dict) else _stream(response)

    def model(name: str) -> Response:
        if name != server.name:
            raise RequestError(404, f"model {name!r} is not served here", param="model", code="model_not_found")
        return _json(server.model())

    routes: tuple[tuple[str, str, Callable[..., Response]], ...] = (
        ("PUT", "/generate", lambda: _json(server.generate(body()))),
        ("POST", "/v1/chat/completions", lambda: sample(ChatCall)),
        ("POST", "/v1/completions", lambda: sample(CompletionCall)),
        ("GET", "/v1/models", lambda: _json({"object": "list", "data": [server.model()]})),
        ("GET", "/v1/models/<path:name>", model),
        ("GET", "/health", lambda: _json({"status": "ok"})),
    )
    for method, path, view in routes:
        app.add_url_rule(path, path, view, methods=[method])
    app.register_error_handler(Exception, _error_response)
    return app


def _error_response(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        message = f"{request.method} {request.path}: {error.name}"
        return _json(RequestError(error.code or 500, message).body(), error.code or 500)
    failure = _request_error(error)
    return _json(failure.body(), failure.status)


def _request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    _log.error("a request failed: %s", error)
    traceback.print_exception(error)
    line = str(error).strip().splitlines()[:1] or [""]
    return RequestError(500, f"generation failed: {type(error).__name__}: {line[0][:300]}")


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, mimetype="application/json")


def _stream(chunks: Iterator[dict[str, Any]]) -> Response:
    """Server-sent events."""

    def events() -> Iterator[bytes]:
        try:
            for chunk in chunks:
                yield b"data: " + orjson.dumps(chunk) + b"\n\n"
        except Exception as error:
            # The status has been sent: the error is an event.
            yield b"data: " + orjson.dumps(_request_error(error).body()) + b"\n\n"
        yield b"data: [DONE]\n\n"

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


def _body() -> bytes:
    """The request's body; raises RequestError if it is too large."""
    content, read = bytearray(), 0
    while block := request.stream.read(_BLOCK):
        read += len(block)
        if read <= MOST_BYTES:
            content += block
        elif read > _MOST_DISCARDED:
            break
    if read > MOST_BYTES:
        raise RequestError(413, f"the body has more than {MOST_BYTES} bytes")
    return bytes(content)
