# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Scoring choices on a chat server: how the reply is made to begin, found once for each client.

Input:  user: "... Answer with (A) or (B), and nothing else."     choices ("(A)", "(B)")
Sent:   the same, and the beginning of the reply: "The answer is: ("
Output: {"(A)": -0.86, "(B)": -1.30}, from the alternatives at the next token

Small models seldom begin a reply with "(". So the reply's beginning is given, as in arXiv 2212.08073, where a server
can continue it:

    complete                 /v1/completions goes on from the prompt, which is rendered here; only with a chat template
    continue                 continue_final_message, add_generation_prompt (vLLM, SGLang)
    prefill                  a last message of the assistant's is continued without a flag (llama.cpp, TGI, Ollama)
    prefill, no thinking     likewise, where the template would otherwise begin with a thought (llama.cpp)
    free                     the reply begins as the model likes, and its own tokens are read

A question with a plain answer is asked in each of these ways, in this order, until the first token of the reply is the
letter. The result depends on the server, and on the template, which the client's identity has: no journal key has it.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from nemo_aligner_cai.chat import ChatTemplate, Conversation, TokenPolicy, guard
from nemo_aligner_cai.files import RowCounts, content_hash
from nemo_aligner_cai.models.base import CallFailed, Completion, Request, Sampling
from nemo_aligner_cai.models.choice_scores import ImplausibleError, choice_logprobs, shared_beginning

_log = logging.getLogger(__name__)
_ALTERNATIVES = (20, 5)
"""Alternatives for each token: the most that servers of this protocol give, and what stricter ones give."""
_DRAWS = 3
"""Attempts at a free reply: one that is sampled may leave the choices by chance."""
_CONTINUED = 0.2
"""Least probability of the two letters together, right after the beginning, in a reply that continues it."""
_SEED_BITS = 0x7FFFFFFF
PROBE_TEXT = "Which of these is a color? (A) red (B) seven. Answer with (A) or (B), and nothing else."
"""The question by which a client finds out how choices can be scored on its server."""
PROBE = Request(Conversation.of_user(PROBE_TEXT), Sampling(greedy=True, max_tokens=1), choices=("(A)", "(B)"))


@dataclass(frozen=True)
class Way:
    """One way to score. `keys` are added to the body; `forces` says whether the reply's beginning is given.

    `template` renders the prompt where the server only goes on from a text.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict[str, Any])
    forces: bool = True
    alternatives: int = _ALTERNATIVES[0]
    template: ChatTemplate | None = None


CONTINUE = Way("continue", {"continue_final_message": True, "add_generation_prompt": False})
_WAYS = (
    CONTINUE,
    Way("prefill"),
    Way("prefill, no thinking", {"chat_template_kwargs": {"enable_thinking": False}}),
    Way("free", forces=False),
)


def _ways(template: ChatTemplate | None) -> list[Way]:
    """All ways, in the order in which they are tried; a template that the user names is tried first."""
    groups: list[tuple[Way, ...]] = [_WAYS]
    if template is not None:
        # The template writes the token that begins a text. OpenAI's own protocol has no such key.
        keys: tuple[dict[str, Any], ...] = ({"add_special_tokens": False}, {})
        groups.insert(0, tuple(Way("complete", some, template=template) for some in keys))
    return [replace(way, alternatives=count) for group in groups for count in _ALTERNATIVES for way in group]


class Ask(Protocol):
    """Sends a body of this protocol for a request, and reads the first choice of the answer."""

    def __call__(
        self,
        body: Mapping[str, Any],
        request: Request,
        read: Callable[[Mapping[str, Any], str], Completion],
        probe: Callable[[], Mapping[str, Any]],
    ) -> Awaitable[Completion]:
        """`read` gets the choice and its text; `probe` is the body to send if this one is rejected."""
        ...


class ChoiceScorer:
    """Scores choices on one server; see the module."""

    def __init__(self, ask: Ask, template: ChatTemplate | None = None) -> None:
        """Nothing is asked yet.

        Args:
            ask: sends a body; one with a prompt in place of messages goes to ``/v1/completions``.
            template: the model's, where the user names it.
        """
        self._ask = ask
        self._template = template
        self._looking = asyncio.Lock()
        self._found: list[Way | None] = []
        self._is_told = False

    async def score(self, request: Request, messages: Sequence[Mapping[str, str]]) -> Completion:
        """The completion with log-probabilities, or without them where the server gives none that can be used.

        Args:
            request: with choices.
            messages: its conversation as it is sent.
        """
        way = await self._way()
        if way is None:
            self._tell("it refuses to give log-probabilities")
            return Completion("", "stop")
        completion = await self._once(way, request, messages, 0)
        for draw in range(1, 1 if way.forces else _DRAWS):
            if completion.choice_logprobs is not None or not completion.raw.get("logprobs"):
                break
            completion = await self._once(way, request, messages, draw)
        if completion.choice_logprobs is None:
            self._tell("its reply has no log-probabilities of the choices")
        return completion

    async def _once(self, way: Way, request: Request, messages: Sequence[Mapping[str, str]], draw: int) -> Completion:
        def probe() -> Mapping[str, Any]:
            other = request.probe()
            # A server that rejects a way of asking rejects the way alone if it serves a plain request.
            plain = {"prompt": "Hello"} if way.template else {"messages": other.messages}
            return plain | {"max_tokens": 1} if request is PROBE else scoring_body(way, other, other.messages, draw)

        choices = request.choices
        written = shared_beginning(choices).rstrip() if way.forces else ""
        body = scoring_body(way, request, messages, draw)

        def read(choice: Mapping[str, Any], text: str) -> Completion:
            try:
                scores = choice_logprobs(choice.get("logprobs"), choices, written)
            except ImplausibleError as error:
                self._tell(f"its log-probabilities cannot be the model's ({error})")
                scores = None
            if scores is None:
                return Completion(text, "stop", raw=choice)
            # What was sampled is chance; the likelier choice is not.
            return Completion(max(choices, key=lambda one: scores[one]), "choices", choice_logprobs=scores, raw=choice)

        return await self._ask(body, request, read, probe)

    async def _way(self) -> Way | None:
        if not self._found:
            async with self._looking:
                if not self._found:
                    self._found.append(await self._look())
        return self._found[0]

    async def _look(self) -> Way | None:
        """The first way that works; None where only requests without log-probabilities are served.

        Raises:
            CallFailed: the server does not answer in time, or not as it must.
            ServerRefused: it rejects plain requests too.
        """
        for way in _ways(self._template):
            try:
                completion = await self._once(way, PROBE, PROBE.messages, 0)
            except CallFailed as failure:
                if not failure.reason.startswith("HTTP "):
                    raise
                continue
            scores = completion.choice_logprobs or {}
            if not way.forces or sum(map(math.exp, scores.values())) >= _CONTINUED:
                if self._template and not way.template:
                    _log.warning("the judge does not answer /v1/completions in its chat template; that is not used")
                _log.debug("choices are scored by: %s", way.name)
                return way
        return None

    def _tell(self, why: str) -> None:
        """Say once that log-probabilities cannot be used, for the first reason that comes up."""
        if not self._is_told:
            self._is_told = True
            _log.warning("the judge's server: %s; written answers count instead, see --judge-votes", why)


def scoring_body(way: Way, request: Request, messages: Sequence[Mapping[str, str]], draw: int = 0) -> dict[str, Any]:
    """The body that asks for a request's choices, without the model's name."""
    choices = request.choices
    # At temperature 1 and unfiltered, the distribution that is sampled from is the model's.
    body: dict[str, Any] = {**way.keys, "temperature": 1.0, "top_p": 1.0}
    beginning = shared_beginning(choices)
    # Templates trim messages, and a token seldom ends with a space.
    lead = (request.lead + beginning).rstrip()
    if way.template is not None:
        body |= {"prompt": _rendered(request, way.template) + lead, "logprobs": way.alternatives}
        return body | {"max_tokens": _apart_after(choices) - len(beginning)}
    body |= {"messages": [*messages], "logprobs": True, "top_logprobs": way.alternatives}
    if not way.forces:
        # Enough tokens to reach what tells the choices apart, even at one token per character.
        seed = int(content_hash([request.messages, draw], length=8), 16) & _SEED_BITS
        return body | {"max_tokens": max(map(len, choices)), "seed": seed}
    body["messages"].append({"role": "assistant", "content": lead})
    return body | {"max_tokens": _apart_after(choices) - len(beginning)}


def _rendered(request: Request, template: ChatTemplate) -> str:
    """The prompt up to where the reply's text begins; no text in it can forge a turn."""
    conversation = guard(request.safe, template, policy=TokenPolicy.ESCAPE, counts=RowCounts())
    assert conversation is not None, "nothing is dropped by escaping"
    return template.generation_prompt(conversation) + template.reply_start


@lru_cache(maxsize=256)
def _apart_after(choices: tuple[str, ...]) -> int:
    """The length of the longest beginning that is needed to tell one choice from all others."""
    return 1 + max(len(shared_beginning((one, other))) for one in choices for other in choices if one is not other)
