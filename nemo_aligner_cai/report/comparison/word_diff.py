# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Differences of two texts, word by word.

Input:  "Is it kind ?", "Is it lawful and kind ?"
Output: [("same", "Is it "), ("added", "lawful and "), ("same", "kind ?")]
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher
from typing import Literal

Change = tuple[Literal["same", "dropped", "added"], str]
_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")
_MOST_WORDS = 4000
"""Longer texts are shown as a whole, since the time grows with the product of their lengths."""


def word_diff(before: str, after: str) -> list[Change]:
    """Return the parts of both texts in order: `after` without those dropped, `before` without those added."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > _MOST_WORDS:
        return [("dropped", before), ("added", after)]
    changes: list[Change] = []
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            changes.append(("same", "".join(old[i1:i2])))
            continue
        if i2 > i1:
            changes.append(("dropped", "".join(old[i1:i2])))
        if j2 > j1:
            changes.append(("added", "".join(new[j1:j2])))
    return changes


def changed_share(before: str, after: str) -> float:
    """Return the share of words that the texts do not have in common, in [0, 1]; their order does not count."""
    old, new = before.split(), after.split()
    if not old and not new:
        return 0.0
    common = Counter(old) & Counter(new)
    return 1 - 2 * common.total() / (len(old) + len(new))
