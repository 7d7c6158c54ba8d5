# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Facts about the tokens of every text, so that most texts need not be tokenized to be judged.

They are known for SentencePiece models of the type BPE with byte fallback and without normalization, such as those of
Llama 2, Mistral and Gemma. Such a model replaces spaces by one letter, may add one at the start, and then joins
neighboring letters as long as its vocabulary has the result. A letter that is not in the vocabulary becomes its bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

SPACE = "\u2581"
"""SentencePiece's letter for a space."""

# The numbers of fields and values in SentencePiece's file format, sentencepiece_model.proto.
_TRAINER, _NORMALIZER = 2, 3
_MODEL_TYPE, _SPACE_AS_SUFFIX, _BYTE_FALLBACK = 3, 24, 35
_CHARACTER_MAP, _REMOVE_SPACES, _ESCAPE_SPACES = 2, 4, 5
_BPE = 2
# Protocol buffers: the kinds of fields, the lowest three bits of a key.
_VARINT, _FIXED_SIZES = 0, {1: 8, 5: 4}


@dataclass(frozen=True)
class TokenFacts:
    """Facts about the tokens of every text."""

    joined: frozenset[str]
    """The pairs of neighboring letters in the pieces of the vocabulary."""

    def most_tokens(self, text: str) -> int:
        """An upper bound of the number of the text's tokens: each covers a byte of it, or the space put before it."""
        return len(text.encode()) + 1

    def splits(self, before: str, after: str) -> bool:
        """True if no token ever covers the boundary between the two texts, whatever surrounds them.

        The tokens of a text with that boundary are then those of its part up to there and those of the rest: no piece
        contains both letters, and letters are joined in an order that each part has on its own.
        """
        return (before[-1:] + after[:1]).replace(" ", SPACE) not in self.joined


def sentencepiece_facts(model: bytes, pieces: Sequence[str]) -> TokenFacts | None:
    """The facts of a serialized SentencePiece model without unused pieces; None if they are not known."""
    parts = dict(_fields(model))
    trainer, normalizer = (dict(_fields(cast(bytes, parts.get(part, b"")))) for part in (_TRAINER, _NORMALIZER))
    known = (
        trainer.get(_MODEL_TYPE) == _BPE
        and trainer.get(_BYTE_FALLBACK)
        and not trainer.get(_SPACE_AS_SUFFIX)
        and not normalizer.get(_CHARACTER_MAP)
        # The last two are true if a file does not have them.
        and not normalizer.get(_REMOVE_SPACES, True)
        and normalizer.get(_ESCAPE_SPACES, True)
        and SPACE in pieces
    )
    return (
        TokenFacts(frozenset(first + second for piece in pieces for first, second in pairwise(piece)))
        if known
        else None
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer message: number, and value as an integer or undecoded."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == _VARINT:
            value, at = _varint(message, at)
        else:
            size, at = (_FIXED_SIZES[key & 7], at) if key & 7 in _FIXED_SIZES else _varint(message, at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """An integer in groups of seven bits, the lowest first, and the position after it."""
    value = shift = 0
    while message[at] & 0x80:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1
