# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Comparing the prompt that a server sends back with the one that it was sent.

Input:  "<extra_id_1>User\n中文 hi\n<extra_id_1>Assistant\n", "<extra_id_1>User\n⁇  hi\n<extra_id_1>Assistant\nHello."
Output: True, the second one begins with the first one as a tokenizer spells it

A server that mixes up the rows of a batch, or sends an earlier answer, is known by this alone. Tokenizers change white
space, normalize characters, and write unknown ones as "⁇"; nothing of that may count.
"""

import re
import unicodedata
from collections.abc import Iterable

_TOKEN = re.compile(r"\s*<[^<>\s]+>")
"""A token that begins a text."""
_UNKNOWN = "\u2047"
_LOST = "\ufdd0"
"""A character that no text has, in place of the unknown one, which normalization would turn into question marks."""
_ANCHOR = 8
"""Characters at the end of a prompt that must be found where those before them were not known."""
_SHINGLE = 5
_ALIKE = 0.5
"""Share of a text's short sequences that must come back where a tokenizer changes it in another way."""


def echoes(sentence: str, prompt: str) -> bool:
    """True if a sentence begins with a prompt, but for what tokenizers change; a token may begin the text."""
    token = _TOKEN.match(sentence)
    return _begins(sentence, prompt) or (token is not None and _begins(sentence[token.end() :], prompt))


def _begins(sentence: str, prompt: str) -> bool:
    if sentence.startswith(prompt):
        return True
    rest = _plain(prompt).replace(_LOST, "")
    first, *others = _plain(sentence).split(_LOST)
    if first.startswith(rest) or not rest.startswith(first):
        return first.startswith(rest)
    rest = rest[len(first) :]
    for part in (part for part in others if part):
        found = rest.find(part, 1)
        if found < 0:
            # The prompt ends within this part, after at least one unknown character.
            return any(part.startswith(rest[start:]) for start in range(1, max(2, len(rest) - _ANCHOR)))
        rest = rest[found + len(part) :]
    return not rest


def resembles(sentence: str, texts: Iterable[str]) -> bool:
    """True if a sentence has at least half of what the texts say, for tokenizers that change more than is known."""
    wanted = _shingles("".join(map(_plain, texts)).replace(_LOST, ""))
    return len(wanted & _shingles(_plain(sentence))) >= _ALIKE * len(wanted)


def _plain(text: str) -> str:
    text = text.replace(_UNKNOWN, _LOST).replace("\u2581", " ")
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return "".join(one for one in "".join(text.split()).casefold() if one.isprintable() or one == _LOST)


def _shingles(text: str) -> set[str]:
    return {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}
