# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Compares the prompt that a server echoes with the prompt that was sent.

Input:  "<extra_id_1>User\n中文 hi\n<extra_id_1>Assistant\n", "<extra_id_1>User\n⁇  hi\n<extra_id_1>Assistant\nHello."
Output: True, because the second text begins with the first one, apart from the tokenizer's changes

Only this comparison detects a server that mixes up the rows of a batch or returns an earlier response. Tokenizers
change white space, normalize characters, and decode unknown ones as "⁇"; the comparison ignores these changes.
"""

import re
import unicodedata
from collections.abc import Iterable

_FIRST_TOKEN = re.compile(r"\s*<[^<>\s]+>")
_UNKNOWN = "\u2047"
_PLACEHOLDER = "\ufdd0"
"""A noncharacter that replaces "⁇" before normalization, which would turn it into question marks."""
_MIN_TAIL = 8
"""Characters at the end of a prompt that must match after an unknown character."""
_NGRAM = 5
_MIN_OVERLAP = 0.5
"""Share of a text's character 5-grams that must be echoed by a tokenizer with other changes."""


def echoes(sentence: str, prompt: str) -> bool:
    """True if a sentence begins with a prompt, up to tokenizer changes and a token at the start of the text."""
    token = _FIRST_TOKEN.match(sentence)
    return _begins(sentence, prompt) or (token is not None and _begins(sentence[token.end() :], prompt))


def _begins(sentence: str, prompt: str) -> bool:
    if sentence.startswith(prompt):
        return True
    rest = _normalize(prompt).replace(_PLACEHOLDER, "")
    first, *others = _normalize(sentence).split(_PLACEHOLDER)
    if first.startswith(rest) or not rest.startswith(first):
        return first.startswith(rest)
    rest = rest[len(first) :]
    for part in (part for part in others if part):
        found = rest.find(part, 1)
        if found < 0:
            # The prompt ends within this part, after at least one unknown character.
            return any(part.startswith(rest[start:]) for start in range(1, max(2, len(rest) - _MIN_TAIL)))
        rest = rest[found + len(part) :]
    return not rest


def resembles(sentence: str, texts: Iterable[str]) -> bool:
    """True if a sentence contains half of the texts' 5-grams: for tokenizer changes that `echoes` does not know."""
    expected = _ngrams("".join(map(_normalize, texts)).replace(_PLACEHOLDER, ""))
    return len(expected & _ngrams(_normalize(sentence))) >= _MIN_OVERLAP * len(expected)


def _normalize(text: str) -> str:
    text = text.replace(_UNKNOWN, _PLACEHOLDER).replace("\u2581", " ")
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(c for c in "".join(text.split()).casefold() if c.isprintable() or c == _PLACEHOLDER)


def _ngrams(text: str) -> set[str]:
    return {text[start : start + _NGRAM] for start in range(max(1, len(text) - _NGRAM + 1))}
