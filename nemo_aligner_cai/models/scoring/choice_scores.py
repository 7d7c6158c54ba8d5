# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of choices, from the top alternatives that an OpenAI-compatible server returns for each token.

Input:  {"content": [{"token": "A", "logprob": -0.48, "top_logprobs": [{"token": "A", "logprob": -0.48}, ...]}]}
Output: {"(A)": -0.48, "(B)": -0.97}

Some servers (formerly TensorRT-LLM and SGLang) return the distribution that they sample from, not the model's: at
temperature 0, its probabilities are 1 and 0. So choices are requested at temperature 1, and implausible distributions
are rejected.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

ROUNDING = 1e-3
"""Maximum rounding error of log-probabilities."""
MIN_LOGPROB = -50.0
"""Lower bound on the log-probability of a top token; lower values come from a filtered distribution."""
_FLOAT32 = 1e-6
"""Rounding error of probabilities in single precision."""
MAX_TOTAL = 1.1
"""Upper bound on the sum of the alternatives' probabilities, with rounding."""
_PIECES = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})
"""Representations of white space in tokens, which some servers (vLLM) return unchanged."""


class ImplausibleError(Exception):
    """A distribution cannot be the model's; the message states the reason."""


@lru_cache(maxsize=256)
def common_prefix(texts: tuple[str, ...]) -> str:
    """Return the longest common prefix."""
    first, last = min(texts), max(texts)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def choice_logprobs(logprobs: Any, choices: Sequence[str], prefix: str = "") -> dict[str, float] | None:
    """Return each choice's log-probability, from the alternatives up to the token that distinguishes the choices.

    Args:
        logprobs: the server's object; see the module docstring.
        choices: texts such as "(A)" and "(B)".
        prefix: the part of the choices that the reply contained before its first token.

    Returns:
        Log-probabilities by choice. A choice that is not among the alternatives gets its upper bound: the probability
        of the least likely alternative, or all that remains. None if the server returned no alternatives, or the reply
        diverged from the choices before they are distinguished.

    Raises:
        ImplausibleError: the distribution cannot be the model's.
    """
    try:
        steps = [_alternatives(token) for token in _tokens(logprobs)]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    mass = dict.fromkeys(choices, 0.0)
    reached, alternatives = 1.0, dict[str, float]()
    for token, alternatives in steps:
        for alternative, probability in alternatives.items():
            matching = _matching(prefix + alternative, choices)
            if len(matching) == 1:
                mass[matching[0]] += reached * probability
        if len(_matching(prefix + token, choices)) < 2:
            break
        prefix, reached = prefix + token, reached * alternatives[token]
    if len(alternatives) < 2 or not any(mass.values()):
        return None
    least = min(alternatives.values())
    if max(least, min(mass.values())) < math.exp(MIN_LOGPROB):
        raise ImplausibleError("alternatives of probability 0; the distribution was filtered or sharpened")
    bound = reached * min(least, max(_FLOAT32, 1.0 - sum(alternatives.values())))
    # A product of tiny probabilities may be 0 in floating point.
    return {choice: math.log(probability or bound or sys.float_info.min) for choice, probability in mass.items()}


def _tokens(logprobs: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return one entry per token, also for ``/v1/completions``, which returns columns."""
    if "tokens" not in logprobs:
        return logprobs["content"]
    columns = zip(*(logprobs[name] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True)
    return [
        {
            "token": token,
            "logprob": logprob,
            "top_logprobs": [
                {"token": other, "logprob": value} for other, value in cast(dict[str, Any], top or {}).items()
            ],
        }
        for token, logprob, top in columns
    ]


def _matching(text: str, choices: Sequence[str]) -> list[str]:
    """Return the choices that a reply with this beginning may still be."""
    text = text.lstrip()
    return [choice for choice in choices if choice.startswith(text) or _begins_with(text, choice)]


def _begins_with(text: str, choice: str) -> bool:
    """True if the text begins with the choice as whole words: "A)" begins with "A", "As" does not."""
    following = text[len(choice) : len(choice) + 1]
    return text.startswith(choice) and not (choice[-1:].isalnum() and following.isalnum())


def _alternatives(token: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """Return the sampled token, and the probabilities of all listed tokens."""
    # If a token is listed twice, the first entry counts.
    listed = {str(item["token"]): float(item["logprob"]) for item in reversed(token.get("top_logprobs") or ())}
    sampled, logprob = str(token["token"]), float(token["logprob"])
    if any(math.isnan(value) for value in (logprob, *listed.values())):
        raise ValueError("not a number")
    if listed:
        _check(sampled, logprob, listed)
    logprobs = {sampled: logprob} | listed
    probabilities = {text.translate(_PIECES): math.exp(min(0.0, value)) for text, value in logprobs.items()}
    return sampled.translate(_PIECES), probabilities


def _check(sampled: str, logprob: float, listed: Mapping[str, float]) -> None:
    """Raises ImplausibleError if no model has such a distribution over its top tokens."""
    values = sorted(listed.values(), reverse=True)
    others = [math.exp(min(0.0, value)) for value in values[1:]]
    if max(logprob, values[0]) > ROUNDING:
        raise ImplausibleError("log-probabilities above 0")
    if sampled not in listed and logprob > values[-1] + ROUNDING:
        raise ImplausibleError("the sampled token is not among the alternatives")
    if logprob < MIN_LOGPROB:
        raise ImplausibleError("the sampled token has the probability 0")
    if math.exp(min(0.0, values[0])) + sum(others) > MAX_TOTAL:
        raise ImplausibleError("the probabilities sum to more than 1")
    is_certain = values[0] >= 0.0 and bool(others)
    is_flat = len(others) > 1 and values[1] == values[-1]
    if is_certain and (is_flat or values[1] < MIN_LOGPROB or sum(others) > ROUNDING):
        raise ImplausibleError("all probability on one alternative")
