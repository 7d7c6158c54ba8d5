# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Scores choices on an OpenAI-compatible server, with the first method that the server supports.

Input:  user: "... Answer with (A) or (B), and nothing else."     choices ("(A)", "(B)")
Sent:   the same, and the beginning of the reply: "The answer is: ("
Output: {"(A)": -0.86, "(B)": -1.30}, from the alternatives at the next token

Small models seldom begin a reply with "(". So the beginning of the reply is given, as in arXiv 2212.08073, if the
server can continue it:

    complete                 /v1/completions continues the prompt, which is rendered here; needs a chat template
    continue                 continue_final_message, add_generation_prompt (vLLM, SGLang)
    prefill                  a last message of the assistant is continued without a flag (llama.cpp, TGI, Ollama)
    prefill, no thinking     the same for templates that would otherwise begin with reasoning (llama.cpp)
    free                     the model begins the reply itself, and its own tokens are read

A question with an obvious answer is sent with each method, in this order, until the first token of the reply is the
letter. The result depends on the server and on the chat template, which is part of the client's identity. Journal keys
do not contain the method.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from nemo_aligner_cai.chat import ChatTemplate, Conversation
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models.base import CallFailed, Completion, Request, Sampling
from nemo_aligner_cai.models.scoring.choice_scores import ImplausibleError, choice_logprobs, common_prefix

_log = logging.getLogger(__name__)
_TOP_LOGPROBS = (20, 5)
"""Alternatives per token: the protocol's maximum, and the maximum of stricter servers."""
_FREE_ATTEMPTS = 3
"""A sampled free reply may diverge from the choices by chance."""
_MIN_PROBABILITY = 0.2
"""Minimum total probability of the probe's two letters in a reply that continues the given beginning."""
_SEED_BITS = 0x7FFFFFFF
PROBE_TEXT = "Which of these is a color? (A) red (B) seven. Answer with (A) or (B), and nothing else."
PROBE = Request(Conversation.of_user(PROBE_TEXT), Sampling(greedy=True, max_tokens=1), choices=("(A)", "(B)"))
"""The question that finds the method which a server supports."""


@dataclass(frozen=True)
class ScoringMethod:
    """One method to score choices.

    Attributes:
        name: name in the module docstring.
        keys: keys added to the request body.
        prefills: True if the beginning of the reply is given.
        top_logprobs: number of alternatives per token.
        template: renders the prompt for ``/v1/completions``.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict[str, Any])
    prefills: bool = True
    top_logprobs: int = _TOP_LOGPROBS[0]
    template: ChatTemplate | None = None


CONTINUE = ScoringMethod("continue", {"continue_final_message": True, "add_generation_prompt": False})
_CHAT_METHODS = (
    CONTINUE,
    ScoringMethod("prefill"),
    ScoringMethod("prefill, no thinking", {"chat_template_kwargs": {"enable_thinking": False}}),
    ScoringMethod("free", prefills=False),
)


def _methods(template: ChatTemplate | None) -> list[ScoringMethod]:
    groups: list[tuple[ScoringMethod, ...]] = [_CHAT_METHODS]
    if template is not None:
        # The template contains the begin-of-text token. OpenAI's own protocol does not have this key.
        keys: tuple[dict[str, Any], ...] = ({"add_special_tokens": False}, {})
        groups.insert(0, tuple(ScoringMethod("complete", some, template=template) for some in keys))
    return [replace(method, top_logprobs=top) for group in groups for top in _TOP_LOGPROBS for method in group]


Parse = Callable[[Mapping[str, Any], str], Completion]
"""Converts the first choice of a response, and its text, to a completion."""
Send = Callable[[Mapping[str, Any], Request, Parse, Callable[[], Mapping[str, Any]]], Awaitable[Completion]]
"""Sends a body for a request. The last argument returns the body to send if this one is rejected."""


class ChoiceScorer:
    """Scores choices on one server."""

    def __init__(self, send: Send, template: ChatTemplate | None = None) -> None:
        """Create a scorer.

        Args:
            send: sends a body. A body with a prompt instead of messages goes to ``/v1/completions``.
            template: the model's chat template, if the user names it.
        """
        self._send = send
        self._template = template
        self._lock = asyncio.Lock()
        self._method: ScoringMethod | None = None
        self._is_probed = False
        self._warned = False

    async def score(self, request: Request) -> Completion:
        """Return a completion with log-probabilities, or without them if the server returns no usable ones."""
        async with self._lock:
            if not self._is_probed:
                self._method = await self._find_method()
                self._is_probed = True
        method = self._method
        if method is None:
            self._warn("it refuses to return log-probabilities")
            return Completion("", "stop")
        completion = await self._ask(method, request)
        for attempt in range(1, 1 if method.prefills else _FREE_ATTEMPTS):
            if completion.choice_logprobs is not None or not completion.raw.get("logprobs"):
                break
            completion = await self._ask(method, request, attempt)
        if completion.choice_logprobs is None:
            self._warn("its reply has no log-probabilities of the choices")
        return completion

    async def _ask(self, method: ScoringMethod, request: Request, attempt: int = 0) -> Completion:
        choices = request.choices
        prefix = common_prefix(choices).rstrip() if method.prefills else ""

        def probe() -> Mapping[str, Any]:
            harmless = request.probe()
            if request is not PROBE:
                return scoring_body(method, harmless, attempt)
            # If a plain request succeeds, the server rejects only the method.
            return {"max_tokens": 1} | ({"prompt": "Hello"} if method.template else {"messages": harmless.messages})

        def parse(choice: Mapping[str, Any], text: str) -> Completion:
            try:
                scores = choice_logprobs(choice.get("logprobs"), choices, prefix)
            except ImplausibleError as error:
                self._warn(f"its log-probabilities are implausible ({error})")
                scores = None
            if scores is None:
                return Completion(text, "stop", raw=choice)
            # The likelier choice, not the sampled one, which is random.
            return Completion(max(choices, key=lambda one: scores[one]), "choices", choice_logprobs=scores, raw=choice)

        return await self._send(scoring_body(method, request, attempt), request, parse, probe)

    async def _find_method(self) -> ScoringMethod | None:
        """Return the first method that works; None if the server only serves requests without log-probabilities.

        Raises:
            CallFailed: no valid response.
            ServerRefused: the server rejects plain requests too.
        """
        for method in _methods(self._template):
            try:
                completion = await self._ask(method, PROBE)
            except CallFailed as failure:
                if not failure.reason.startswith("HTTP "):
                    raise
                continue
            scores = completion.choice_logprobs or {}
            if not method.prefills or sum(map(math.exp, scores.values())) >= _MIN_PROBABILITY:
                if self._template and not method.template:
                    _log.warning(
                        "the judge's chat template is not used: the judge does not answer in it on /v1/completions"
                    )
                _log.debug("choices are scored with the method %r", method.name)
                return method
        return None

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("the judge's server: %s; votes are counted instead, see --judge-votes", reason)


def scoring_body(method: ScoringMethod, request: Request, attempt: int = 0) -> dict[str, Any]:
    """Return the request body, without the model's name, that scores a request's choices."""
    choices = request.choices
    # At temperature 1 and without filters, the sampling distribution is the model's.
    body: dict[str, Any] = {**method.keys, "temperature": 1.0, "top_p": 1.0}
    prefix = common_prefix(choices)
    # Templates trim messages, and a token seldom ends with a space.
    lead = (request.lead + prefix).rstrip()
    if method.template is not None:
        prompt = method.template.generation_prompt(request.escaped_for(method.template)) + method.template.reply_start
        body |= {"prompt": prompt + lead, "logprobs": method.top_logprobs}
        return body | {"max_tokens": _distinct_length(choices) - len(prefix)}
    body |= {"messages": [*request.escaped_messages], "logprobs": True, "top_logprobs": method.top_logprobs}
    if not method.prefills:
        # Enough tokens to distinguish the choices, even at one token per character.
        seed = int(content_hash([request.messages, attempt], length=8), 16) & _SEED_BITS
        return body | {"max_tokens": max(map(len, choices)), "seed": seed}
    body["messages"].append({"role": "assistant", "content": lead})
    return body | {"max_tokens": _distinct_length(choices) - len(prefix)}


@lru_cache(maxsize=256)
def _distinct_length(choices: tuple[str, ...]) -> int:
    """Return the length of the longest prefix that is needed to distinguish a choice from the others."""
    return 1 + max(len(common_prefix((one, other))) for one in choices for other in choices if one is not other)
