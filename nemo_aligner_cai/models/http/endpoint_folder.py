# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A folder with one file for each healthy server, which is read again while a run is in progress.

Input:  endpoints/4711.0 ("http://node7:8000/v1"), endpoints/4711.1, ...; the jobs of the servers write and remove them
Output: servers that join and leave an `EndpointPool`
"""

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.models.http.endpoint_pool import EndpointPool

READ_INTERVAL = 2.0
"""Seconds between two readings."""
_TEMPORARY = ".tmp"
"""End of the name of a file that is being written."""
_MAX_BYTES = 4096
_log = logging.getLogger(__name__)
_Signature = tuple[int, int, int]


class EndpointFolder:
    """Keeps a pool in agreement with the files of a folder.

    Subfolders, hidden files, empty files and names that end in ``.tmp`` are ignored. A file is read again only if it
    has changed, since network file systems are slow.
    """

    def __init__(self, path: Path, pool: EndpointPool, parse: Callable[[str], str]) -> None:
        """Fill the pool with the servers that are there now.

        Args:
            path: the folder.
            pool: servers join and leave it.
            parse: converts a file's text to an address; raises UsageError if it is invalid.

        Raises:
            UsageError: the folder cannot be read, or a file has no valid address.
        """
        self._path, self._pool, self._parse = path, pool, parse
        self._files: dict[str, tuple[_Signature, str | None]] = {}
        self._addresses = set[str]()
        self._error, self._warned = "", False
        self._task: asyncio.Task[None] | None = None
        try:
            self._update_pool(self._read(is_start=True))
        except OSError as error:
            raise NotHere(
                f"{path}: the folder of endpoints cannot be read ({error.strerror}); create it, and let each server "
                "write a file with its URL into it",
                path,
            ) from None

    def watch(self) -> None:
        """Start to follow changes. Later calls do nothing, or raise the error that ended the first one."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._follow())
        elif self._task.done():
            self._task.result()

    def close(self) -> None:
        """Stop following changes."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                # In a thread, because a network file system may take seconds.
                addresses = await asyncio.to_thread(self._read)
            except OSError as error:
                # The servers may be healthy although the folder cannot be read.
                if self._error != str(error):
                    self._error = str(error)
                    _log.warning("the folder of endpoints cannot be read (%s); its last state is used", error)
            else:
                self._update_pool(addresses)
            await asyncio.sleep(READ_INTERVAL)

    def _update_pool(self, addresses: set[str]) -> None:
        # Compared with the last reading, not with the pool: a server that the pool has excluded stays out.
        for address in sorted(addresses - self._addresses):
            self._pool.add(address)
        for address in self._addresses - addresses:
            self._pool.remove(address)
        self._addresses, self._error = addresses, ""
        if self._pool.is_capped and not self._warned:
            self._warned = True
            _log.warning(
                "%d servers accept more requests than the limit on open files (ulimit -n) allows: %d at a time",
                len(self._pool),
                self._pool.concurrency,
            )

    def _read(self, *, is_start: bool = False) -> set[str]:
        """Return the addresses in the files."""
        files: dict[str, tuple[_Signature, str | None]] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith(_TEMPORARY):
                    continue
                try:
                    status = entry.stat()
                    if not stat.S_ISREG(status.st_mode):
                        continue
                    signature = (status.st_mtime_ns, status.st_size, status.st_ino)
                    known = self._files.get(entry.name)
                    if known is None or known[0] != signature:
                        known = signature, self._address(entry.path, is_start)
                    files[entry.name] = known
                except FileNotFoundError:
                    # Removed since the folder was listed; raises the error of the folder if that is gone.
                    os.stat(self._path)
        self._files = files
        return {address for _, address in files.values() if address is not None}

    def _address(self, path: str, is_start: bool) -> str | None:
        """Return the address in a file, or None; an invalid one is an error only before the first request."""
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", "replace").strip()
        if not text:
            return None
        try:
            return self._parse(text)
        except UsageError as error:
            if is_start:
                raise UsageError(f"{path}: {error}") from None
            _log.warning("%s: %s; the file is ignored until it changes", path, error)
            return None
