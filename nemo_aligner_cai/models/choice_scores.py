# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of choices, from the alternatives that an OpenAI-compatible server lists for each token.

Input:  {"content": [{"token": "A", "logprob": -0.48, "top_logprobs": [{"token": "A", "logprob": -0.48}, ...]}]}
Output: {"(A)": -0.48, "(B)": -0.97}

Some servers report the distribution that they sample from, and not the model's: at temperature 0 that is 1 and 0 (as
TensorRT-LLM and SGLang did). So choices are asked for at temperature 1, and a distribution that cannot be a model's is
not used.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

ROUNDING = 1e-3
"""Rounding can bring a logarithm above 0 by this much."""
NOTHING = -50.0
"""The logarithm of a probability that no softmax of a model gives to one of its likeliest tokens: it was filtered."""
_FLOAT32 = 1e-6
"""Rounding error of probabilities that were computed in single precision."""
MOST_IN_ALL = 1.1
"""The most that the alternatives' probabilities may add up to, with rounding."""
_PIECES = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})
"""How tokenizers spell a space or a line end within a token; some servers send tokens as spelled (vLLM does)."""


class ImplausibleError(ValueError):
    """A distribution that cannot be the model's; the text says why."""


@lru_cache(maxsize=256)
def shared_beginning(texts: tuple[str, ...]) -> str:
    """The longest text that all texts begin with."""
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((place for place, (a, b) in pairs if a != b), min(len(first), len(last)))]


def choice_logprobs(logprobs: Any, choices: Sequence[str], written: str = "") -> dict[str, float] | None:
    """How likely each choice is, from the alternatives at the tokens up to the one that tells the choices apart.

    Args:
        logprobs: the server's object, see the module.
        choices: the texts to be told apart, such as "(A)" and "(B)".
        written: the beginning of every choice that the reply already had before its first token.

    Returns:
        Log-probabilities by choice; a choice that is not among the alternatives gets the most that it can have, which
        is what the least likely one has, or all that is left. None where the server gave no alternatives, or the reply
        left the choices before they parted: then there is nothing to score.

    Raises:
        ImplausibleError: the numbers cannot be the model's.
    """
    try:
        steps = [_alternatives(token) for token in _tokens(logprobs)]
    except ImplausibleError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    mass = dict.fromkeys(choices, 0.0)
    reached, alternatives = 1.0, dict[str, float]()
    for token, alternatives in steps:
        for alternative, probability in alternatives.items():
            fitting = _fitting(written + alternative, choices)
            if len(fitting) == 1:
                mass[fitting[0]] += reached * probability
        if len(_fitting(written + token, choices)) < 2:
            # The token that was sampled has told them apart, or left them.
            break
        written, reached = written + token, reached * alternatives[token]
    if len(alternatives) < 2 or not any(mass.values()):
        return None
    least = min(alternatives.values())
    if max(least, min(mass.values())) < math.exp(NOTHING):
        raise ImplausibleError("alternatives of probability 0: the distribution was filtered or sharpened")
    rest = reached * min(least, max(_FLOAT32, 1.0 - sum(alternatives.values())))
    return {choice: math.log(found or rest) for choice, found in mass.items()}


def _tokens(logprobs: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries by token, also where they come in columns, as ``/v1/completions`` has them."""
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


def _fitting(text: str, choices: Sequence[str]) -> list[str]:
    """The choices that a reply with this beginning may still be."""
    text = text.lstrip()
    return [choice for choice in choices if choice.startswith(text) or text.startswith(choice)]


def _alternatives(token: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The sampled token, and the probabilities of all that were possible there."""
    # Of several mentions the first counts.
    listed = {str(item["token"]): float(item["logprob"]) for item in reversed(token.get("top_logprobs") or ())}
    sampled, log = str(token["token"]), float(token["logprob"])
    if any(math.isnan(value) for value in (log, *listed.values())):
        raise ValueError("not a number")
    if listed:
        _check(sampled, log, listed)
    logs = {sampled: log} | listed
    return sampled.translate(_PIECES), {
        name.translate(_PIECES): math.exp(min(0.0, value)) for name, value in logs.items()
    }


def _check(sampled: str, log: float, listed: Mapping[str, float]) -> None:
    """Raises ImplausibleError for what no model's distribution over its likeliest tokens looks like."""
    values = sorted(listed.values(), reverse=True)
    others = [math.exp(min(0.0, value)) for value in values[1:]]
    if max(log, values[0]) > ROUNDING:
        raise ImplausibleError("logarithms above 0, which are no probabilities")
    if sampled not in listed and log > values[-1] + ROUNDING:
        raise ImplausibleError("the sampled token is not among the alternatives")
    if log < NOTHING:
        raise ImplausibleError("the sampled token has the probability 0")
    if math.exp(min(0.0, values[0])) + sum(others) > MOST_IN_ALL:
        raise ImplausibleError("probabilities that add up to more than 1")
    is_certain = values[0] >= 0.0 and bool(others)
    is_flat = len(others) > 1 and values[1] == values[-1]
    if is_certain and (is_flat or values[1] < NOTHING or sum(others) > ROUNDING):
        raise ImplausibleError("all probability on one alternative")
