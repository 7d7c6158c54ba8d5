# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The calls of one or several journals by key. Memory holds their places, 23 bytes a call; replies stay on disk.

Each file is read by itself: an incomplete last line or batch of one journal, which a killed process leaves behind,
costs nothing in the others.

A call counts if the next line about its client's server confirms the journal's first model, or if there is no next
line. A server that reports another fingerprint was replaced at some time since the last line that confirmed the first
one, and may answer until the next line that does: the calls between these two lines may be of either model. They are
not indexed, so that the same calls in other journals are found.
"""

import logging
import math
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nemo_aligner_cai.engine.journal_entries import largest_room, read_entries, read_served_models
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.files.compact_sets import CompactMap
from nemo_aligner_cai.models.base import CallFailed, Completion, Usage
from nemo_aligner_cai.models.served import FINGERPRINT

_logger = logging.getLogger(__name__)
_OFFSET_BITS = 44
"""Bits of an offset (16 TiB) in a place; the bits above number the file."""
_MOST_OPEN = 128
"""Open files, which is far below the usual limit of a process, 1,024."""


@dataclass
class Scan:
    """The result of indexing a journal.

    Attributes:
        keep: offset of the end of the last complete line that does not belong to an incomplete batch.
        prefixes: the ids of the few-shot examples before `keep`.
        served: hash of a client's identity -> the model that its server reported.
        had_calls: True if the journal has a call.
    """

    keep: int = 0
    prefixes: set[str] = field(default_factory=set[str])
    served: dict[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    had_calls: bool = False


@dataclass(frozen=True)
class _Uncertain:
    """A range of offsets in which the calls of a client, by the hash of its identity, may be of another model."""

    client: str
    start: int
    end: int


class JournalIndex:
    """Finds completions and failures by key. Of equal calls, the one added last counts (but see `_add_calls`)."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._completions, self._failures = CompactMap(), CompactMap()
        self._open: OrderedDict[int, int] = OrderedDict()

    def add(self, path: Path) -> Scan:
        """Index the complete lines and batches of a journal."""
        served, uncertain = _read_served_models(path)
        scan, damaged = Scan(served=served), 0
        file = len(self._paths) << _OFFSET_BITS
        self._paths.append(path)
        batch: list[tuple[str, int, float]] = []
        prefixes = set[str]()
        for offset, end, entry in read_entries(path):
            kind = entry.get("kind") if entry else None
            if kind not in ("call", "prefix"):
                # The calls of a batch are adjacent: the rest of this one is nowhere.
                batch = []
            if entry is None:
                damaged += 1
            elif kind == "prefix":
                prefixes.add(entry["id"])
            elif kind == "call":
                scan.had_calls = True
                position, size = (entry["batch"]["place"], entry["batch"]["size"]) if entry["batch"] else (0, 1)
                call = (entry["key"], file | offset, largest_room(entry))
                batch = [*batch, call] if position == len(batch) else [call]
                if len(batch) >= size:
                    if not _is_uncertain(entry, offset, uncertain):
                        self._add_calls(batch)
                    batch = []
            elif kind == "failure" and "key" in entry:
                self._failures[_short(entry["key"])] = file | offset
            if not batch:
                scan.keep = end
                scan.prefixes |= prefixes
                prefixes.clear()
        if damaged:
            _logger.warning("%s: %d damaged lines; their calls are made again", path, damaged)
        return scan

    def completion(self, key: str, room: int) -> Completion | None:
        """Return the completion stored under a key, if any, unless a smaller room than `room` has cut it."""
        entry = self._find(self._completions, key)
        if entry is None or largest_room(entry) < room:
            return None
        usage = Usage(*entry["usage"]) if entry["usage"] else None
        return Completion(entry["text"], entry["finish_reason"], usage, entry["choice_logprobs"], entry["raw"])

    def failure(self, key: str) -> CallFailed | None:
        """Return the failure recorded under a key, if any."""
        entry = self._find(self._failures, key)
        if entry is None:
            return None
        reason: str = entry["reason"]
        return CallFailed(reason, entry["detail"].removeprefix(reason).removeprefix(": "))

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _add_calls(self, calls: Sequence[tuple[str, int, float]]) -> None:
        """Add the (key, place, `largest_room`) of calls. None replaces a call that counts for a larger room."""
        for key, place, room in calls:
            if room < math.inf and (known := self._find(self._completions, key)) and largest_room(known) > room:
                continue
            self._completions[_short(key)] = place

    def _find(self, places: CompactMap, key: str) -> dict[str, Any] | None:
        place = places.get(_short(key))
        if place is None:
            return None
        entry = self._read(place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1))
        return entry if entry["key"] == key else None

    def _read(self, file: int, offset: int) -> dict[str, Any]:
        size = 1 << 14
        try:
            handle = self._handle(file)
            while True:
                content = os.pread(handle, size, offset)
                line, end, _ = content.partition(b"\n")
                if end:
                    return orjson.loads(line)
                if offset + len(content) >= os.fstat(handle).st_size:
                    raise CaiError(f"{self._paths[file]}: the journal was cut off during the run; start again")
                size *= 4
        except OSError as error:
            raise CaiError(f"{self._paths[file]}: cannot be read: {error.strerror or error}") from error

    def _handle(self, file: int) -> int:
        if file not in self._open:
            if len(self._open) == _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[file] = os.open(self._paths[file], os.O_RDONLY)
        self._open.move_to_end(file)
        return self._open[file]


def _read_served_models(path: Path) -> tuple[dict[str, Mapping[str, str]], list[_Uncertain]]:
    """Return the model of each client, by the hash of its identity, and the ranges in which it is uncertain."""
    models, confirmed, replaced = dict[str, Mapping[str, str]](), dict[str, int](), set[str]()
    uncertain: list[_Uncertain] = []
    for offset, identity, served in read_served_models(path):
        client = content_hash(identity)
        known = models.setdefault(client, served)
        if FINGERPRINT in served and FINGERPRINT in known and served != known:
            replaced.add(client)
            continue
        if client in replaced:
            replaced.remove(client)
            uncertain.append(_Uncertain(client, confirmed[client], offset))
        models[client], confirmed[client] = served, offset
    return models, uncertain + [_Uncertain(client, confirmed[client], sys.maxsize) for client in replaced]


def _is_uncertain(entry: Mapping[str, Any], offset: int, ranges: Sequence[_Uncertain]) -> bool:
    clients = {one.client for one in ranges if one.start < offset < one.end}
    return bool(clients) and content_hash(entry.get("model")) in clients


def _short(key: str) -> int:
    """Return the 64 bits by which a key is found; the entry has the whole key."""
    return int(key[:16], 16)
