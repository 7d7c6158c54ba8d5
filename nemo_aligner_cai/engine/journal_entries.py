# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The lines of a journal.

One JSON object per line:

    {"kind": "prefix", "id": "3f...", "messages": [...]}                       few-shot examples, written once
    {"kind": "call", "key": "9a...", "step": "critique", "record": "07...", "sample": 0, "batch": null,
     "model": {...}, "request": {"prefix": "3f...", "messages": [...], "sampling": {...}, "choices": [],
     "schema": null, "room": 0}, "text": "...", "finish_reason": "stop", "usage": [31, 12], "choice_logprobs": null,
     "raw": ..., "time": "..."}
    {"kind": "failure", "key": "9a...", "step": ..., "record": ..., "reason": ..., "detail": ...}
    {"kind": "served", "model": {...}, "served": {"fingerprint": "sha256:5f..."}}   the model of its server: at the
                                                  beginning of a run, each minute, and at its end; the calls before it
                                                  count only if it is still the same one (see `JournalIndex`)

The key is a hash of everything that determines the completion, except the room of a reasoning (see `Request`): a reply
that ended by itself is the same with any room, and one that was cut counts for its own room and smaller ones. A failed
call is made again by the next run; a run without a server (`--no-calls`) repeats the failure. Earlier versions wrote
failures without a key, and requests without their room, which was the default one.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import orjson

from nemo_aligner_cai.files import PathLike, content_hash
from nemo_aligner_cai.models.base import CHOICE_LEAD, ROOM, Request
from nemo_aligner_cai.models.thinking import strip_reasoning

_KEY = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Call:
    """One request of a step for a record. `sample` is its index among the step's requests for this record."""

    step: str
    record: str
    sample: int
    request: Request
    model: Mapping[str, Any]

    @property
    def key(self) -> str:
        """A 128-bit hexadecimal hash of everything that determines the completion, except the room."""
        request = self.request
        return content_hash(
            {
                "step": self.step,
                "model": self.model,
                "prefix": request.prefix,
                "messages": request.messages[request.shared :],
                "sampling": request.sampling.to_dict(),
                "choices": request.choices,
                "sample": self.sample,
            }
            # Only if set, so that other keys stay the same.
            | ({"schema": request.schema} if request.schema is not None else {})
            | ({"lead": request.lead} if request.choices and request.lead != CHOICE_LEAD else {}),
            length=32,
        )


def read_entries(path: PathLike) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yield (offset, offset of the next line, entry) for each complete line; `entry` is None for a damaged line.

    Entries of unknown kinds are not checked.
    """
    for offset, line in _lines(path):
        yield offset, offset + len(line), _entry_of(line)


def read_served_models(path: PathLike) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, str]]]:
    """Yield (offset, client identity, model) for each "served" line. Other lines are not parsed, to save time."""
    for offset, line in _lines(path):
        if b'"served"' in line:
            entry = _entry_of(line)
            if entry is not None and entry.get("kind") == "served":
                yield offset, entry["model"], entry["served"]


def largest_room(call: Mapping[str, Any]) -> float:
    """Return the largest room of a request for which a call's reply counts."""
    request, usage = call["request"], call["usage"]
    room: int = request.get("room", ROOM)
    # Without a room, the limit is in the key. Clients give the room to reasoning: a reply within its own limit, cut
    # after or without reasoning, would be the same with a larger one.
    used_none = usage is not None and usage[1] <= request["sampling"]["max_tokens"]
    if not room or call["finish_reason"] != "length" or (used_none and strip_reasoning(call["text"]) is not None):
        return math.inf
    return room


def _lines(path: PathLike) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the content of each complete line."""
    offset = 0
    with Path(path).open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)


def _entry_of(line: bytes) -> dict[str, Any] | None:
    try:
        entry: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if _is_valid(entry) else None


def _is_valid(entry: Any) -> bool:
    """True if an entry has all fields that are read."""
    match entry:
        case {
            "kind": "call",
            "key": str(key),
            "step": str(),
            "record": str(),
            "batch": None | {"size": int(), "place": int()},
            "request": {
                "prefix": None | str(),
                "messages": list(),
                "choices": list(),
                "sampling": {"max_tokens": int()},
            },
            "text": str(),
            "finish_reason": str(),
            "usage": None | [int(), int()],
            "choice_logprobs": scores,
            "raw": _,
        }:
            request = cast(dict[str, Any], entry["request"])
            return (
                _KEY.fullmatch(key) is not None
                and isinstance(request.get("room", ROOM), int)
                and (scores is None or _are_scores(scores, request["choices"]))
            )
        case {"kind": "prefix", "id": str(), "messages": list()}:
            return True
        case {"kind": "failure", "step": str(), "record": str(), "reason": str(), "detail": str(), "key": key}:
            return isinstance(key, str) and _KEY.fullmatch(key) is not None
        case {"kind": "failure", "step": str(), "record": str(), "reason": str()}:
            return "key" not in entry
        case {"kind": "served", "model": dict(), "served": dict()}:
            return all(isinstance(value, str) for value in cast(dict[str, Any], entry["served"]).values())
        case {"kind": "call" | "prefix" | "failure" | "served"}:
            return False
        case _:
            return isinstance(entry, dict)


def _are_scores(scores: Any, choices: object) -> bool:
    return (
        isinstance(scores, dict)
        and list(cast(dict[str, Any], scores)) == choices
        and all(type(score) in (int, float) for score in cast(dict[str, Any], scores).values())
    )


def line_of(entry: Mapping[str, Any]) -> bytes:
    """Encode an entry."""
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def now() -> str:
    """Return the time of an entry."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
