# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Client of NeMo's text-generation server (`MegatronServer`, ``PUT /generate``).

Input:  requests that differ in their conversations
        -> {"sentences": ["<extra_id_0>System\n...Assistant\n", ...], "tokens_to_generate": 256, "random_seed": 7}
Output: {"sentences": [prompt + reply, ...], "tokens": [...], "token_ids": [...], "logprob": [...]} -> completions

NeMo 2.2.1 behaves as follows:

* It decodes prompt and reply from their tokens, so unknown characters of the prompt are returned as "⁇" and the prompt
  cannot be removed by its length: the chat template locates the reply.
* It processes one batch at a time, with one seed for the whole batch and at most 128 sentences.
* It rejects an invalid setting with HTTP 200 and a JSON string.
* It sends the seed to the other ranks as a 32-bit float: above 24 bits they would use another seed than rank 0.
* Without `compute_logprob`, and with greedy sampling, `repetition_penalty` has no effect.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Role
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models.base import CallFailed, ClientStats, Completion, Request, Sampling, ServerRefused
from nemo_aligner_cai.models.http.endpoint_pool import EndpointPool
from nemo_aligner_cai.models.http.retry import RetryableError, RetryPolicy
from nemo_aligner_cai.models.http.transport import Transport
from nemo_aligner_cai.models.scoring.echo_check import echoes, resembles
from nemo_aligner_cai.models.scoring.nemo_scores import score_choices
from nemo_aligner_cai.models.served import fetch_context_length, fetch_served_model

_log = logging.getLogger(__name__)
MAX_SENTENCES = 128
"""The server's limit for one request."""
_SEED_BITS = 0xFFFFFF
_MIN_TEMPERATURE = 1e-8
"""The server needs a positive temperature even with greedy sampling."""
_END_TOKENS = frozenset({"</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<eos>", "<EOS>"})
"""End-of-text tokens, which the decoded sentence does not contain."""
_REFUSAL = "refused by the server"
_SPLITTABLE = re.compile("HTTP [34]..|HTTP 500")
"""Failures that a single prompt of a batch can cause."""
_MAX_RESPONSE_BYTES = 32 << 20
"""Enough for 128 sentences of 4,096 tokens, each with its text, id, offset and log-probability."""


class NemoServerClient:
    """A `ModelClient` and `BatchClient` for one NeMo text-generation server."""

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5656,
        *,
        model: str = "nemo",
        template: ChatTemplate = NEMO_CHAT,
        batch_size: int = 64,
        add_bos: bool = False,
        server_template: bool = False,
        concurrency: int = 3,
        retry_policy: RetryPolicy | None = None,
    ) -> None:
        """Create a client. Nothing is sent yet.

        Args:
            host: the server's name or address.
            port: the server's port.
            model: a name for the model. The server has none; journals distinguish models by it.
            template: renders conversations and locates replies.
            batch_size: sentences per request, at most 128.
            add_bos: prepend the tokenizer's begin-of-text token.
            server_template: send messages and let the server render them. `cai serve` uses the model's own template
                and returns the replies. NeMo's server needs a tokenizer with a template, and `template` locates the
                replies.
            concurrency: maximum number of batches in flight. The server processes one; the others keep it busy.
            retry_policy: timeouts and retries. A timeout includes waiting for earlier batches.
        """
        if not 1 <= batch_size <= MAX_SENTENCES:
            raise UsageError(f"NeMo's server accepts 1 to {MAX_SENTENCES} sentences per request, not {batch_size}")
        self.name = model
        self.template = template
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.identity: Mapping[str, Any] = {
            "server": "nemo",
            "model": model,
            "template": content_hash(repr(template)),
            "add_bos": add_bos,
            "server_template": server_template,
        }
        self._models_url = f"http://{host}:{port}/v1/models"
        self._add_bos = add_bos
        self._server_template = server_template
        self._transport = Transport(
            EndpointPool([f"http://{host}:{port}"], per_endpoint=concurrency),
            "/generate",
            method="PUT",
            retry_policy=retry_policy or RetryPolicy(),
            max_response_bytes=_MAX_RESPONSE_BYTES,
        )
        self.stats: ClientStats = self._transport.stats
        self._warned = False

    async def complete(self, request: Request) -> Completion:
        """Send a batch of one request."""
        completion = (await self.complete_batch([request], request.sampling.seed))[0]
        if isinstance(completion, CallFailed):
            raise completion
        return completion

    async def served_model(self) -> dict[str, str] | None:
        """Return the model that `cai serve` reports; NeMo's own server reports none."""
        return await fetch_served_model([self._models_url], None)

    async def context_length(self) -> int | None:
        """Return the context that `cai serve` reports, in tokens; NeMo's own server reports none."""
        return await fetch_context_length([self._models_url], None)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def complete_batch(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """Send a batch. If it fails, it is halved until the prompts that cause the failure are isolated."""
        if self._server_template:
            return await self._send_by_roles(requests, seed)
        return await self._send(requests, seed)

    async def _send_by_roles(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """Send one batch per sequence of roles: the server renders only conversations with equal roles together."""
        groups: dict[tuple[Role, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(tuple(message.role for message in request.conversation.messages), []).append(index)
        results: dict[int, Completion | CallFailed] = {}
        for number, indices in enumerate(groups.values()):
            group_seed = _part_seed(seed, f"roles {number}") if number else seed
            completions = await self._send([requests[index] for index in indices], group_seed)
            results.update(zip(indices, completions, strict=True))
        return [results[index] for index in range(len(requests))]

    async def _send(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        try:
            completions = await self._transport.send(
                self._body(requests, seed),
                lambda response: self._parse(response, requests),
                probe=lambda: self._body([requests[0].probe()], seed),
                priority=min(request.priority for request in requests),
            )
        except CallFailed as failure:
            if failure.reason == _REFUSAL:
                raise ServerRefused(str(failure)) from None
            if len(requests) == 1 or not _SPLITTABLE.fullmatch(failure.reason):
                return [failure] * len(requests)
            middle = len(requests) // 2
            # One after the other, so that the seeds of the halves do not depend on timing.
            first = await self._send(requests[:middle], _part_seed(seed, "first"))
            return first + await self._send(requests[middle:], _part_seed(seed, "second"))
        for completion in completions:
            self.stats.count(completion)
        return list(completions)

    def _body(self, requests: Sequence[Request], seed: int | None) -> dict[str, Any]:
        sampling = requests[0].sampling
        if any(request.schema is not None for request in requests):
            raise UsageError("NeMo's server has no structured output: it cannot constrain a reply to a JSON schema")
        body: dict[str, Any] = {
            "sentences": self._sentences(requests),
            "add_BOS": self._add_bos,
            "all_probs": False,
        }
        if requests[0].choices:
            # Greedy, because sampling would divide the logits by the temperature before the probabilities are stored.
            return body | {"tokens_to_generate": 1, "greedy": True, "compute_logprob": True, "temperature": 1.0}
        body |= {
            "tokens_to_generate": sampling.max_tokens,
            "min_tokens_to_generate": sampling.min_tokens,
            "temperature": max(sampling.temperature, _MIN_TEMPERATURE),
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "greedy": sampling.is_greedy,
            "repetition_penalty": sampling.repetition_penalty,
            # "<|endoftext|>" is the server's name for the tokenizer's own end-of-text token.
            "end_strings": list(dict.fromkeys((*self._stop_strings(sampling), "<|endoftext|>"))),
        }
        if seed is not None:
            body["random_seed"] = seed & _SEED_BITS
        return body

    def _stop_strings(self, sampling: Sampling) -> tuple[str, ...]:
        return (*self.template.stop, *sampling.stop)

    def _sentences(self, requests: Sequence[Request]) -> list[Any]:
        if not self._server_template:
            return [text for request in requests for text in self._texts(request)]
        if any(request.choices for request in requests):
            raise UsageError("choices cannot be scored with the server's chat template; use the template's strings")
        conversations = [request.escaped_for(self.template) for request in requests]
        return [
            {"role": [m.role.speaker for m in column], "content": [m.content for m in column]}
            for column in zip(*(conversation.messages for conversation in conversations), strict=True)
        ]

    def _prompt(self, request: Request) -> str:
        return self.template.generation_prompt(request.escaped_for(self.template))

    def _texts(self, request: Request) -> list[str]:
        prompt = self._prompt(request)
        return [prompt + choice for choice in request.choices or ("",)]

    def _parse(self, response: Any, requests: Sequence[Request]) -> list[Completion]:
        """Convert a response to completions; raises RetryableError if it is malformed."""
        if isinstance(response, str):
            raise RetryableError(_REFUSAL, response)
        rows = sum(max(1, len(request.choices)) for request in requests)
        try:
            if self._server_template and (replies := _Replies.model_validate(response).replies):
                _check_rows("replies", replies, rows)
                return [Completion(reply.text, reply.finish_reason, raw=reply.text) for reply in replies]
            columns = _Columns.model_validate(response)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise RetryableError("malformed answer", f"{place}: {first['msg']}") from None
        columns.logprob = columns.logprob or [[]] * rows
        for name, column in columns:
            _check_rows(name, column, rows)
        completions: list[Completion] = []
        start = 0
        for request in requests:
            own = slice(start, start + max(1, len(request.choices)))
            self._check_echo(columns.sentences[own], request, requests)
            if request.choices:
                scores = score_choices(
                    request.choices, columns.token_ids[own], columns.tokens[own], columns.logprob[own]
                )
                if scores is None and not self._warned:
                    self._warned = True
                    _log.warning(
                        "NeMo's server: no usable log-probabilities; votes are counted instead (--judge-votes)"
                    )
                completions.append(Completion("", "choices" if scores else "stop", choice_logprobs=scores))
            else:
                completions.append(self._completion(request, columns.sentences[start], columns.tokens[start]))
            start = own.stop
        return completions

    def _check_echo(self, sentences: Sequence[str], request: Request, batch: Sequence[Request]) -> None:
        """Raises RetryableError if the rows belong to another prompt: each row begins with its prompt."""
        if self._server_template:
            # The server renders the prompt, so only its messages are known.
            is_own = resembles(sentences[0], [request.escaped.turns[-1].content])
        else:
            is_own = all(map(echoes, sentences, self._texts(request))) or self._resembles(sentences, request, batch)
        if not is_own:
            raise RetryableError("malformed answer", "a row contains another prompt than the one that was sent")

    def _resembles(self, sentences: Sequence[str], request: Request, batch: Sequence[Request]) -> bool:
        """True if the rows are the request's, for tokenizers with changes that `echoes` does not know."""
        turns = [turn.content for turn in request.escaped.messages[request.shared :]]
        others = [text for other in batch if other is not request for text in self._texts(other)]
        return all(
            resembles(sentence, turns)
            and self._raw_reply(sentence, request).lstrip().startswith(choice)
            and not any(echoes(sentence, text) for text in others)
            for sentence, choice in zip(sentences, request.choices or ("",), strict=True)
        )

    def _completion(self, request: Request, sentence: str, tokens: Sequence[str]) -> Completion:
        try:
            text = self.template.extract_reply(sentence, request.escaped_for(self.template))
        except CaiError as error:
            raise RetryableError("malformed answer", str(error)) from None
        raw = self._raw_reply(sentence, request)
        has_stop = any(stop in raw for stop in self._stop_strings(request.sampling))
        for stop in request.sampling.stop:
            text = text.split(stop)[0]
        is_complete = has_stop or bool(tokens and tokens[-1] in _END_TOKENS)
        return Completion(text, "stop" if is_complete else "length", raw=raw)

    def _raw_reply(self, sentence: str, request: Request) -> str:
        """Return the untrimmed reply: the text after as many assistant headers as the prompt contains."""
        header = self.template.assistant_header
        return sentence.split(header, self._prompt(request).count(header))[-1]


def _valid_or_empty(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return []


_ONE_ERROR = FailFast()
"""A list of millions of wrong items gives one error, not one for each."""
_NULL_IS_EMPTY = BeforeValidator(lambda value: [] if value is None else value)


class _Columns(BaseModel):
    """The response of NeMo's server: one row per sentence. Rows of unusable log-probabilities are empty."""

    model_config = ConfigDict(strict=True)

    sentences: Annotated[list[str], _ONE_ERROR]
    tokens: Annotated[list[Annotated[list[str], _ONE_ERROR]], _ONE_ERROR]
    token_ids: Annotated[list[Annotated[list[int], _ONE_ERROR]], _ONE_ERROR]
    logprob: Annotated[
        list[Annotated[list[float], _ONE_ERROR, WrapValidator(_valid_or_empty)]], _ONE_ERROR, _NULL_IS_EMPTY
    ] = []


class _Reply(BaseModel):
    """A reply located by `cai serve`, which renders the messages itself."""

    text: str
    finish_reason: Literal["stop", "length"]


class _Replies(BaseModel):
    replies: Annotated[list[_Reply], _ONE_ERROR, _NULL_IS_EMPTY] = []


def _check_rows(name: str, column: Sequence[Any], rows: int) -> None:
    if len(column) != rows:
        raise RetryableError("malformed answer", f"{name}: {len(column)} rows instead of {rows}")


def _part_seed(seed: int | None, part: str) -> int | None:
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed} {part}".encode()).digest()[:4], "big")
