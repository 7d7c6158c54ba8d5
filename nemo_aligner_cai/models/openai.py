# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Client of OpenAI-compatible servers: NIM and NVIDIA's hosted API, vLLM, TensorRT-LLM, SGLang, NeMo's own /v1.

Input:  Request -> {"model": ..., "messages": [{"role": "user", "content": ...}], "temperature": ..., "seed": ...}
Output: {"choices": [{"message": {"content": ...}, "finish_reason": "stop"}], "usage": {...}} -> Completion
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
from yarl import URL

from nemo_aligner_cai.chat import ChatTemplate
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models.base import CallFailed, ClientStats, Completion, Request, ServerRefused, Usage
from nemo_aligner_cai.models.body_changes import BodyChanges
from nemo_aligner_cai.models.http.endpoint_folder import EndpointFolder
from nemo_aligner_cai.models.http.endpoint_pool import EndpointPool
from nemo_aligner_cai.models.http.exchange import proxy_of
from nemo_aligner_cai.models.http.open_files import allowed_connections
from nemo_aligner_cai.models.http.rate_limiter import RateLimiter
from nemo_aligner_cai.models.http.retry import RetryableError, RetryPolicy
from nemo_aligner_cai.models.http.transport import Transport
from nemo_aligner_cai.models.scoring.choice_scorer import ChoiceScorer, Parse
from nemo_aligner_cai.models.served import fetch_context_length, fetch_served_model
from nemo_aligner_cai.models.thinking import format_reasoning, strip_reasoning

_log = logging.getLogger(__name__)
_SHOWN_NAME = 100
"""Characters of a model's name in a message."""
_CHAT, _COMPLETIONS = "/chat/completions", "/completions"
_EMPTY_RETRIES = 2
"""Retries of an empty reply: overloaded servers send some, and a model may mean it."""
_COMPLETE = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", None)
"""Finish reasons of a complete reply."""
_WITHHELD = ("content_filter", "tool_calls", "function_call", "refusal")
"""Finish reasons that a retry would not change."""
_INVALID_SETTINGS = (400, 422)
_MAX_TOKEN_COUNT = 1 << 53
_MAX_ASKED = 8
"""Servers of a pool that are asked for their model until one reports it."""
_AFFINITY_CHARS = 256
"""Characters of a prompt that identify the requests of one record for prefix caching."""


def chat_url(url: str) -> str:
    """Return the chat endpoint of a URL: of the endpoint itself, of its ``/v1``, or of the server.

    Raises:
        UsageError: not an http(s) URL.
    """
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_valid = is_server and not re.search(r"[\s\x00-\x1f\x7f]", url)
    except ValueError:
        parts, is_valid = None, False
    if parts is not None and (parts.username or parts.password or parts.query or parts.fragment):
        # The message does not show the URL: it may contain a secret.
        raise UsageError(
            "the address of a server must not contain a user, password, query or fragment; write "
            "http://HOST:PORT/v1, and name the environment variable that holds the key with --api-key-env"
        )
    if parts is None or not is_valid:
        raise UsageError(f"{url!r} is not the address of a server; write http://HOST:PORT/v1")
    url = url.rstrip("/")
    if url.endswith(_CHAT):
        return url
    return url + ("/v1" if parts.path in ("", "/") else "") + _CHAT


def _base_url(url: str) -> str:
    """Return the address to which the paths of requests are appended; raises UsageError if it is invalid."""
    address = chat_url(url).removesuffix(_CHAT)
    # An unsupported proxy must be found before the first request.
    proxy_of(URL(address))
    return address


def _pool(urls: str | Sequence[str] | Path, concurrency: int) -> tuple[EndpointPool, EndpointFolder | None]:
    """Return the servers, and the folder that lists them, if any."""
    if isinstance(urls, Path):
        pool = EndpointPool(per_endpoint=concurrency, total=allowed_connections(), name=str(urls), is_changing=True)
        return pool, EndpointFolder(urls, pool, _base_url)
    addresses = map(_base_url, (urls,) if isinstance(urls, str) else urls)
    return EndpointPool(addresses, per_endpoint=concurrency, total=concurrency), None


class OpenAIClient:
    """A `ModelClient` for one model on one or several equivalent OpenAI-compatible servers."""

    def __init__(
        self,
        urls: str | Sequence[str] | Path,
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
        """Create a client. Nothing is sent yet.

        Args:
            urls: one or several servers of the same model, or a folder with a file for each server that is healthy
                (`endpoint_folder.py`). Requests go to the least busy one.
            model: the model's name on the server.
            key: the API key, see `api_keys.key_from_environment`.
            concurrency: maximum number of requests in flight: over all servers, or to each server of a folder.
            retry_policy: timeouts and retries.
            requests_per_minute: the service's limit, if any.
            tokens_per_minute: the service's limit on prompt and completion tokens together, if any.
            changes: keys to add to request bodies, or to omit.
            template: the model's chat template, to score choices on ``/v1/completions``.
        """
        self.name = model
        self._pool, self._folder = _pool(urls, concurrency)
        self._changes = changes or BodyChanges()
        self.identity: Mapping[str, Any] = {
            "server": "openai",
            "model": model,
            # Otherwise the server's own template applies.
            **({"template": content_hash(repr(template))} if template else {}),
            **self._changes.identity,
        }
        self._rate_limiter = RateLimiter(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
        self._key = key

        def transport(path: str) -> Transport:
            return Transport(
                self._pool,
                path,
                method="POST",
                retry_policy=retry_policy or RetryPolicy(),
                rate_limiter=self._rate_limiter,
                key=key,
            )

        self._chat, self._completions = transport(_CHAT), transport(_COMPLETIONS)
        self._completions.stats = self._chat.stats
        self.stats: ClientStats = self._chat.stats
        self._reasons = self._warned = False
        self._scorer = ChoiceScorer(self._send_scoring, template)

    @property
    def concurrency(self) -> int:
        """Maximum number of requests in flight. It changes with the number of servers in a folder."""
        return self._pool.concurrency

    async def complete(self, request: Request) -> Completion:
        """Send one request. Empty replies are retried."""
        if self._folder is not None:
            self._folder.watch()
        if request.choices:
            return await self._scorer.score(request)
        completion = await self._complete_once(request)
        for _ in range(_EMPTY_RETRIES):
            if completion.text.strip():
                break
            self.stats.retries += 1
            completion = await self._complete_once(request)
        return completion

    async def _complete_once(self, request: Request) -> Completion:
        """Send a request, again with `request.room` tokens if the model turns out to write its reasoning first."""
        sent = request
        if self._reasons and request.room > request.sampling.max_tokens:
            sent = replace(request, sampling=replace(request.sampling, max_tokens=request.room))
        limit = sent.sampling.max_tokens
        completion = await self._send(
            self._body(sent), request, lambda response: _parse(response, limit), lambda: self._body(request.probe())
        )
        if sent.sampling.max_tokens < request.room and strip_reasoning(completion.text) is None:
            self._reasons = True
            return await self._complete_once(request)
        return completion

    async def _send_scoring(
        self,
        body: Mapping[str, Any],
        request: Request,
        parse: Parse,
        probe: Callable[[], Mapping[str, Any]],
    ) -> Completion:
        def parse_response(response: Any) -> Completion:
            choice, text = _first_choice(response, is_chat="messages" in body)
            completion = replace(parse(choice, text), usage=_usage(response.get("usage")))
            if completion.choice_logprobs is None:
                _finish_reason(choice.get("finish_reason"))
            return completion

        model = {"model": self.name}
        return await self._send({**model, **body}, request, parse_response, lambda: {**model, **probe()})

    async def _send(
        self,
        body: Mapping[str, Any],
        request: Request,
        parse: Callable[[Any], Completion],
        probe: Callable[[], Mapping[str, Any]],
    ) -> Completion:
        transport = self._chat if "messages" in body else self._completions

        def parse_response(response: Any) -> Completion:
            completion = parse(response)
            self._check_model(response.get("model"))
            return completion

        try:
            completion = await transport.send(
                self._changes.apply(body),
                parse_response,
                probe=lambda: self._changes.apply(probe()),
                priority=request.priority,
                affinity=_affinity(request),
            )
        except ServerRefused as refusal:
            if refusal.status not in _INVALID_SETTINGS:
                raise
            advice = self._changes.advice(str(refusal), body)
            raise ServerRefused(f"{refusal}{advice}", status=refusal.status) from None
        self.stats.count(completion)
        if completion.usage is not None:
            self._rate_limiter.record_reply(completion.usage.completion_tokens)
        return completion

    def _check_model(self, answered: Any) -> None:
        """Log once if another model than the requested one answered, as behind gateways with fallbacks."""
        # "openai/gpt-4o" is answered by "gpt-4o-2024-08-06": gateways have prefixes, and versions longer names.
        name = self.name.rpartition("/")[2]
        if self._warned or not isinstance(answered, str) or not answered or name.lower() in answered.lower():
            return
        self._warned = True
        _log.warning(
            "the model %r was requested, but %r answered; if it is another model, disable the gateway's fallback, "
            "or correct --model, and start again with --overwrite",
            self.name,
            answered[:_SHOWN_NAME],
        )

    async def served_model(self) -> dict[str, str] | None:
        """Return the model that the server reports."""
        urls = [f"{address}/models" for address in self._pool.addresses[:_MAX_ASKED]]
        return await fetch_served_model(urls, self.name, self._key)

    async def context_length(self) -> int | None:
        """Return the context that the server reports, as vLLM and `cai serve` do, in tokens."""
        urls = [f"{address}/models" for address in self._pool.addresses[:1]]
        return await fetch_context_length(urls, self.name, self._key)

    async def close(self) -> None:
        """Close all connections."""
        if self._folder is not None:
            self._folder.close()
        await self._chat.close()
        await self._completions.close()

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.name,
            "messages": request.escaped_messages,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.is_greedy:
            body |= {"temperature": 0.0}
        else:
            body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            if sampling.seed is not None:
                body["seed"] = sampling.seed
            if sampling.top_k:
                body["top_k"] = sampling.top_k
        # Sent only if set: these keys are not part of OpenAI's protocol, and some servers reject them.
        if sampling.min_tokens > 1:
            body["min_tokens"] = sampling.min_tokens
        if sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.schema is not None:
            schema = {"name": request.schema.get("title", "answer"), "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def _affinity(request: Request) -> int:
    """Return equal values for one record's requests, which begin with the same few-shot examples and prompt."""
    return hash(request.conversation.messages[request.shared].content[:_AFFINITY_CHARS])


def _parse(response: Any, max_tokens: int) -> Completion:
    """Convert a response; raises RetryableError if it is malformed, CallFailed if a retry would not help."""
    choice, text = _first_choice(response)
    finish_reason, usage = choice.get("finish_reason"), _usage(response.get("usage"))
    if finish_reason is None and usage is not None and usage.completion_tokens >= max_tokens:
        # Some servers give no reason, and a reply of all its tokens would be trained without its end.
        finish_reason = "length"
    is_cut = finish_reason == "length"
    if not text.strip():
        # A truncated reply may consist of reasoning only, which servers return separately or not at all. White space
        # is a text of a model that writes no reasoning.
        reasoning = choice["message"].get("reasoning_content") or choice["message"].get("reasoning")
        reasoning = reasoning if isinstance(reasoning, str) else ""
        if reasoning.strip() or (is_cut and not text):
            text = format_reasoning(reasoning, is_cut=is_cut)
    return Completion(text, _finish_reason(finish_reason), usage, raw=choice)


def _first_choice(response: Any, *, is_chat: bool = True) -> tuple[Mapping[str, Any], str]:
    """Return the first choice and its text; raises RetryableError if there is none."""
    try:
        choice = response["choices"][0]
        text = _content_text(choice["message"].get("content")) if is_chat else choice["text"]
        choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RetryableError("malformed answer") from None
    if text is None:
        # A refusal, a tool call or a filtered reply has no content, or a content of null.
        text = ""
    if not isinstance(text, str) or not _is_serializable(choice):
        raise RetryableError("malformed answer")
    return choice, text


def _content_text(content: Any) -> Any:
    """Return the text of a message's content. Mistral's API sends a list with separate reasoning parts."""
    if not isinstance(content, list):
        return content
    parts = cast(list[Any], content)
    reasoning = [part["thinking"] for part in parts if part.get("type") == "thinking"]
    answer = _join_texts(parts)
    if not reasoning:
        return answer
    return format_reasoning("".join(map(_join_texts, reasoning)), is_cut=not answer) + answer


def _join_texts(parts: Any) -> str:
    return parts if isinstance(parts, str) else "".join(part["text"] for part in parts if part.get("type") == "text")


def _is_serializable(raw: Any) -> bool:
    """False for numbers beyond 64 bits and deeply nested lists, which the journal cannot write."""
    try:
        # One level deeper, as in the journal's entry.
        orjson.dumps([raw])
    except TypeError:
        return False
    return True


def _finish_reason(reason: Any) -> str:
    """Map the server's finish reason to "stop" or "length". Replies with other reasons may be incomplete."""
    if reason in _COMPLETE:
        return "stop"
    if reason == "length":
        return "length"
    if reason in _WITHHELD:
        raise CallFailed(f"the server ended the reply: {reason}")
    raise RetryableError(f"the reply was broken off: {reason}"[:80])


def _usage(usage: Any) -> Usage | None:
    try:
        counts = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Usage(*counts) if all(0 <= count < _MAX_TOKEN_COUNT for count in counts) else None
