# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of given continuations from NeMo's ``/generate``.

NeMo's server has no echo mode, but with ``compute_logprob`` it returns the log-probability of every token of a
sentence, the prompt's included: ``logprob[j - 1]`` belongs to ``token_ids[j]``. So each choice is sent as the end of
the prompt, and its tokens are looked up. `all_probs` would send the whole vocabulary for each token instead.

    prompt + "(A)" -> tokens [..., "▁(", "A", ")", <one generated token, padding>]
    prompt + "(B)" -> tokens [..., "▁(", "B", ")", ...]
                                         ^ first difference: from here to the choice's end, log-probabilities add up

What choices are worth against each other is exact. Their sum is not: up to the shortest sentence of its batch, NeMo
2.2.1 spreads the probability over the padding of the vocabulary too, and after it does not (seen on a small model: a
third of the mass). At one position this is the same for all choices.
"""

import math
import re
from collections.abc import Sequence

from nemo_aligner_cai.models.choice_scores import MOST_IN_ALL, NOTHING, ROUNDING, shared_beginning
from nemo_aligner_cai.models.retry import RetryableError

_SPACES = str.maketrans("", "", " \t\n▁ĠĊ")
"""Spaces, and the ways in which tokenizers spell a space or a line end within a token."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece spells a byte of a character that it has no piece for."""


def score_choices(
    choices: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[str]],
    logprobs: Sequence[Sequence[float]],
) -> dict[str, float] | None:
    """The log-probability of each choice, after the tokens that all of them have in common.

    None where one is missing, or the numbers cannot be a model's.

    Args:
        choices: n texts of which none begins another.
        token_ids: n rows of ids: prompt, choice, and whatever follows.
        tokens: the same as strings, as the tokenizer spells its pieces.
        logprobs: n rows; entry j - 1 is the natural logarithm of the probability of token j.

    Raises:
        Retriable: the rows are not those of one prompt with these choices.
    """
    start = _first_difference(token_ids)
    shared = len(shared_beginning(tuple(choices)))
    scores: dict[str, float] = {}
    for row, choice in enumerate(choices):
        end = _end(choice[shared:], tokens[row], start)
        values = logprobs[row][start - 1 : end - 1]
        if len(values) < end - start or not all(-math.inf < value <= ROUNDING for value in values):
            return None
        scores[choice] = sum(values)
    # The first differing tokens are alternatives at one place.
    alternatives = {ids[start]: values[start - 1] for ids, values in zip(token_ids, logprobs, strict=True)}
    is_certain = max(scores.values()) >= 0.0 and min(scores.values()) < NOTHING
    return None if is_certain or sum(map(math.exp, alternatives.values())) > MOST_IN_ALL else scores


def _first_difference(rows: Sequence[Sequence[int]]) -> int:
    for position, column in enumerate(zip(*rows, strict=False)):
        if len(set(column)) > 1:
            if position == 0:
                break
            return position
    raise RetryableError("malformed answer", "the choices have the same tokens, or none in common with their prompt")


def _end(remainder: str, tokens: Sequence[str], start: int) -> int:
    """The position after the token that completes `remainder`, counted from token `start`.

    The server pads rows and adds a token after the choice, and does not say where the choice ends: its text does.
    The first differing token may begin before the remainder ("(A" against "(B"), never after it.
    """
    wanted = remainder.translate(_SPACES).encode()
    written = b""
    for position in range(start, len(tokens)):
        byte = _BYTE.fullmatch(tokens[position])
        written += bytes.fromhex(byte[1]) if byte else tokens[position].translate(_SPACES).encode()
        if written.endswith(wanted):
            return position + 1
    raise RetryableError("malformed answer", f"the choice's end {remainder!r} is not among the tokens that came back")
