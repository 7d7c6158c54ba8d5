# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The append-only record of all finished calls, from which runs resume and reuse completions.

One JSON object per line:

    {"kind": "prefix", "id": "3f...", "messages": [...]}                       few-shot examples, written once
    {"kind": "call", "key": "9a...", "step": "critique", "record": "07...", "sample": 0, "batch": null,
     "model": {...}, "request": {"prefix": "3f...", "messages": [...], "sampling": {...}, "choices": [],
     "schema": null}, "text": "...", "finish_reason": "stop", "usage": [31, 12], "choice_logprobs": null, "raw": ...,
     "time": "..."}
    {"kind": "failure", "step": ..., "record": ..., "reason": ...}             for information; never reused
    {"kind": "served", "model": {...}, "served": {"fingerprint": "sha256:5f..."}}   the model of its server

The key is a hash of everything that determines the completion. A line is written as soon as its call has finished, so
a killed process loses only the calls in flight; an incomplete last line is removed when the journal is opened again.
The calls of a batch are adjacent, and an incomplete batch is dropped as a whole, since its samples depend on each
other (see `models.base.BatchClient`).
"""

import asyncio
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import orjson

from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import PathLike, content_hash, require_file
from nemo_aligner_cai.files.compact_sets import CompactMap
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.models.base import CHOICE_LEAD, CallFailed, Completion, Request, Usage

_FSYNC_SECONDS = 1.0
"""Seconds of calls that a power failure can lose."""
_START = b'{"kind":"'
_KEY = re.compile("[0-9a-f]{32}")
_logger = logging.getLogger(__name__)


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
        """A 128-bit hexadecimal hash of everything that determines the completion."""
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


class Journal:
    """An open journal, created by `open` or `open_to_read`.

    `had_calls` is True if it contained calls when it was opened.
    """

    def __init__(self, path: Path, handle: int, *, read_only: bool = False, truncate: bool = False) -> None:
        self.path = path
        self._handle = handle
        self._read_only = read_only
        self._offsets = CompactMap()
        self._prefixes: dict[str, int] = {}
        self._served_models: dict[str, Mapping[str, str]] = {}
        self.had_calls = False
        self._synced_at = time.monotonic()
        self._sync: asyncio.Task[None] | None = None
        try:
            if not read_only:
                self._lock()
            self._require_start()
            if truncate:
                os.ftruncate(handle, 0)
            self._load()
        except BaseException:
            os.close(handle)
            raise

    @classmethod
    def open(cls, path: PathLike, *, resume: bool = False, overwrite: bool = False) -> "Journal":
        """Open a journal for appending, and remove an incomplete end.

        Args:
            path: the file. Its folder is created.
            resume: keep existing entries.
            overwrite: delete existing entries.

        Raises:
            UsageError: the journal exists and neither flag is given, it is in use, or the file is not a journal.
        """
        path = Path(path)
        check_output(path, overwrite=True)
        if has_calls(path) and not (resume or overwrite):
            raise UsageError(f"{path}: a journal of an earlier run; give --resume to continue or --overwrite")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
        return cls(path, handle, truncate=overwrite and not resume)

    @classmethod
    def open_to_read(cls, path: PathLike) -> "Journal":
        """Open a journal for reading: appended entries are discarded.

        Raises:
            UsageError: the file cannot be read, or is not a journal.
        """
        path = require_file(path)
        return cls(path, os.open(path, os.O_RDONLY), read_only=True)

    def lookup(self, key: str) -> Completion | None:
        """Return the completion stored under `key` before this run started, if any."""
        offset = self._offsets.get(int(key[:16], 16))
        if offset is None:
            return None
        entry = self._read(offset)
        if entry["key"] != key:
            return None
        usage = Usage(*entry["usage"]) if entry["usage"] else None
        return Completion(entry["text"], entry["finish_reason"], usage, entry["choice_logprobs"], entry["raw"])

    def append(self, calls: Sequence[tuple[str, Call, Completion]], *, batch: str | None = None) -> None:
        """Write finished calls with their keys in one piece; `batch` is the name of the batch that they form."""
        lines: list[bytes] = []
        for position, (key, call, completion) in enumerate(calls):
            request = call.request
            self._write_prefix_once(request, lines)
            usage = completion.usage
            entry = {
                "kind": "call",
                "key": key,
                "step": call.step,
                "record": call.record,
                "sample": call.sample,
                "batch": {"id": batch, "size": len(calls), "place": position} if batch else None,
                "model": call.model,
                "request": {
                    "prefix": request.prefix,
                    "messages": request.messages[request.shared :],
                    "sampling": request.sampling.to_dict(),
                    "choices": request.choices,
                    "schema": request.schema,
                },
                "text": completion.text,
                "finish_reason": completion.finish_reason,
                "usage": [usage.prompt_tokens, usage.completion_tokens] if usage else None,
                "choice_logprobs": completion.choice_logprobs,
                "raw": completion.raw,
                "time": _now(),
            }
            lines.append(_line(entry))
        self._write(b"".join(lines))

    def served_model(self, identity: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the recorded model of the server behind a client identity, or None."""
        return self._served_models.get(content_hash(identity))

    def append_served_model(self, identity: Mapping[str, Any], served: Mapping[str, str]) -> None:
        """Record the model that a server reports."""
        self._served_models[content_hash(identity)] = served
        self._write(_line({"kind": "served", "model": identity, "served": served, "time": _now()}))

    def append_failure(self, call: Call, failure: CallFailed) -> None:
        """Record a failed call. The next run makes it again."""
        entry = {"kind": "failure", "step": call.step, "record": call.record, "sample": call.sample}
        self._write(_line(entry | {"reason": failure.reason, "detail": str(failure), "time": _now()}))

    async def close(self) -> None:
        """Sync and close the file."""
        if self._sync is not None:
            await self._sync
        if not self._read_only:
            os.fsync(self._handle)
        os.close(self._handle)

    def _write_prefix_once(self, request: Request, lines: list[bytes]) -> None:
        if request.prefix is not None and request.prefix not in self._prefixes:
            self._prefixes[request.prefix] = 0
            # Readers of batches ignore prefixes, so a prefix may be anywhere before its first use.
            entry = {"kind": "prefix", "id": request.prefix, "messages": request.messages[: request.shared]}
            lines.append(_line(entry))

    def _write(self, content: bytes) -> None:
        if self._read_only:
            return
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(self._handle, view) :]
            except OSError as error:
                raise CaiError(f"{self.path}: the journal cannot be written: {error.strerror or error}") from error
        if time.monotonic() - self._synced_at >= _FSYNC_SECONDS and (self._sync is None or self._sync.done()):
            self._require_same_file()
            self._synced_at = time.monotonic()
            self._sync = asyncio.ensure_future(asyncio.to_thread(os.fsync, self._handle))

    def _read(self, offset: int) -> dict[str, Any]:
        size = 1 << 14
        while True:
            line, end, _ = os.pread(self._handle, size, offset).partition(b"\n")
            if end:
                return orjson.loads(line)
            size *= 4

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{self.path}: in use by another run") from None
        except OSError:
            # Some network file systems have no locks; two runs on one journal then only waste calls.
            pass

    def _require_start(self) -> None:
        """Raises UsageError if the file is not a journal."""
        start = os.pread(self._handle, len(_START), 0)
        if start != _START[: len(start)]:
            raise UsageError(f"{self.path}: not a journal of this program; choose another name")

    def _require_same_file(self) -> None:
        """Raises CaiError if the file was removed or replaced: further entries would be lost."""
        own = os.fstat(self._handle)
        try:
            if os.path.samestat(own, self.path.stat()):
                return
        except OSError:
            pass
        raise CaiError(
            f"{self.path}: the journal was removed, moved or replaced during the run, which stops before more calls "
            "are lost; restore it and give --resume, or start again"
        )

    def _load(self) -> None:
        """Index all complete lines, and remove an incomplete line or batch at the end."""
        batch: list[tuple[int, int]] = []
        keep = damaged = 0
        for offset, end, entry in read_entries(self.path):
            kind = entry.get("kind") if entry else None
            if entry is None:
                damaged += 1
            elif kind == "prefix":
                self._prefixes[entry["id"]] = offset
            elif kind == "call":
                self.had_calls = True
                batch = self._index(entry, offset, batch)
            elif kind == "served":
                self._served_models[content_hash(entry["model"])] = entry["served"]
            if not batch:
                keep = end
        if damaged:
            _logger.warning("%s: %d damaged lines; their calls are made again", self.path, damaged)
        if keep < os.fstat(self._handle).st_size and not self._read_only:
            os.ftruncate(self._handle, keep)
            self._prefixes = {name: offset for name, offset in self._prefixes.items() if offset < keep}

    def _index(self, entry: Mapping[str, Any], offset: int, batch: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Index a call; returns the (key, offset) pairs of its batch so far, or [] if the batch is complete."""
        call = (int(entry["key"][:16], 16), offset)
        if entry["batch"] is None:
            batch = [call]
        else:
            batch = [*batch, call] if entry["batch"]["place"] == len(batch) else [call]
            if len(batch) < entry["batch"]["size"]:
                return batch
        for key, start in batch:
            self._offsets[key] = start
        return []


def has_calls(path: Path) -> bool:
    """True if the file exists and is not empty."""
    return path.is_file() and path.stat().st_size > 0


def read_entries(path: PathLike) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yield (offset, offset of the next line, entry) for each complete line; `entry` is None for a damaged line.

    Entries of unknown kinds are not checked.
    """
    offset = 0
    with Path(path).open("rb") as lines:
        for line in lines:
            end = offset + len(line)
            if not line.endswith(b"\n"):
                return
            try:
                entry: Any = orjson.loads(line)
            except orjson.JSONDecodeError:
                entry = None
            yield offset, end, entry if _is_valid(entry) else None
            offset = end


def _is_valid(entry: Any) -> bool:
    """True if an entry has all fields that are read."""
    match entry:
        case {
            "kind": "call",
            "key": str(key),
            "step": str(),
            "record": str(),
            "batch": None | {"size": int(), "place": int()},
            "request": {"prefix": None | str(), "messages": list(), "choices": list()},
            "text": str(),
            "finish_reason": str(),
            "usage": None | [int(), int()],
            "choice_logprobs": scores,
            "raw": _,
        }:
            return _KEY.fullmatch(key) is not None and (
                scores is None or _are_scores(scores, entry["request"]["choices"])
            )
        case {"kind": "prefix", "id": str(), "messages": list()}:
            return True
        case {"kind": "failure", "step": str(), "record": str(), "reason": str()}:
            return True
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


def _line(entry: Mapping[str, Any]) -> bytes:
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
