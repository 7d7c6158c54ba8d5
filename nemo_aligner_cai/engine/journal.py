# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The append-only record of all finished calls, from which runs resume and reuse completions.

A line is written as soon as its call has finished, so a killed process loses only the calls in flight; an incomplete
last line is removed when the journal is opened again. The calls of a batch are adjacent, and an incomplete batch is
dropped as a whole, since its samples depend on each other (see `models.base.BatchClient`).

A run writes one journal and may read the calls of others (`--journal-from`): those of the other shards, or of a run
with other settings. `journal_entries` describes the lines.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemo_aligner_cai.engine.journal_entries import Call, line_of, now
from nemo_aligner_cai.engine.journal_index import JournalIndex, Scan
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import PathLike, content_hash, require_file
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.models.base import CallFailed, Completion
from nemo_aligner_cai.models.served import FINGERPRINT

_FSYNC_SECONDS = 1.0
"""Seconds of calls that a power failure can lose."""
_START = b'{"kind":"'


class JournalInUse(UsageError):
    """Another process writes the journal."""


class Journal:
    """Open journals, created by `open` or `open_to_read`: at most one that is written, and any number that are read.

    `had_calls` is True if they contained calls when they were opened.
    """

    def __init__(self, sources: Sequence[PathLike], own: tuple[Path, int] | None = None, *, truncate: bool = False):
        """Index the journals; `own` is the path and the handle of the one to write, which `truncate` empties."""
        self._own = own
        self._index = JournalIndex()
        self._prefixes: set[str] = set()
        self._served_models: dict[str, tuple[Path, Mapping[str, str]]] = {}
        self.had_calls = False
        self._synced_at = time.monotonic()
        self._sync: asyncio.Task[None] | None = None
        try:
            for source in sources:
                self._read_source(require_file(source))
            if own is not None:
                self._prepare(*own, truncate=truncate)
        except BaseException:
            self._close_files()
            raise

    @classmethod
    def open(
        cls, path: PathLike, *, resume: bool = False, overwrite: bool = False, sources: Sequence[PathLike] = ()
    ) -> "Journal":
        """Open a journal for appending, and remove an incomplete end.

        Args:
            path: the file. Its folder is created.
            resume: keep existing entries.
            overwrite: delete existing entries.
            sources: other journals whose calls are reused; of equal calls, this journal's is used.

        Raises:
            JournalInUse: another process writes it.
            UsageError: the journal exists and neither flag is given, a file is not a journal, or a source is missing.
        """
        path = Path(path)
        check_output(path, overwrite=True)
        if has_content(path) and not (resume or overwrite):
            raise UsageError(f"{path}: a journal of an earlier run; give --resume to continue or --overwrite")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
        return cls(sources, (path, handle), truncate=overwrite and not resume)

    @classmethod
    def open_to_read(cls, *paths: PathLike) -> "Journal":
        """Open journals for reading: appended entries are discarded.

        Raises:
            UsageError: a file cannot be read, or is not a journal.
        """
        return cls(paths)

    def lookup(self, key: str, *, room: int = 0) -> Completion | None:
        """Return the completion stored under `key` before this run, if any, unless a smaller room has cut it."""
        return self._index.completion(key, room)

    def failure(self, key: str) -> CallFailed | None:
        """Return the failure recorded under `key` before this run started, if any."""
        return self._index.failure(key)

    def append(self, calls: Sequence[tuple[str, Call, Completion]], *, batch: str | None = None) -> None:
        """Write finished calls with their keys in one piece; `batch` is the name of the batch that they form."""
        lines: list[bytes] = []
        prefixes: set[str] = set()
        for position, (key, call, completion) in enumerate(calls):
            request = call.request
            prefix = request.prefix
            if prefix is not None and prefix not in self._prefixes and prefix not in prefixes:
                prefixes.add(prefix)
                # Readers of batches ignore prefixes, so a prefix may be anywhere before its first use.
                messages = request.messages[: request.shared]
                lines.append(line_of({"kind": "prefix", "id": prefix, "messages": messages}))
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
                    "prefix": prefix,
                    "messages": request.messages[request.shared :],
                    "sampling": request.sampling.to_dict(),
                    "choices": request.choices,
                    "schema": request.schema,
                    "room": request.room,
                },
                "text": completion.text,
                "finish_reason": completion.finish_reason,
                "usage": [usage.prompt_tokens, usage.completion_tokens] if usage else None,
                "choice_logprobs": completion.choice_logprobs,
                "raw": completion.raw,
                "time": now(),
            }
            lines.append(line_of(entry))
        self._write(b"".join(lines))
        self._prefixes |= prefixes

    def served_model(self, identity: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the recorded model of the server behind a client identity, or None."""
        found = self._served_models.get(content_hash(identity))
        return found[1] if found else None

    def append_served_model(self, identity: Mapping[str, Any], served: Mapping[str, str]) -> None:
        """Record the model that a server reports now, on which it depends which calls count (`JournalIndex`).

        If only other journals have a record, and of another model, nothing is recorded: this one has no replies yet,
        and with another first model it could never be read together with them.
        """
        if self._own is None:
            return
        path, client = self._own[0], content_hash(identity)
        recorded_in, recorded = self._served_models.get(client, (path, served))
        if recorded_in == path or recorded == served:
            self._write(line_of({"kind": "served", "model": identity, "served": served, "time": now()}))
            self._served_models[client] = path, recorded

    def adopt_served_model(self, identity: Mapping[str, Any]) -> None:
        """Record the model of the other journals as this one's, if it has none: its replies are added to theirs."""
        recorded_in, recorded = self._served_models.get(content_hash(identity), (None, None))
        if recorded is not None and self._own is not None and recorded_in != self._own[0]:
            self.append_served_model(identity, recorded)

    def append_failure(self, key: str, call: Call, failure: CallFailed) -> None:
        """Record a failed call. The next run makes it again."""
        entry = {"kind": "failure", "key": key, "step": call.step, "record": call.record, "sample": call.sample}
        self._write(line_of(entry | {"reason": failure.reason, "detail": str(failure), "time": now()}))

    async def close(self) -> None:
        """Sync and close the files; raises CaiError if written calls may not be on the disk."""
        try:
            if self._sync is not None:
                await self._sync
            if self._own is not None:
                _fsync(*self._own)
        finally:
            self._close_files()

    def _close_files(self) -> None:
        self._index.close()
        if self._own is not None:
            os.close(self._own[1])

    def _write(self, content: bytes) -> None:
        if self._own is None:
            return
        path, handle = self._own
        view = memoryview(content)
        while view:
            try:
                view = view[os.write(handle, view) :]
            except OSError as error:
                self._remove_end(len(content) - len(view))
                raise _not_written(path, error) from error
        if time.monotonic() - self._synced_at >= _FSYNC_SECONDS and (self._sync is None or self._sync.done()):
            _require_same_file(path, handle)
            if self._sync is not None:
                # The system reports a failed write once: the next sync succeeds without the lost calls.
                self._sync.result()
            self._synced_at = time.monotonic()
            self._sync = asyncio.ensure_future(asyncio.to_thread(_fsync, path, handle))

    def _remove_end(self, size: int) -> None:
        """Remove a part of a line: calls that end before the run stops would be joined to it."""
        if self._own is not None:
            with suppress(OSError):
                os.ftruncate(self._own[1], os.fstat(self._own[1]).st_size - size)

    def _read_source(self, path: Path) -> None:
        with path.open("rb") as file:
            _require_start(path, file.fileno())
        self._keep(path, self._index.add(path))

    def _prepare(self, path: Path, handle: int, *, truncate: bool) -> None:
        """Lock and index the journal that is written, and remove an incomplete line or batch at its end."""
        _lock(path, handle)
        _require_start(path, handle)
        if truncate:
            os.ftruncate(handle, 0)
        scan = self._index.add(path)
        self._keep(path, scan)
        self._prefixes = scan.prefixes
        if scan.keep < os.fstat(handle).st_size:
            os.ftruncate(handle, scan.keep)

    def _keep(self, path: Path, scan: Scan) -> None:
        """Keep what the index does not; raises UsageError if the replies of two journals are of different models."""
        self.had_calls |= scan.had_calls
        for identity, served in scan.served.items():
            other, known = self._served_models.get(identity, (path, served))
            if FINGERPRINT in served and FINGERPRINT in known and served != known:
                raise UsageError(
                    f"{other} and {path}: the models that gave their replies differ under the same name, "
                    f"{', '.join(known.values())} and {', '.join(served.values())}; read one of them"
                )
            self._served_models[identity] = path, served


def has_content(path: Path) -> bool:
    """True if the file exists and is not empty."""
    return path.is_file() and path.stat().st_size > 0


def _fsync(path: Path, handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> CaiError:
    return CaiError(f"{path}: the journal cannot be written: {error.strerror or error}")


def _lock(path: Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalInUse(f"{path}: in use by another run") from None
    except OSError:
        # Some network file systems have no locks; two runs on one journal then only waste calls.
        pass


def _require_same_file(path: Path, handle: int) -> None:
    """Raises CaiError if the written file was removed or replaced: further entries would be lost."""
    try:
        if os.path.samestat(os.fstat(handle), path.stat()):
            return
    except OSError:
        pass
    raise CaiError(
        f"{path}: the journal was removed, moved or replaced during the run, which stops before more calls "
        "are lost; restore it and give --resume, or start again"
    )


def _require_start(path: Path, handle: int) -> None:
    """Raises UsageError if the file is not a journal."""
    start = os.pread(handle, len(_START), 0)
    if start != _START[: len(start)]:
        raise UsageError(f"{path}: not a journal of this program; choose another name")
