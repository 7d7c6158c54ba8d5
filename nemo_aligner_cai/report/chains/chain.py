# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A chain in the form in which the page shows it.

Input:  a row of revisions.jsonl, comparisons.jsonl, *.left_out.jsonl, or the measured replies to one prompt
Output: Chain(id="9f86...", kind="revision", title="How do I ...", parts=(text_part("Answer", ...), ...), ...)

The page's script knows parts, not stages: everything that a stage means is said here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_aligner_cai.console.printable import with_symbols
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.files import Row

Part = dict[str, Any]
_TITLE = 140
"""Characters of a prompt in the list."""


@dataclass(frozen=True)
class Chain:
    """One chain.

    Attributes:
        id: of its prompt.
        kind: "revision", "comparison", "reply" or "dropped".
        title: the beginning of the prompt.
        principles: ids of its principles.
        tags: its results, to filter by.
        parts: what is shown, in order.
    """

    id: str
    kind: str
    title: str
    principles: tuple[str, ...]
    tags: tuple[str, ...]
    parts: tuple[Part, ...]

    def redacted(self) -> Chain:
        """The chain without any text of a prompt or a model."""
        parts = tuple(_redacted(part) for part in self.parts)
        return Chain(self.id, self.kind, "", self.principles, self.tags, parts)


def title_of(messages: Sequence[Row]) -> str:
    """The beginning of the last message, on one line."""
    whole = " ".join(str(messages[-1]["content"])[: 4 * _TITLE].split())
    return with_symbols(whole if len(whole) <= _TITLE else f"{whole[: _TITLE - 1]}…")


def text_part(label: str, text: str, *, badges: Sequence[str] = (), fold: bool = False, quiet: bool = False) -> Part:
    """A text with its heading.

    Args:
        label: the heading.
        text: shown as it is; control characters become symbols.
        badges: short facts next to the heading.
        fold: hide the text until the reader asks for it.
        quiet: a request of the constitution: less prominent, and kept when a report is redacted.
    """
    part: Part = {"type": "text", "label": label, "text": with_symbols(text, keep="\n\t")}
    if badges:
        part["badges"] = list(badges)
    return part | ({"fold": 1} if fold else {}) | ({"quiet": 1} if quiet else {})


def diff_part(label: str, before: int, after: int) -> Part:
    """The difference of two text parts of the chain, word by word; folded, since it shows both."""
    return {"type": "diff", "label": label, "before": before, "after": after, "fold": 1}


def table_part(label: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Part:
    """A small table."""
    return {
        "type": "table",
        "label": label,
        "head": list(head),
        "rows": [[with_symbols(cell) for cell in row] for row in rows],
    }


def verdicts_part(row: JudgedRow, names: Mapping[int, str]) -> Part:
    """The verdicts on a prompt's candidates; `names` are the candidates' for readers, by their index."""
    kept = set(row.kept())
    rows = [
        (
            " → ".join(names[number] for number in one.shown),
            "no verdict" if one.better is None else names[one.better],
            "" if one.probability is None else f"{100 * one.probability:.1f} %",
            one.principle or "whole constitution",
            "kept" if (one.better, one.worse) in kept else "",
        )
        for one in row.verdicts
    ]
    return table_part("Verdicts", ("shown", "prefers", "first is better", "principle", "pair"), rows)


def prompt_parts(messages: Sequence[Row]) -> list[Part]:
    """The turns of a prompt."""
    names = {"user": "User", "assistant": "Assistant", "system": "System"}
    return [
        text_part(names.get(str(turn["role"]), "Turn"), str(turn["content"]), badges=["prompt"]) for turn in messages
    ]


def _redacted(part: Part) -> Part:
    if part["type"] == "text" and not part.get("quiet"):
        shown = {key: value for key, value in part.items() if key not in ("text", "fold")}
        return shown | {"text": f"[redacted: {len(part['text']):,} characters]"}
    if part["type"] == "diff":
        return {"type": "text", "label": part["label"], "text": "[redacted]"}
    return part
