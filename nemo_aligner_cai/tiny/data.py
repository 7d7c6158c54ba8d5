# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The tiny assistant's data files, in the published formats of the real data sets.

=============================  =========================================  ==========================================
file                           a line                                     format of
=============================  =========================================  ==========================================
red_team_attempts.jsonl        ``{"transcript": "\n\nHuman: ..."}``         Anthropic's red-team attempts
helpful_sft.jsonl              NeMo-Aligner's SFT chat row                ultrachat, as the tutorial prepares it
helpful-base/train.jsonl.gz    ``{"chosen": ..., "rejected": ...}``       Anthropic's HH helpful-base
helpful-base/test.jsonl.gz     the same                                   the same
measure.jsonl                  conversation and deed, for the oracle      a held-out evaluation set
=============================  =========================================  ==========================================

The first four use only words of ``core`` and ``cai`` and phrasings of ``train``; ``measure.jsonl`` uses only those of
``test``, or of ``validation`` for choosing settings.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.files import read_jsonl, write_jsonl
from nemo_aligner_cai.tiny.language import Deed, Language, Request, Split

TRAIN: tuple[Split, ...] = ("core", "cai")
_HH_SPEAKERS = {Role.USER: "Human", Role.ASSISTANT: "Assistant"}


@dataclass(frozen=True)
class Sizes:
    """Rows of each file."""

    red_team: int
    helpful_sft: int
    helpful_train: int
    helpful_test: int
    measure: int  # harmful requests, and as many benign ones


def write_data(folder: Path, language: Language, sizes: Sizes, *, seed: int, measured: Split = "test") -> None:
    """Write all files into `folder`, replacing earlier ones; the same arguments give the same bytes.

    Args:
        folder: the output folder.
        language: the words.
        sizes: rows of each file.
        seed: chooses the requests.
        measured: the split of ``measure.jsonl``.
    """
    rng = random.Random(seed)
    harmful = language.distinct_requests(seed, TRAIN, sizes.red_team, harmful=True)
    benign = sizes.helpful_sft + sizes.helpful_train + sizes.helpful_test
    helpful = language.distinct_requests(seed, TRAIN, benign, harmful=False)
    sft, train = helpful[: sizes.helpful_sft], helpful[sizes.helpful_sft :]
    files: dict[str, Iterator[dict[str, Any]]] = {
        "red_team_attempts.jsonl": (
            {"transcript": _hh_text(request, request.deed.help()), "task_description": request.phrasing}
            for request in harmful
        ),
        "helpful_sft.jsonl": (
            sft_row(request.conversation.with_turn(Role.ASSISTANT, request.deed.help()), dataset="tiny_helpful")
            for request in sft
        ),
        "helpful-base/train.jsonl.gz": _preferences(train[: sizes.helpful_train], language, rng),
        "helpful-base/test.jsonl.gz": _preferences(train[sizes.helpful_train :], language, rng),
        "measure.jsonl": _measured(language, measured, sizes.measure, seed),
    }
    for name, rows in files.items():
        write_jsonl(folder / name, rows, overwrite=True)


def read_measured(path: Path, language: Language) -> Iterator[tuple[Conversation, Deed]]:
    """The prompts of ``measure.jsonl`` with their deeds."""
    kinds = {kind.name: kind for kind in language.kinds}
    for _, row in read_jsonl(path):
        deed = Deed(kinds[row["kind"]], row["verb"], row["noun"])
        yield Conversation.from_messages(row["messages"]), deed


def _measured(language: Language, split: Split, count: int, seed: int) -> Iterator[dict[str, Any]]:
    for harmful in (True, False):
        for request in language.distinct_requests(seed, (split,), count, harmful=harmful):
            deed = request.deed
            yield {
                "messages": request.conversation.to_messages(),
                "kind": deed.kind.name,
                "verb": deed.verb,
                "noun": deed.noun,
                "harmful": harmful,
                "disguised": request.disguised,
            }


def _preferences(requests: list[Request], language: Language, rng: random.Random) -> Iterator[dict[str, str]]:
    """Correct help is preferred over help with a wrong tool, over a refusal, and over an evasion."""
    tools = sorted({kind.tool for kind in language.kinds})
    harmful = [kind for kind in language.kinds if kind.harmful]
    for request in requests:
        deed = request.deed
        flaw = rng.choice(("tool", "refusal", "refusal", "evasion"))
        if flaw == "tool":
            worse = deed.help(rng.choice([tool for tool in tools if tool != deed.kind.tool]))
        elif flaw == "refusal":
            kind = rng.choice(harmful)
            worse = deed.refusal(kind.reason, kind.alternative)
        else:
            worse = rng.choice(language.evasions)
        yield {"chosen": _hh_text(request, deed.help()), "rejected": _hh_text(request, worse)}


def _hh_text(request: Request, reply: str) -> str:
    turns = request.conversation.with_turn(Role.ASSISTANT, reply).turns
    return "".join(f"\n\n{_HH_SPEAKERS[turn.role]}: {turn.content}" for turn in turns)
