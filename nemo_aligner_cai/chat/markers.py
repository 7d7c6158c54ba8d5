# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The strings of a chat template that must not stand in a message, found in the open and in disguise.

Many tokenizers normalize text before they look for their special tokens: what they read as ``<extra_id_1>`` can be
written with full-width letters, superscripts or control characters in between, which no plain search finds.
SentencePiece's default normalization (nmt_nfkc) is one of them.
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
    """What is left of each character by nmt_nfkc, for `str.translate`; filled as characters come."""

    def __missing__(self, code: int) -> str:
        # U+2581 stands for a space in SentencePiece.
        text = "" if code in _REMOVED else unicodedata.normalize("NFKC", chr(code)).replace("\u2581", " ")
        self[code] = text
        return text


_NORMALIZED = _Normalized()


def special_tokens(text: str) -> set[str]:
    """What looks like a special token in a template's own text: ``<...>``, ``[INST]``, a control character."""
    return set(_SPECIAL.findall(text))


class Markers:
    """Strings that have a meaning in a template, and what to do with texts that contain them.

    Raises:
        UsageError: one of them is U+FFFD, which takes the place of tokens of one character.
    """

    def __init__(self, markers: Iterable[str], pattern: str = "(?!)") -> None:
        """Prepare the searches.

        Args:
            markers: the strings.
            pattern: a regular expression of further ones, none of which begins with what `escape` makes of another.
        """
        # White space around a token is no part of its meaning, and could come from the text's neighbours.
        self.strings = tuple(sorted({marker.strip() or marker for marker in markers} - {""}))
        if _GONE in self.strings:
            raise UsageError("U+FFFD cannot be a token of a chat template: it stands for what could not be read")
        normalized = {marker.translate(_NORMALIZED) for marker in self.strings} - {""}
        self._pattern = re.compile(f"{_any_of(self.strings)}|{pattern}")
        self._disguised = re.compile(f"{_any_of(normalized)}|{pattern}")
        self._starts = tuple({marker[0] for marker in (*self.strings, *normalized)})

    def found_in(self, text: str) -> bool:
        """Whether the text contains a marker, or would after a tokenizer's normalization."""
        if text.isascii() or unicodedata.is_normalized("NFKC", text):
            # Most texts have not even a marker's first letter. Plain searches: on a page of text they are many times
            # faster than one regular expression.
            for start in self._starts:
                if start in text:
                    break
            else:
                return False
        if any(marker in text for marker in self.strings) or self._pattern.search(text):
            return True
        return self._disguised.search(text.translate(_NORMALIZED)) is not None

    def escape(self, text: str) -> str:
        """The text with a space in each marker, which so loses its meaning and stays readable."""
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
    # Without strings, a pattern that nothing matches.
    return "|".join(map(re.escape, longest_first)) or r"(?!)"


def _break(match: re.Match[str]) -> str:
    marker = match[0]
    # A marker of one character cannot be split; the Unicode replacement character takes its place.
    return f"{marker[0]} {marker[1:]}" if len(marker) > 1 else _GONE
