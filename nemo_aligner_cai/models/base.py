# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What the rest of the package knows of a language model: a request, a completion, and one small async protocol.

Input:  Request(conversation, Sampling(temperature=1.0, max_tokens=256), choices=())
Output: Completion(text="...", finish_reason="stop", usage=Usage(31, 12), choice_logprobs=None, raw=...)

Everything that determines a completion stands in the request or in the client's `identity`; where a server is and how
patiently it is asked does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

from nemo_aligner_cai.chat import CONTROL_TOKENS, Conversation, Message, Role
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import content_hash


class CallFailed(CaiError):
    """One request could not be served, although others may be; its record is left out under `reason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """`reason` is a short phrase that counts alike failures together; `detail` is what the server said."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class ServerRefused(CaiError):
    """Every request would fail in the same way (wrong key, no such model, wrong settings): the run has to stop."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        """`status` is that of the HTTP answer, None where there was none."""
        super().__init__(message)
        self.status = status


CHOICE_LEAD = "The answer is: "
"""How a reply begins that is made to choose. With it, small models put most of their probability on the choices."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    `temperature` 0 means greedy, as does `greedy`. `top_k` 0 and `top_p` 1 switch the filters off. `max_tokens` and
    `min_tokens` bound the reply's length in tokens. `seed` is filled in by the engine. `stop` adds strings to those
    that the chat template stops at.
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
        """Raises UsageError for a value that no server accepts."""
        limits = (
            (0.0 <= self.temperature <= 100.0, "temperature", "between 0 and 100"),
            (0.0 <= self.top_p <= 1.0, "top_p", "between 0 and 1"),
            (self.top_k >= 0, "top_k", "0 (off) or more"),
            (self.max_tokens >= 1, "max_tokens", "1 or more"),
            (0 <= self.min_tokens <= self.max_tokens, "min_tokens", "between 0 and max_tokens"),
            (self.repetition_penalty >= 1.0, "repetition_penalty", "1 (off) or more"),
        )
        for holds, name, wanted in limits:
            if not holds:
                raise UsageError(f"sampling: {name} must be {wanted}, it is {getattr(self, name)}")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken, so that no seed is needed."""
        return self.greedy or self.temperature == 0.0

    def to_dict(self) -> dict[str, Any]:
        """As it stands in journal keys. Greedy replies forget the knobs that cannot touch them."""
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


@dataclass(frozen=True)
class Request:
    """One question to a model.

    With `choices`, nothing is generated: each choice is scored as the beginning of the assistant's reply, and the
    completion carries their log-probabilities. No choice may begin with another.

    `room` is the most tokens of a reply whose thoughts leave no room for its answer; 0 grants no more than `sampling`.

    `lead` is what the reply begins with before its choice, on servers that can be told how it begins (see
    `choice_scorer.py`); NeMo's server scores any text as it is and needs none.

    `schema` is the JSON schema that a server with structured output holds the reply to; None where it is free.

    `shared` counts the leading messages that many requests have in common (few-shots); the journal writes them once.
    `priority` orders waiting requests, lower first. Neither of the two has an influence on the completion.
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
        """Raises UsageError for choices that cannot be told apart."""
        if len(self.choices) == 1:
            raise UsageError(f"the choice {self.choices[0]!r} is the only one: at least two are needed")
        for one in self.choices:
            for other in self.choices:
                if one is not other and other.startswith(one):
                    raise UsageError(f"the choice {one!r} begins the choice {other!r}: they cannot be told apart")

    def at(self, *, seed: int | None, priority: int) -> "Request":
        """This request with its place in a run: the seed of its draw (None where nothing is drawn), the priority."""
        sampling = self.sampling if seed is None else replace(self.sampling, seed=seed)
        return replace(self, sampling=sampling, priority=priority)

    def probe(self) -> "Request":
        """This request with a greeting for each text: what a server rejects of it, it rejects of every request."""
        messages = tuple(replace(message, content="Hello") for message in self.conversation.messages)
        return replace(self, conversation=Conversation(messages), shared=0)

    @cached_property
    def safe(self) -> Conversation:
        """The conversation with the control tokens of any model broken up, except in few-shots.

        A system message before them is the prompt's own.
        """
        first = self.conversation.messages[: self.shared]
        few_shots = {number for number, message in enumerate(first) if message.role is not Role.SYSTEM}
        if not any(
            CONTROL_TOKENS.found_in(message.content)
            for number, message in enumerate(self.conversation.messages)
            if number not in few_shots
        ):
            return self.conversation
        return Conversation(
            tuple(
                message if number in few_shots else replace(message, content=CONTROL_TOKENS.escape(message.content))
                for number, message in enumerate(self.conversation.messages)
            )
        )

    @cached_property
    def messages(self) -> list[dict[str, str]]:
        """The conversation as servers and the journal take it; made once, since few-shots make it long."""
        return self.conversation.to_messages()

    @cached_property
    def prefix(self) -> str | None:
        """A name for the content of the shared messages, None where there are none."""
        return _name_of(self.conversation.messages[: self.shared]) if self.shared else None

    @property
    def is_random(self) -> bool:
        """Whether the completion depends on a seed."""
        return not self.choices and not self.sampling.is_greedy


@lru_cache(maxsize=64)
def _name_of(messages: tuple[Message, ...]) -> str:
    # Looked up for each call: to hash few-shots anew costs as much as all the rest of a journal's key.
    return content_hash([message.plain for message in messages])


@dataclass(frozen=True)
class Usage:
    """Tokens read and written by one call, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    `finish_reason` is "stop" (the reply is complete), "length" (cut at max_tokens) or "choices" (scored only).
    `choice_logprobs` maps each choice to the natural logarithm of its probability, but for a constant that all choices
    share; None where none were asked for, or the server gives none. `raw` is what the server sent, as JSON holds it.
    """

    text: str
    finish_reason: str
    usage: Usage | None = None
    choice_logprobs: Mapping[str, float] | None = None
    raw: Any = None


@dataclass
class ClientStats:
    """What a client has done so far, for the progress view and the manifest."""

    calls: int = 0
    retries: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, completion: Completion) -> None:
        """Add one answered call."""
        self.calls += 1
        if completion.usage is not None:
            self.prompt_tokens += completion.usage.prompt_tokens
            self.completion_tokens += completion.usage.completion_tokens


class ModelClient(Protocol):
    """A language model behind some server. Safe to call concurrently; retries and limits are its own business.

    `name` is for people. `identity` is all on the client's side that determines a completion (model name, template),
    as JSON holds it: it is part of each journal key. `concurrency` is how many requests it serves at once.
    """

    name: str
    concurrency: int
    stats: ClientStats

    @property
    def identity(self) -> Mapping[str, Any]:
        """See the class."""
        ...

    async def complete(self, request: Request) -> Completion:
        """Answer one request; raises CallFailed for it alone, ServerRefused for all."""
        ...

    async def close(self) -> None:
        """Give back connections. The client is not used again."""
        ...


@runtime_checkable
class BatchClient(Protocol):
    """A client whose server answers whole batches with one seed each.

    What such a server samples for a request depends on the batch around it, so a caller that wants the same bytes
    again has to send the same batch again (`engine/engine.py` does).
    """

    batch_size: int
    """Sentences in a full batch: a request counts once, or once for each of its choices."""

    async def complete_batch(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """Answer requests that differ only in conversation and choices, in order; raises ServerRefused."""
        ...
