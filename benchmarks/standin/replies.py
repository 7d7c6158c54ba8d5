# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Replies that depend on nothing but a request's content and seed: never on time, order or other requests.

Every token is a word of three letters and a space, so that text of four bytes is one token here, for prompts too.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from statistics import NormalDist
from typing import Any, cast

import orjson

BYTES_PER_TOKEN = 4
_WORDS = [f"{a}{b}{c} " for a, b, c in product("aeiou", "bcdfglmnprtv", "aeiou")]
_TAG_WORDS = 5
"""Words at a reply's beginning that make it its own: 300^5 beginnings."""
_POOL_WORDS = 1 << 16
_MOST_SCORED = 8
"""With log-probabilities and at most so many tokens, a judge's letter is asked for."""
_LETTERS = re.compile(r"\(([A-Z])\)")


def _pool() -> str:
    """A long text of words in a fixed order, from which replies are cut."""
    draws = blake2b(b"pool", digest_size=64)
    words: list[str] = []
    while len(words) < _POOL_WORDS:
        draws.update(b"+")
        words += [_WORDS[number % len(_WORDS)] for number in memoryview(draws.digest()).cast("H")]
    return "".join(words[:_POOL_WORDS])


_POOL = _pool()


def content_digest(body: Mapping[str, Any]) -> bytes:
    """128 bits that name a request's content; the order of keys is no content."""
    return blake2b(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def uniform(digest: bytes, purpose: bytes) -> float:
    """A number in (0, 1) that belongs to a content and a purpose."""
    return (int.from_bytes(blake2b(digest + purpose, digest_size=6).digest(), "big") + 0.5) / 2**48


@dataclass(frozen=True)
class Lengths:
    """How many tokens a model likes to write: log-normal, as measured reply lengths are, with the tail cut off.

    Attributes:
        median: in tokens.
        sigma: the standard deviation of the logarithm; 0 makes all replies equally long.
        most: the longest reply, in tokens.
    """

    median: float = 120.0
    sigma: float = 0.8
    most: int = 1024

    def tokens(self, digest: bytes) -> int:
        """The length of the reply to a content."""
        drawn = NormalDist().inv_cdf(uniform(digest, b"length"))
        return max(1, min(self.most, round(self.median * math.exp(self.sigma * drawn))))


@dataclass(frozen=True)
class Reply:
    """A complete answer, before any fault. `logprobs` is as OpenAI's protocol has it."""

    text: str
    tokens: int
    finish_reason: str = "stop"
    logprobs: dict[str, Any] | None = None


def reply_to(body: Mapping[str, Any], digest: bytes, lengths: Lengths) -> Reply:
    """What the model answers."""
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or 1 << 30
    if body.get("logprobs") and limit <= _MOST_SCORED:
        return _letter(body, digest, limit)
    response_format: Mapping[str, Any] = body.get("response_format") or {"type": "text"}
    if response_format["type"] == "json_schema":
        text = json.dumps(_of_schema(response_format["json_schema"]["schema"], digest, b"json"))
        return Reply(text, -(-len(text) // BYTES_PER_TOKEN))
    tokens = lengths.tokens(digest)
    written = min(tokens, limit)
    return Reply(words(digest, written), written, "stop" if written == tokens else "length")


def words(digest: bytes, count: int) -> str:
    """So many tokens of text: a beginning of its own, then a cut from the pool."""
    drawn = int.from_bytes(digest, "big")
    tag: list[str] = []
    for _ in range(min(count, _TAG_WORDS)):
        drawn, word = divmod(drawn, len(_WORDS))
        tag.append(_WORDS[word])
    rest = count - len(tag)
    start = BYTES_PER_TOKEN * (drawn % max(1, _POOL_WORDS - rest))
    return ("".join(tag) + _POOL[start : start + BYTES_PER_TOKEN * rest]).rstrip()


def _letter(body: Mapping[str, Any], digest: bytes, limit: int) -> Reply:
    """One of the letters that the question offers as "(A)", with its probability; "A" and "B" where there are none."""
    question = next(str(one["content"]) for one in reversed(body["messages"]) if one["role"] == "user")
    letters = list(dict.fromkeys(_LETTERS.findall(question))) or ["A", "B"]
    weights = [uniform(digest, letter.encode()) for letter in letters]
    scores = {letter: math.log(weight / sum(weights)) for letter, weight in zip(letters, weights, strict=True)}
    best = max(letters, key=lambda letter: scores[letter])
    # A reply that continues "(" begins with the letter, and a single token has room for nothing else.
    bare = limit == 1 or body.get("continue_final_message")
    tokens = (
        [{best: scores[best]} | scores, {")": 0.0}]
        if bare
        else [{"(": 0.0}, {best: scores[best]} | scores, {")": 0.0}]
    )
    shown = int(body.get("top_logprobs") or 0)
    content = [_token(alternatives, shown) for alternatives in tokens[:limit]]
    text = "".join(entry["token"] for entry in content)
    return Reply(text, len(content), "stop" if len(tokens) <= limit else "length", {"content": content})


def _token(alternatives: Mapping[str, float], shown: int) -> dict[str, Any]:
    entries = [
        {"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in alternatives.items()
    ]
    top = sorted(entries, key=lambda entry: -cast(float, entry["logprob"]))[:shown]
    return entries[0] | {"top_logprobs": top}


def _of_schema(schema: Mapping[str, Any], digest: bytes, place: bytes) -> Any:
    """A value that a JSON schema of objects, lists, choices and plain values admits."""
    drawn = int(uniform(digest, place) * 1000)
    if "enum" in schema:
        options = cast(Sequence[Any], schema["enum"])
        return options[drawn % len(options)]
    kind = schema.get("type", "object")
    if kind == "object":
        properties = cast(Mapping[str, Mapping[str, Any]], schema.get("properties", {}))
        return {name: _of_schema(part, digest, place + name.encode()) for name, part in properties.items()}
    if kind == "array":
        return [_of_schema(schema.get("items", {"type": "string"}), digest, place + b"[]")]
    if kind in ("integer", "number"):
        low = int(schema.get("minimum", 0))
        return low + drawn % (int(schema.get("maximum", low + 9)) - low + 1)
    return drawn % 2 == 0 if kind == "boolean" else words(blake2b(digest + place, digest_size=16).digest(), 8)
