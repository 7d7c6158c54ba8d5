# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of choices from NeMo's ``/generate``.

With ``compute_logprob``, NeMo's server returns the log-probability of every token of a sentence, including the
prompt's: ``logprob[j - 1]`` belongs to ``token_ids[j]``. So each choice is appended to the prompt, and its tokens are
looked up. ``all_probs`` would return the whole vocabulary for each token instead.

    prompt + "(A)" -> tokens [..., "▁(", "A", ")", <one generated token, padding>]
    prompt + "(B)" -> tokens [..., "▁(", "B", ")", ...]
                                         ^ first difference: log-probabilities are summed from here to the choice's end

Ratios between choices are exact, their sum is not: up to the length of the shortest sentence in a batch, NeMo 2.2.1
also gives probability to the padding of the vocabulary (a third of the mass on a small model), after it not. At one
position this is the same for all choices.
"""

import math
import re
from collections.abc import Sequence

from nemo_aligner_cai.models.http.retry import RetryableError
from nemo_aligner_cai.models.scoring.choice_scores import MAX_TOTAL, MIN_LOGPROB, ROUNDING, common_prefix

_SPACES = str.maketrans("", "", " \t\n▁ĠĊ")
"""White space, including its representations in tokens."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""SentencePiece's byte fallback."""


def score_choices(
    choices: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[str]],
    logprobs: Sequence[Sequence[float]],
) -> dict[str, float] | None:
    """Return the log-probability of each choice, without the tokens that all choices share.

    Args:
        choices: n texts; none is a prefix of another.
        token_ids: n rows of ids: prompt, choice, padding.
        tokens: the same rows as strings.
        logprobs: n rows; entry j - 1 is the natural log-probability of token j.

    Returns:
        The scores, or None if one is missing or they cannot be a model's.

    Raises:
        RetryableError: the rows do not have the same prompt followed by these choices.
    """
    start = _first_difference(token_ids)
    shared = len(common_prefix(tuple(choices)))
    scores: dict[str, float] = {}
    for row, choice in enumerate(choices):
        end = _end(choice[shared:], tokens[row], start)
        values = logprobs[row][start - 1 : end - 1]
        if len(values) < end - start or not all(-math.inf < value <= ROUNDING for value in values):
            return None
        scores[choice] = sum(values)
    # The first differing tokens are alternatives at one position.
    alternatives = {ids[start]: values[start - 1] for ids, values in zip(token_ids, logprobs, strict=True)}
    is_certain = max(scores.values()) >= 0.0 and min(scores.values()) < MIN_LOGPROB
    return None if is_certain or sum(map(math.exp, alternatives.values())) > MAX_TOTAL else scores


def _first_difference(rows: Sequence[Sequence[int]]) -> int:
    for position, column in enumerate(zip(*rows, strict=False)):
        if len(set(column)) > 1:
            if position == 0:
                break
            return position
    raise RetryableError("malformed answer", "the choices have the same tokens, or no common prompt")


def _end(remainder: str, tokens: Sequence[str], start: int) -> int:
    """Return the position after the token that completes `remainder`, searching from token `start`.

    The server pads rows and appends a token without marking the choice's end, so the text is compared. The first
    differing token may begin before the remainder ("(A" and "(B"), never after it.
    """
    expected = remainder.translate(_SPACES).encode()
    text = b""
    for position in range(start, len(tokens)):
        byte = _BYTE.fullmatch(tokens[position])
        text += bytes.fromhex(byte[1]) if byte else tokens[position].translate(_SPACES).encode()
        if text.endswith(expected):
            return position + 1
    raise RetryableError("malformed answer", f"the end of the choice, {remainder!r}, is not among the returned tokens")
