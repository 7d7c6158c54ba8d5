# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chains packed for the page: an index for the list, and blocks that are opened when needed.

Input:  chains
Output: PackedChains(index="H4sI...", blocks=("H4sI...", ...), shown=1752, total=1752)

Each string is base64 of gzip of JSON. Compressed blocks keep a page of 10,000 chains under 30 MB; a block of 100 opens
in a few milliseconds.
"""

from __future__ import annotations

import base64
import gzip
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_aligner_cai.files import content_hash, to_json
from nemo_aligner_cai.report.chains.build import KINDS
from nemo_aligner_cai.report.chains.chain import Chain

BLOCK = 100


@dataclass(frozen=True)
class PackedChains:
    """The chains of a page.

    Attributes:
        index: ids, titles, kinds, principles and tags of the chains that are shown, in columns.
        blocks: their parts.
        shown: the number of chains in the page.
        total: the number of chains in the run.
    """

    index: str
    blocks: tuple[str, ...]
    shown: int
    total: int


def pack(chains: Iterable[Chain], *, most: int, redact: bool = False) -> PackedChains:
    """Pack chains; of more than `most`, a random selection that depends on the ids alone.

    Args:
        chains: all chains, in order.
        most: the number that the page may hold.
        redact: replace the texts of prompts and models.
    """
    kept, total = _select(chains, most)
    if redact:
        kept = [chain.redacted() for chain in kept]
    blocks = [
        [{"parts": chain.parts} for chain in kept[start : start + BLOCK]] for start in range(0, len(kept), BLOCK)
    ]
    return PackedChains(_packed(_index(kept)), tuple(map(_packed, blocks)), len(kept), total)


def _select(chains: Iterable[Chain], most: int) -> tuple[list[Chain], int]:
    """The chains with the smallest hashes of kind and id, in their order, and the number of all."""
    heap: list[tuple[int, int, Chain]] = []
    total = 0
    for total, chain in enumerate(chains, start=1):
        # The heap's first entry has the largest hash: it is the next to go.
        entry = (-int(content_hash([chain.kind, chain.id]), 16), -total, chain)
        if len(heap) < most:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    return [chain for _, _, chain in sorted(heap, key=lambda entry: -entry[1])], total


def _index(chains: Sequence[Chain]) -> dict[str, Any]:
    kinds = list(KINDS)
    principles = list(dict.fromkeys(name for chain in chains for name in chain.principles))
    tags = list(dict.fromkeys(tag for chain in chains for tag in chain.tags))
    principle_numbers, tag_numbers = _numbers(principles), _numbers(tags)
    return {
        "block": BLOCK,
        "kinds": [{"id": kind, "label": KINDS[kind]} for kind in kinds],
        "principles": principles,
        "tags": tags,
        "ids": [chain.id for chain in chains],
        "titles": [chain.title for chain in chains],
        "kind": [kinds.index(chain.kind) for chain in chains],
        "principle": [[principle_numbers[name] for name in chain.principles] for chain in chains],
        "tag": [[tag_numbers[tag] for tag in chain.tags] for chain in chains],
    }


def _numbers(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _packed(content: object) -> str:
    # mtime=0: equal chains give equal bytes.
    return base64.b64encode(gzip.compress(to_json(content), compresslevel=6, mtime=0)).decode("ascii")
