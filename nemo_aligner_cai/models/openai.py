# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""OpenAI-compatible chat servers: NIM and NVIDIA's hosted API, vLLM, TensorRT-LLM, SGLang, NeMo's own /v1.

Input:  Request -> {"model": ..., "messages": [{"role": "user", "content": ...}], "temperature": ..., "seed": ...}
Output: {"choices": [{"message": {"content": ...}, "finish_reason": "stop"}], "usage": {...}} -> Completion
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from nemo_aligner_cai.chat import ChatTemplate
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models.base import CallFailed, ClientStats, Completion, Request, ServerRefused, Usage
from nemo_aligner_cai.models.choice_scorer import ChoiceScorer
from nemo_aligner_cai.models.rate_limiter import RateLimiter
from nemo_aligner_cai.models.request_body import BodyChanges
from nemo_aligner_cai.models.retry import RetryableError, RetryPolicy
from nemo_aligner_cai.models.served import ask_for_model
from nemo_aligner_cai.models.thinking import answer_after, as_written
from nemo_aligner_cai.models.transport import Transport

_CHAT, _TEXT = "/chat/completions", "/completions"
_ASK_AGAIN = 2
"""Times that an empty reply is asked for again: overloaded servers send some, and a model may mean it."""
_COMPLETE = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", None)
"""Finish reasons of a whole reply."""
_WITHHELD = ("content_filter", "tool_calls", "function_call", "refusal")
"""Finish reasons of a reply that another attempt would not bring."""
_WRONG_SETTINGS = (400, 422)
_MOST_TOKENS = 1 << 53
_BEGINNING = 256
"""Characters of a prompt that tell chains apart which a server's prefix cache knows."""


def chat_url(url: str) -> str:
    """The chat endpoint from whatever a user gives: the endpoint itself, its ``/v1``, or just the server.

    Raises:
        UsageError: not an http(s) address.
    """
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        known = is_server and not re.search(r"[\s\x00-\x1f\x7f]", url)
    except ValueError:
        parts, known = None, False
    if parts is not None and (parts.username or parts.password or parts.query or parts.fragment):
        # Not shown: what is refused may be a secret, and addresses stand in manifests and errors.
        raise UsageError(
            "the address of a server must hold neither user, password nor query; write http://HOST:PORT/v1, and name "
            "the environment variable with the key by --api-key-env"
        )
    if parts is None or not known:
        raise UsageError(f"{url!r} is not the address of a server; write http://HOST:PORT/v1")
    url = url.rstrip("/")
    if url.endswith(_CHAT):
        return url
    return url + ("/v1" if parts.path in ("", "/") else "") + _CHAT


def key_from_environment(*names: str) -> str | None:
    """The first API key among these environment variables, None where none is set."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


class OpenAIClient:
    """A `ModelClient` for one model behind one or several equal OpenAI-compatible endpoints."""

    def __init__(
        self,
        urls: str | Sequence[str],
        model: str,
        *,
        key: str | None = None,
        concurrency: int = 64,
        retry_policy: RetryPolicy | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        changes: BodyChanges | None = None,
        template: ChatTemplate | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            urls: one or several addresses of servers of the same model; requests go to the least busy one.
            model: the model's name on the server.
            key: the API key, from the environment (`key_from_environment`).
            concurrency: requests in flight at most, over all endpoints.
            retry_policy: time-outs and retries.
            requests_per_minute: the service's quota, None where there is none.
            tokens_per_minute: likewise, tokens read and written together.
            changes: what is sent besides, or not sent.
            template: the model's chat template, by which choices are scored on ``/v1/completions``.
        """
        addresses = (urls,) if isinstance(urls, str) else tuple(urls)
        self.name = model
        self._changes = changes or BodyChanges()
        self.concurrency = concurrency
        self._rate_limiter = RateLimiter(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
        urls = tuple(map(chat_url, addresses))
        self._models_urls = [f"{url.removesuffix(_CHAT)}/models" for url in urls]
        self._key = key

        def transport(urls: tuple[str, ...]) -> Transport:
            return Transport(
                urls,
                method="POST",
                concurrency=concurrency,
                retry_policy=retry_policy or RetryPolicy(),
                rate_limiter=self._rate_limiter,
                key=key,
            )

        self._transport = transport(urls)
        # The same servers: one limit and one count.
        self._completions = transport(tuple(f"{url.removesuffix(_CHAT)}{_TEXT}" for url in urls))
        self._completions.semaphore, self._completions.stats = self._transport.semaphore, self._transport.stats
        self.stats: ClientStats = self._transport.stats
        self._thinks = False
        self._template = template
        self._scorer = ChoiceScorer(self._ask_for_scores, template)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name; the chat template is the server's, unless one is given."""
        template = {"template": content_hash(repr(self._template))} if self._template else {}
        return {"server": "openai", "model": self.name, **template, **self._changes.identity}

    async def complete(self, request: Request) -> Completion:
        """See `ModelClient`."""
        if request.choices:
            return await self._scorer.score(request, _safe_messages(request))
        completion = await self._once(request)
        for _ in range(_ASK_AGAIN):
            if completion.text.strip():
                break
            self.stats.retries += 1
            completion = await self._once(request)
        return completion

    async def _once(self, request: Request) -> Completion:
        asked = self._with_room(request) if self._thinks else request
        completion = await self._send(self._body(asked), request, _read, lambda: self._body(request.probe()))
        if asked.sampling.max_tokens < request.room and answer_after(completion.text) is None:
            self._thinks = True
            return await self._once(request)
        return completion

    @staticmethod
    def _with_room(request: Request) -> Request:
        """The request with room for thoughts before its answer, where it grants some."""
        tokens = max(request.room, request.sampling.max_tokens)
        return replace(request, sampling=replace(request.sampling, max_tokens=tokens))

    async def _ask_for_scores(
        self,
        body: Mapping[str, Any],
        request: Request,
        read: Callable[[Mapping[str, Any], str], Completion],
        probe: Callable[[], Mapping[str, Any]],
    ) -> Completion:
        def read_answer(answer: Any) -> Completion:
            choice, text = _first_choice(answer, is_chat="messages" in body)
            completion = replace(read(choice, text), usage=_usage(answer.get("usage")))
            if completion.choice_logprobs is None:
                _finish_reason(choice.get("finish_reason"))
            return completion

        model = {"model": self.name}
        return await self._send({**model, **body}, request, read_answer, lambda: {**model, **probe()})

    async def _send(
        self,
        body: Mapping[str, Any],
        request: Request,
        read: Callable[[Any], Completion],
        probe: Callable[[], Mapping[str, Any]],
    ) -> Completion:
        transport = self._transport if "messages" in body else self._completions
        try:
            completion = await transport.send(
                self._changes.apply(body),
                read,
                probe=lambda: self._changes.apply(probe()),
                priority=request.priority,
                affinity=_affinity(request),
            )
        except ServerRefused as refusal:
            if refusal.status not in _WRONG_SETTINGS:
                raise
            advice = self._changes.advice(str(refusal), body)
            raise ServerRefused(f"{refusal}{advice}", status=refusal.status) from None
        self.stats.count(completion)
        if completion.usage is not None:
            self._rate_limiter.record_reply(completion.usage.completion_tokens)
        return completion

    async def served_model(self) -> dict[str, str] | None:
        """See `TellsModel`."""
        return await ask_for_model(self._models_urls, self.name, self._key)

    async def close(self) -> None:
        """See `ModelClient`."""
        await self._transport.close()
        await self._completions.close()

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {"model": self.name, "messages": _safe_messages(request)}
        body |= {"max_tokens": sampling.max_tokens}
        if sampling.is_greedy:
            body |= {"temperature": 0.0}
        else:
            body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            if sampling.seed is not None:
                body["seed"] = sampling.seed
            if sampling.top_k:
                body["top_k"] = sampling.top_k
        # Not in OpenAI's own protocol, and refused by some servers: sent only when they are wanted.
        if sampling.min_tokens > 1:
            body["min_tokens"] = sampling.min_tokens
        if sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.schema is not None:
            form = {"name": request.schema.get("title", "answer"), "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _safe_messages(request: Request) -> list[dict[str, str]]:
    return request.messages if request.safe is request.conversation else request.safe.to_messages()


def _affinity(request: Request) -> int:
    """Equal for the calls of one record's chain: they begin with the shared messages and the same prompt."""
    own = request.conversation.messages[request.shared]
    return hash(own.content[:_BEGINNING])


def _read(answer: Any) -> Completion:
    """A completion from a server's answer; raises Retriable when it is not one, CallFailed when there will be none."""
    choice, text = _first_choice(answer)
    if not text.strip():
        # With a reasoning parser, a reply without room for its answer is nothing but thoughts.
        thoughts = choice["message"].get("reasoning_content") or choice["message"].get("reasoning")
        if isinstance(thoughts, str) and thoughts.strip():
            text = as_written(thoughts, is_cut=choice.get("finish_reason") == "length")
    return Completion(text, _finish_reason(choice.get("finish_reason")), _usage(answer.get("usage")), raw=choice)


def _first_choice(answer: Any, *, is_chat: bool = True) -> tuple[Mapping[str, Any], str]:
    """The first choice of a server's answer, and its text; raises Retriable where there is none."""
    try:
        choice = answer["choices"][0]
        text = _text_of(choice["message"]["content"]) if is_chat else choice["text"]
        choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RetryableError("malformed answer") from None
    if text is None:
        # A refusal field or a tool call instead of a text: upstream turns this into the word "None".
        text = ""
    if not isinstance(text, str) or not _can_be_kept(choice):
        raise RetryableError("malformed answer")
    return choice, text


def _text_of(content: Any) -> Any:
    """The text of a content that is a list of parts, as Mistral's API sends thoughts apart from an answer."""
    if not isinstance(content, list):
        return content
    parts = cast(list[Any], content)
    thoughts = [part["thinking"] for part in parts if part.get("type") == "thinking"]
    answer = _joined(parts)
    if not thoughts:
        return answer
    return as_written("".join(map(_joined, thoughts)), is_cut=not answer) + answer


def _joined(parts: Any) -> str:
    """The texts of a list of parts, or a text; raises TypeError, KeyError or AttributeError for anything else."""
    return parts if isinstance(parts, str) else "".join(part["text"] for part in parts if part.get("type") == "text")


def _can_be_kept(raw: Any) -> bool:
    """Whether the journal can write it: numbers beyond 64 bits and hundreds of nested lists it cannot."""
    try:
        # The journal's entry is around it.
        orjson.dumps([raw])
    except TypeError:
        return False
    return True


def _finish_reason(said: Any) -> str:
    """Ours for the server's. A reply that ended in no known way may be half a sentence, and is not taken for whole."""
    if said in _COMPLETE:
        return "stop"
    if said == "length":
        return "length"
    if said in _WITHHELD:
        raise CallFailed(f"the server ended the reply: {said}")
    raise RetryableError(f"the reply was broken off: {said}"[:80])


def _usage(usage: Any) -> Usage | None:
    try:
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Usage(*counts) if all(0 <= count < _MOST_TOKENS for count in counts) else None
