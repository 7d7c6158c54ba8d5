# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Special tokens: strings with a meaning for a model, which must not occur in a message, plain or disguised.

Many tokenizers normalize text before they look for special tokens, SentencePiece by default with nmt_nfkc. They read
``<extra_id_1>`` in full-width letters, in superscripts, or with control characters in between.
"""

import re
import unicodedata
from collections.abc import Iterable

from nemo_aligner_cai.errors import UsageError

# "<extra_id_1>", "<|im_start|>", "[INST]", "[/INST]", a control character
_SPECIAL = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]|[\x00-\x08\x0e-\x1f]")
# Control characters that nmt_nfkc removes; tab, line feed, carriage return and form feed become white space.
_REMOVED = frozenset((*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F))
_GONE = "\ufffd"


class _Normalized(dict[int, str]):
    """The result of nmt_nfkc for each character, for `str.translate`; filled on demand."""

    def __missing__(self, code: int) -> str:
        # U+2581 is SentencePiece's space.
        text = "" if code in _REMOVED else unicodedata.normalize("NFKC", chr(code)).replace("\u2581", " ")
        self[code] = text
        return text


_NORMALIZED = _Normalized()


def find_special_tokens(text: str) -> set[str]:
    """Find special tokens in a template's own text by their look: ``<...>``, ``[INST]``, a control character."""
    return set(_SPECIAL.findall(text))


class SpecialTokens:
    """Finds and escapes special tokens.

    Args:
        tokens: the strings.
        pattern: a regular expression for more of them, none of which starts with an escaped token.

    Raises:
        UsageError: a token is U+FFFD, the replacement for tokens of one character.
    """

    def __init__(self, tokens: Iterable[str], pattern: str = "(?!)") -> None:
        # White space around a token is not part of its meaning, and could come from the neighboring text.
        self.strings = tuple(sorted({token.strip() or token for token in tokens} - {""}))
        if _GONE in self.strings:
            raise UsageError("U+FFFD cannot be a token of a chat template: it replaces unreadable text")
        normalized = {token.translate(_NORMALIZED) for token in self.strings} - {""}
        self._pattern = re.compile(f"{_any_of(self.strings)}|{pattern}")
        self._disguised = re.compile(f"{_any_of(normalized)}|{pattern}")
        self._starts = tuple({token[0] for token in (*self.strings, *normalized)})

    def found_in(self, text: str) -> bool:
        """True if the text contains a token, before or after a tokenizer's normalization."""
        if text.isascii() or unicodedata.is_normalized("NFKC", text):
            # Most texts do not contain even the first character of a token. Plain searches are many times faster on a
            # page of text than one regular expression, and a loop faster than any().
            for start in self._starts:
                if start in text:
                    break
            else:
                return False
        if any(token in text for token in self.strings) or self._pattern.search(text):
            return True
        return self._disguised.search(text.translate(_NORMALIZED)) is not None

    def escape(self, text: str) -> str:
        """Insert a space into each token, so that it loses its meaning and stays readable."""
        while self.found_in(text):
            escaped = self._pattern.sub(_break, text)
            text = escaped if escaped != text else self._break_disguised(text)
        return text

    def _break_disguised(self, text: str) -> str:
        letters = list(text)
        normalized = [letter.translate(_NORMALIZED) for letter in letters]
        origin = [position for position, part in enumerate(normalized) for _ in part]
        for found in self._disguised.finditer("".join(normalized)):
            first, last = origin[found.start()], origin[found.end() - 1]
            letters[first] = letters[first] + " " if first < last else _GONE
        return "".join(letters)


def _any_of(strings: Iterable[str]) -> str:
    longest_first = sorted(strings, key=len, reverse=True)
    # Without strings, a pattern that matches nothing.
    return "|".join(map(re.escape, longest_first)) or r"(?!)"


def _break(match: re.Match[str]) -> str:
    token = match[0]
    # A token of one character cannot be split; it becomes the Unicode replacement character.
    return f"{token[0]} {token[1:]}" if len(token) > 1 else _GONE
