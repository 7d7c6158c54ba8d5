# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The client interface of language models: requests, completions, and one async protocol.

Input:  Request(conversation, Sampling(temperature=1.0, max_tokens=256), choices=())
Output: Completion(text="...", finish_reason="stop", usage=Usage(31, 12), choice_logprobs=None, raw=...)

Everything that determines a completion is in the request or in the client's `identity`. Server addresses, timeouts and
retries are not.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

from nemo_aligner_cai.chat import CONTROL_TOKENS, ChatTemplate, Conversation, Message, Role, TokenPolicy, guard
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import RowCounts, content_hash
from nemo_aligner_cai.sections import SectionError


class CallFailed(CaiError):
    """One request failed, although others may succeed. Its record is dropped and counted under `reason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """`reason` is a short phrase that groups equal failures; `detail` is the server's message."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class ServerRefused(CaiError):
    """Every request would fail in the same way (invalid key, unknown model, wrong settings): the run must stop."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        """`status` is the HTTP status, or None if there was no response."""
        super().__init__(message)
        self.status = status


CHOICE_LEAD = "The answer is: "
"""Beginning of a reply with choices. It makes small models put most of their probability on the choices."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of a reply.

    `temperature` 0 means greedy, as does `greedy`. `top_k` 0 and `top_p` 1 disable the filters. `max_tokens` and
    `min_tokens` bound the reply's length in tokens. The engine sets `seed`. `stop` adds strings to the stop strings of
    the chat template.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 1024
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    greedy: bool = False
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raises SectionError for a value that no server accepts."""
        limits = (
            (0.0 <= self.temperature <= 100.0, "temperature", "between 0 and 100"),
            (0.0 <= self.top_p <= 1.0, "top_p", "between 0 and 1"),
            (self.top_k >= 0, "top_k", "0 (off) or more"),
            (self.max_tokens >= 1, "max_tokens", "1 or more"),
            (0 <= self.min_tokens <= self.max_tokens, "min_tokens", "between 0 and max_tokens"),
            (self.repetition_penalty >= 1.0, "repetition_penalty", "1 (off) or more"),
        )
        for holds, name, allowed in limits:
            if not holds:
                raise SectionError("sampling", name, f"must be {allowed}, got {getattr(self, name)}")

    @property
    def is_greedy(self) -> bool:
        """True if the most likely token is always chosen, so that no seed is needed."""
        return self.greedy or self.temperature == 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters for journal keys. Greedy sampling omits those that have no effect on it."""
        base: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "min_tokens": self.min_tokens,
            "repetition_penalty": self.repetition_penalty,
            "stop": list(self.stop),
        }
        if self.is_greedy:
            return {"greedy": True, **base}
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "seed": self.seed,
            **base,
        }


ROOM = 1024
"""Tokens of a short answer that a model reasons about first."""


@dataclass(frozen=True)
class Request:
    """One request to a model.

    Attributes:
        conversation: the messages.
        sampling: the sampling parameters.
        choices: if given, nothing is generated. Each choice is scored as the beginning of the reply, and the
            completion has their log-probabilities. No choice may be a prefix of another.
        room: maximum tokens of a reply that contains a model's reasoning; 0 means `sampling.max_tokens`.
        lead: text that precedes the choice in the reply, on servers that accept a prefilled reply (see
            `choice_scorer.py`). NeMo's server scores arbitrary text and does not need it.
        schema: JSON schema for servers with structured output; None means free text.
        shared: number of leading messages that many requests have in common (few-shot examples); the journal writes
            them once. It does not affect the completion.
        priority: waiting requests with lower values go first. It does not affect the completion.
    """

    conversation: Conversation
    sampling: Sampling
    choices: tuple[str, ...] = ()
    room: int = 0
    lead: str = CHOICE_LEAD
    schema: Mapping[str, Any] | None = None
    shared: int = 0
    priority: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError if a choice is a prefix of another, or the only one."""
        if len(self.choices) == 1:
            raise UsageError(f"the choice {self.choices[0]!r} is the only one: at least two are needed")
        for one in self.choices:
            for other in self.choices:
                if one is not other and other.startswith(one):
                    raise UsageError(f"the choice {one!r} is a prefix of the choice {other!r}")

    def scheduled(self, *, seed: int | None, priority: int) -> "Request":
        """Return a copy with a seed (None if nothing is sampled) and a priority."""
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        return replace(self, sampling=sampling, priority=priority)

    def probe(self) -> "Request":
        """Return a copy with harmless messages: a server that rejects it rejects every such request."""
        messages = tuple(replace(message, content="Hello") for message in self.conversation.messages)
        return replace(self, conversation=Conversation(messages), shared=0)

    @cached_property
    def escaped(self) -> Conversation:
        """The conversation with the control tokens of all known models escaped, except in few-shot examples.

        A system message before the few-shot examples belongs to the prompt and is escaped too.
        """
        messages = self.conversation.messages
        few_shots = {i for i, message in enumerate(messages[: self.shared]) if message.role is not Role.SYSTEM}
        if not any(
            CONTROL_TOKENS.found_in(message.content) for i, message in enumerate(messages) if i not in few_shots
        ):
            return self.conversation
        return Conversation(
            tuple(
                message if i in few_shots else replace(message, content=CONTROL_TOKENS.escape(message.content))
                for i, message in enumerate(messages)
            )
        )

    def escaped_for(self, template: ChatTemplate) -> Conversation:
        """Return `escaped` with the tokens of a chat template escaped too, so that no text can forge a turn."""
        conversation = guard(self.escaped, template, policy=TokenPolicy.ESCAPE, counts=RowCounts())
        assert conversation is not None, "TokenPolicy.ESCAPE drops nothing"
        return conversation

    @cached_property
    def messages(self) -> list[dict[str, str]]:
        """The conversation in the format of servers and of the journal. Cached, since few-shot examples are long."""
        return self.conversation.to_messages()

    @property
    def escaped_messages(self) -> list[dict[str, str]]:
        """`escaped` in the format of servers."""
        return self.messages if self.escaped is self.conversation else self.escaped.to_messages()

    @cached_property
    def prefix(self) -> str | None:
        """A hash of the shared messages; None if there are none."""
        return _hash(self.conversation.messages[: self.shared]) if self.shared else None

    @property
    def is_random(self) -> bool:
        """True if the completion depends on a seed."""
        return not self.choices and not self.sampling.is_greedy


@lru_cache(maxsize=64)
def _hash(messages: tuple[Message, ...]) -> str:
    # Cached: hashing few-shot examples costs as much as the rest of a journal key.
    return content_hash([message.plain for message in messages])


@dataclass(frozen=True)
class Usage:
    """Token counts of one call, as reported by the server."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Completion:
    """A model's reply.

    `finish_reason` is "stop" (complete), "length" (truncated at max_tokens) or "choices" (scored only).
    `choice_logprobs` maps each choice to its natural log-probability, up to a constant that all choices share; None if
    there are no choices or the server returns no log-probabilities. `raw` is the server's JSON.
    """

    text: str
    finish_reason: str
    usage: Usage | None = None
    choice_logprobs: Mapping[str, float] | None = None
    raw: Any = None


@dataclass
class ClientStats:
    """A client's counters, for the progress display and the manifest."""

    calls: int = 0
    retries: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, completion: Completion) -> None:
        """Count a completed call."""
        self.calls += 1
        if completion.usage is not None:
            self.prompt_tokens += completion.usage.prompt_tokens
            self.completion_tokens += completion.usage.completion_tokens


class ModelClient(Protocol):
    """A client of one language model. It is safe for concurrent use, and handles retries and limits itself.

    Attributes:
        name: the model's name in messages.
        identity: everything in the client that determines a completion (model name, chat template), as JSON. It is
            part of each journal key.
        concurrency: maximum number of concurrent requests. It changes if servers join or leave.
        stats: the client's counters.
    """

    name: str
    identity: Mapping[str, Any]
    stats: ClientStats

    @property
    def concurrency(self) -> int:
        """Maximum number of concurrent requests."""
        ...

    async def complete(self, request: Request) -> Completion:
        """Send one request; raises CallFailed if it fails, ServerRefused if every request would."""
        ...

    async def close(self) -> None:
        """Close all connections. The client cannot be used again."""
        ...


ClientContext = Callable[[], AbstractContextManager[ModelClient]]
"""Makes a client, and a server for it where it needs one, for the duration of a `with` block."""


@runtime_checkable
class BatchClient(Protocol):
    """A client whose server processes whole batches with one seed each.

    A sample depends on the whole batch, so identical results need identical batches (see `engine/executor.py`).
    """

    batch_size: int
    """Sentences in a full batch: one for each request, or one for each of its choices."""

    async def complete_batch(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """Send requests that differ only in conversation and choices; results are in order. Raises ServerRefused."""
        ...
