# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Responses in OpenAI's formats: chat completions, completions, their streams and log-probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_aligner_cai.training.serving.calls import SampleCall
from nemo_aligner_cai.training.serving.engine import GeneratedRow, Row
from nemo_aligner_cai.training.serving.model_info import Text
from nemo_aligner_cai.training.serving.replies import Ending, Reply, Stream
from nemo_aligner_cai.training.serving.strategy import Scored


@dataclass(frozen=True)
class ResponseBuilder:
    """Formats the response to one request.

    Attributes:
        call: the request.
        rows: its replies, `call.n` for each prompt.
        prompts: the prompts' texts, for `echo`.
        ending: finds the end of a reply.
        text: decodes tokens.
        head: the common fields of all chunks.
    """

    call: SampleCall
    rows: Sequence[Row]
    prompts: Sequence[str]
    ending: Ending
    text: Text
    head: dict[str, Any]

    def response(self, done: Sequence[GeneratedRow]) -> dict[str, Any]:
        """The response without streaming."""
        choices = [self._choice(number, one) for number, one in enumerate(done)]
        return {**self.head, "object": self._object(), "choices": choices, "usage": self._usage(done)}

    def chunks(self, steps: Iterator[tuple[int, list[int]] | list[GeneratedRow]]) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed response."""
        streams = [Stream(self.ending) for _ in self.rows]
        for number in range(len(self.rows)):
            yield self._chunk(number, self._prompt_of(number) if self.call.echo else "", first=True)
        for step in steps:
            if isinstance(step, tuple):
                number, tokens = step
                piece = streams[number].feed(self.text.after(self.rows[number].prompt, tokens))
                if piece:
                    yield self._chunk(number, piece)
                continue
            for number, one in enumerate(step):
                reply = self._reply(number, one)
                logprobs = self._logprobs(number, one, reply)
                yield self._chunk(number, streams[number].finish(reply), reply.finish_reason, logprobs)
            if self.call.include_usage:
                yield self._envelope([]) | {"usage": self._usage(step)}

    def _object(self, *, chunk: bool = False) -> str:
        if not self.call.chat:
            return "text_completion"
        return "chat.completion.chunk" if chunk else "chat.completion"

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.call.include_usage else {}
        return {**self.head, "object": self._object(chunk=True), "choices": choices, **usage}

    def _chunk(
        self, number: int, piece: str, reason: str | None = None, logprobs: Any = None, *, first: bool = False
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": number, "logprobs": logprobs, "finish_reason": reason}
        if not self.call.chat:
            return self._envelope([choice | {"text": piece}])
        delta = {"role": "assistant", "content": piece} if first else {"content": piece} if piece else {}
        return self._envelope([choice | {"delta": delta}])

    def _choice(self, number: int, one: GeneratedRow) -> dict[str, Any]:
        reply = self._reply(number, one)
        choice = {
            "index": number,
            "finish_reason": reply.finish_reason,
            "logprobs": self._logprobs(number, one, reply),
        }
        if self.call.chat:
            return choice | {"message": {"role": "assistant", "content": reply.text, "refusal": None}}
        return choice | {"text": (self._prompt_of(number) if self.call.echo else "") + reply.text}

    def _prompt_of(self, number: int) -> str:
        return self.prompts[number // self.call.n]

    def _reply(self, number: int, one: GeneratedRow) -> Reply:
        if self.call.max_tokens == 0:
            return Reply("", "length")
        return self.ending.reply(self.text.after(self.rows[number].prompt, one.tokens), ended=one.ended)

    def _usage(self, done: Sequence[GeneratedRow]) -> dict[str, int]:
        read = sum(len(row.prompt) for row in self.rows[:: self.call.n])
        written = 0 if self.call.max_tokens == 0 else sum(one.count for one in done)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _logprobs(self, number: int, one: GeneratedRow, reply: Reply) -> dict[str, Any] | None:
        if self.call.logprobs is None:
            return None
        prompt = self.rows[number].prompt
        # Only tokens of the reply's text, without those that ended it.
        places: list[int] = []
        written, whole = 0, len(reply.text.encode("utf-8", "replace"))
        for place, token in enumerate(one.tokens, len(prompt)):
            if written >= whole:
                break
            places.append(place)
            written += len(self.text.token(token)[1])
        if self.call.chat:
            return {"content": [self._token(one.scored[place]) for place in places], "refusal": None}
        return self._columns([*(range(len(prompt)) if self.call.echo else ()), *places], prompt, one)

    def _token(self, scored: Scored) -> dict[str, Any]:
        top = [self._entry(token, logprob) for token, logprob in scored.top]
        return self._entry(scored.token, scored.logprob) | {"top_logprobs": top}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text, characters = self.text.token(token)
        return {"token": text, "logprob": logprob, "bytes": characters}

    def _columns(self, places: Sequence[int], prompt: Sequence[int], one: GeneratedRow) -> dict[str, Any]:
        """The lists of the completions format; the first token of a prompt has no probability."""
        ids = [*prompt, *one.tokens]
        tokens = [self.text.token(ids[place]) for place in places]
        scored = [one.scored.get(place) for place in places]
        offsets, at = list[int](), 0
        for text, _ in tokens:
            offsets.append(at)
            at += len(text)
        return {
            "tokens": [text for text, _ in tokens],
            "token_logprobs": [one.logprob if one else None for one in scored],
            "top_logprobs": [
                {self.text.token(token)[0]: logprob for token, logprob in one.top} if one else None for one in scored
            ],
            "text_offset": offsets,
        }


def head(call: SampleCall, name: str, fingerprint: str) -> dict[str, Any]:
    """The common fields of all chunks of a response."""
    kind = "chatcmpl" if call.chat else "cmpl"
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": name,
        "system_fingerprint": fingerprint,
    }
