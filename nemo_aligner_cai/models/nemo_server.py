# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""NeMo's text-generation server (`MegatronServer`, ``PUT /generate``).

Input:  requests that differ in their conversations
        -> {"sentences": ["<extra_id_0>System\n...Assistant\n", ...], "tokens_to_generate": 256, "random_seed": 7}
Output: {"sentences": [prompt + reply, ...], "tokens": [...], "token_ids": [...], "logprob": [...]} -> completions

What NeMo 2.2.1 does, and this module answers to:

* It decodes prompt and reply again from their tokens, so unknown characters of the prompt come back as "⁇" and the
  prompt cannot be cut off by its length: the chat template finds the reply.
* It serves one batch at a time under a lock, with one seed for the whole batch, and at most 128 sentences.
* It refuses a wrong setting with HTTP 200 and a JSON string.
* The seed travels to the other ranks as a 32-bit float: beyond 24 bits they would sample with another one than rank 0.
* Without `compute_logprob`, and when greedy, `repetition_penalty` has no effect.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, Role, TokenPolicy, guard
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import RowCounts, content_hash
from nemo_aligner_cai.models.base import CallFailed, ClientStats, Completion, Request, Sampling, ServerRefused
from nemo_aligner_cai.models.echo import echoes, resembles
from nemo_aligner_cai.models.nemo_scores import score_choices
from nemo_aligner_cai.models.retry import RetryableError, RetryPolicy
from nemo_aligner_cai.models.served import ask_for_model
from nemo_aligner_cai.models.transport import Transport

_log = logging.getLogger(__name__)
MOST_SENTENCES = 128
"""The server's own limit for one request."""
_SEED_BITS = 0xFFFFFF
_LOWEST_TEMPERATURE = 1e-8
"""The server wants a positive temperature even where it takes the likeliest token."""
_END_PIECES = frozenset({"</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<eos>", "<EOS>"})
"""How tokenizers spell the token that ends a text; it is missing from the decoded sentence."""
_REFUSAL = "refused by the server"
_UPSET = re.compile("HTTP [34]..|HTTP 500")
"""Failures that one prompt of a batch can be the cause of."""
_LONGEST_ANSWER = 32 << 20
"""Bytes for 128 sentences of 4,096 tokens, each with its piece, id, offset and log-probability."""


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
        """Nothing is sent yet.

        Args:
            host: the server's name or address.
            port: its port.
            model: a name for what it serves. The server has none; journals tell models apart by it.
            template: renders the conversations, and finds replies.
            batch_size: sentences per request, at most 128.
            add_bos: put the tokenizer's begin-of-text token first.
            server_template: send messages and let the server render them. `cai serve` does so with the model's own
                template and finds the replies; NeMo's server needs a tokenizer that has a template, and `template`
                finds the replies.
            concurrency: batches on their way at once. The server works on one; a few more keep its lock taken.
            retry_policy: time-outs and retries. The time-out includes waiting for the batches before.
        """
        if not 1 <= batch_size <= MOST_SENTENCES:
            raise UsageError(f"NeMo's server takes 1 to {MOST_SENTENCES} sentences at a time, not {batch_size}")
        self.name = model
        self.template = template
        self.batch_size = batch_size
        self.concurrency = concurrency
        self._models_url = f"http://{host}:{port}/v1/models"
        self._add_bos = add_bos
        self._server_template = server_template
        self._transport = Transport(
            (f"http://{host}:{port}/generate",),
            method="PUT",
            concurrency=concurrency,
            retry_policy=retry_policy or RetryPolicy(),
            max_response_bytes=_LONGEST_ANSWER,
        )
        self.stats: ClientStats = self._transport.stats
        self._is_told = False
        self._identity = {
            "server": "nemo",
            "model": model,
            "template": content_hash(repr(template)),
            "add_bos": add_bos,
            "server_template": server_template,
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, template and whatever else changes what the model reads."""
        return self._identity

    async def complete(self, request: Request) -> Completion:
        """See `ModelClient`: a batch of one."""
        completion = (await self.complete_batch([request], request.sampling.seed))[0]
        if isinstance(completion, CallFailed):
            raise completion
        return completion

    async def served_model(self) -> dict[str, str] | None:
        """See `TellsModel`: `cai serve` tells, NeMo's own server does not."""
        return await ask_for_model([self._models_url], None)

    async def close(self) -> None:
        """See `ModelClient`."""
        await self._transport.close()

    async def complete_batch(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """See `BatchClient`. A batch that the server cannot digest is halved until the culprit stands alone."""
        if self._server_template:
            return await self._by_roles(requests, seed)
        return await self._send(requests, seed)

    async def _by_roles(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """The server renders only conversations of the same roles together; the others get batches of their own."""
        groups: dict[tuple[Role, ...], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(tuple(message.role for message in request.conversation.messages), []).append(place)
        answers: dict[int, Completion | CallFailed] = {}
        for number, places in enumerate(groups.values()):
            group_seed = _part_seed(seed, f"roles {number}") if number else seed
            completions = await self._send([requests[place] for place in places], group_seed)
            answers.update(zip(places, completions, strict=True))
        return [answers[place] for place in range(len(requests))]

    async def _send(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        try:
            completions = await self._transport.send(
                self._body(requests, seed),
                lambda answer: self._read(answer, requests),
                probe=lambda: self._body([requests[0].probe()], seed),
                priority=min(request.priority for request in requests),
            )
        except CallFailed as failure:
            if failure.reason == _REFUSAL:
                raise ServerRefused(str(failure)) from None
            if len(requests) == 1 or not _UPSET.fullmatch(failure.reason):
                return [failure] * len(requests)
            middle = len(requests) // 2
            # One after the other: the same seeds for the same halves, whatever else is on its way.
            first = await self._send(requests[:middle], _part_seed(seed, "first"))
            return first + await self._send(requests[middle:], _part_seed(seed, "second"))
        for completion in completions:
            self.stats.count(completion)
        return list(completions)

    def _body(self, requests: Sequence[Request], seed: int | None) -> dict[str, Any]:
        sampling = requests[0].sampling
        if any(request.schema is not None for request in requests):
            raise UsageError("NeMo's server has no structured output: it cannot hold a reply to a JSON schema")
        scoring = bool(requests[0].choices)
        body: dict[str, Any] = {
            "sentences": self._sentences(requests),
            "add_BOS": self._add_bos,
            "all_probs": False,
        }
        if scoring:
            # Greedy, because sampling would divide the logits by the temperature before their probabilities are kept.
            return body | {"tokens_to_generate": 1, "greedy": True, "compute_logprob": True, "temperature": 1.0}
        body |= {
            "tokens_to_generate": sampling.max_tokens,
            "min_tokens_to_generate": sampling.min_tokens,
            "temperature": max(sampling.temperature, _LOWEST_TEMPERATURE),
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "greedy": sampling.is_greedy,
            "repetition_penalty": sampling.repetition_penalty,
            "end_strings": self._end_strings(sampling),
        }
        if seed is not None:
            body["random_seed"] = seed & _SEED_BITS
        return body

    def _end_strings(self, sampling: Sampling) -> list[str]:
        # "<|endoftext|>" is the server's name for the tokenizer's own end-of-text token.
        return list(dict.fromkeys((*self.template.stop, *sampling.stop, "<|endoftext|>")))

    def _sentences(self, requests: Sequence[Request]) -> list[Any]:
        if not self._server_template:
            return [text for request in requests for text in self._texts(request)]
        conversations = [self._safe(request) for request in requests]
        if any(request.choices for request in requests):
            raise UsageError("choices cannot be scored with the server's chat template; give the template's strings")
        return [
            {"role": [m.role.speaker for m in column], "content": [m.content for m in column]}
            for column in zip(*(conversation.messages for conversation in conversations), strict=True)
        ]

    def _safe(self, request: Request) -> Conversation:
        """The conversation, in which no text can forge a turn of this template or of the model's own."""
        conversation = guard(request.safe, self.template, policy=TokenPolicy.ESCAPE, counts=RowCounts())
        assert conversation is not None, "the policy escapes"
        return conversation

    def _texts(self, request: Request) -> Iterator[str]:
        prompt = self.template.generation_prompt(self._safe(request))
        if request.choices:
            yield from (prompt + choice for choice in request.choices)
        else:
            yield prompt

    def _read(self, answer: Any, requests: Sequence[Request]) -> list[Completion]:
        """Completions from the server's answer; raises Retriable when it is not one."""
        if isinstance(answer, str):
            raise RetryableError(_REFUSAL, answer)
        rows = sum(max(1, len(request.choices)) for request in requests)
        if self._server_template and (replies := _replies(answer, rows)) is not None:
            return replies
        sentences, tokens, ids, logprobs = _columns(answer, rows)
        completions: list[Completion] = []
        start = 0
        for request in requests:
            end = start + max(1, len(request.choices))
            self._compare(sentences[start:end], request, requests)
            if request.choices:
                scores = score_choices(request.choices, ids[start:end], tokens[start:end], logprobs[start:end])
                if scores is None and not self._is_told:
                    self._is_told = True
                    _log.warning(
                        "NeMo's server gives no usable log-probabilities; votes count instead, see --judge-votes"
                    )
                completions.append(Completion("", "choices" if scores else "stop", choice_logprobs=scores))
            else:
                completions.append(self._completion(request, sentences[start], tokens[start]))
            start = end
        return completions

    def _compare(self, sentences: Sequence[str], request: Request, batch: Sequence[Request]) -> None:
        """Raises Retriable for rows that are another prompt's: each shows the prompt that it replies to."""
        if self._server_template:
            # The server renders: of its prompt, only the messages are known.
            is_own = resembles(sentences[0], [request.safe.turns[-1].content])
        else:
            is_own = all(map(echoes, sentences, self._texts(request))) or self._is_like(sentences, request, batch)
        if not is_own:
            raise RetryableError("malformed answer", "a row shows another prompt than the one that was sent")

    def _is_like(self, sentences: Sequence[str], request: Request, batch: Sequence[Request]) -> bool:
        """True if rows are a request's, on a server whose tokenizer changes more of a text than is known here."""
        turns = [turn.content for turn in request.safe.messages[request.shared :]]
        others = [text for other in batch if other is not request for text in self._texts(other)]
        return all(
            resembles(sentence, turns)
            and self._tail(sentence, self._safe(request)).lstrip().startswith(choice)
            and not any(echoes(sentence, text) for text in others)
            for sentence, choice in zip(sentences, request.choices or ("",), strict=True)
        )

    def _completion(self, request: Request, sentence: str, tokens: Sequence[str]) -> Completion:
        try:
            text = self.template.extract_reply(sentence, self._safe(request))
        except CaiError as error:
            raise RetryableError("malformed answer", str(error)) from None
        tail = self._tail(sentence, self._safe(request))
        stops = (*self.template.stop, *request.sampling.stop)
        ended = any(stop in tail for stop in stops) or bool(tokens and tokens[-1] in _END_PIECES)
        for stop in request.sampling.stop:
            text = text.split(stop)[0]
        return Completion(text, "stop" if ended else "length", raw=tail)

    def _tail(self, sentence: str, conversation: Conversation) -> str:
        """What the model wrote, not yet trimmed: the sentence after as many assistant headers as the prompt has."""
        header = self.template.assistant_header
        count = self.template.generation_prompt(conversation).count(header)
        return sentence.split(header, count)[-1]


def _columns(answer: Any, rows: int) -> tuple[list[str], list[list[str]], list[list[int]], list[Sequence[float]]]:
    """The answer's sentences, tokens, token ids and log-probabilities, a row each; raises Retriable otherwise."""

    def column(name: str, kinds: type | tuple[type, ...] | None) -> list[Any]:
        values: Any = cast(dict[str, Any], answer).get(name) if isinstance(answer, dict) else None
        if name == "logprob" and values in (None, []):
            return [()] * rows
        if not isinstance(values, list) or len(cast(list[Any], values)) != rows:
            raise RetryableError("malformed answer", f"{name!r} is no list of {rows}")
        if name == "logprob":
            return [value if _is_list_of(value, kinds or str) else () for value in cast(list[Any], values)]
        for value in cast(list[Any], values):
            good = isinstance(value, str) if kinds is None else _is_list_of(value, kinds)
            if not good:
                raise RetryableError("malformed answer", f"{name!r} holds something else than it should")
        return cast(list[Any], values)

    return (
        column("sentences", None),
        column("tokens", str),
        column("token_ids", int),
        column("logprob", (int, float)),
    )


def _replies(answer: Any, rows: int) -> list[Completion] | None:
    """The replies that a server of `cai serve` finds itself if it renders the messages; None from NeMo's own.

    Raises:
        Retriable: they are not one for each row, each with a text and the reason why it ended.
    """
    replies = cast(dict[str, Any], answer).get("replies") if isinstance(answer, dict) else None
    if replies is None:
        return None
    if not isinstance(replies, list) or len(cast(list[Any], replies)) != rows:
        raise RetryableError("malformed answer", f"'replies' is not a list of {rows}: {replies!r}"[:300])
    completions: list[Completion] = []
    for reply in cast(list[Any], replies):
        fields = cast(dict[str, Any], reply) if isinstance(reply, dict) else {}
        text, reason = fields.get("text"), fields.get("finish_reason")
        if not isinstance(text, str) or reason not in ("stop", "length"):
            raise RetryableError("malformed answer", f"'replies' holds {reply!r}"[:300])
        completions.append(Completion(text, reason, raw=text))
    return completions


def _is_list_of(value: Any, kinds: type | tuple[type, ...]) -> bool:
    # True and False are integers to Python.
    return isinstance(value, list) and all(
        isinstance(item, kinds) and not isinstance(item, bool) for item in cast(list[Any], value)
    )


def _part_seed(seed: int | None, part: str) -> int | None:
    """The seed of a part of a batch."""
    if seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{seed} {part}".encode()).digest()[:4], "big")
