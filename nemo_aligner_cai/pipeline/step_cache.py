# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Steps of a run that remember what they were made of, so that a rerun repeats only what has to be repeated.

A step is done when its record, written last, names the same inputs as now and its outputs are there unchanged.
Everything a step makes lies in its own folder ``<run>/<step>/``; its record is ``<run>/<step>/step.json``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai import __version__
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import content_hash, read_json, sha256_file, write_json
from nemo_aligner_cai.pipeline.memory import PeakMemory

_RECORD = "step.json"
_STARTED = "started"
_INPUTS = re.compile(rb"[0-9a-f]{64}")
# A journal's entries are found by what they were made of, so one of an earlier configuration saves calls, never lies.
JOURNAL_SUFFIX = ".journal.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: of the step and of its folder.
        title: what it does, for the screen.
        reads: files that it reads; other steps' outputs or files from outside.
        makes: names of the files in its folder that later steps read.
        settings: what else determines its result, as JSON holds it.
        work: does it; called with the step's folder and returns facts for the record.
    """

    name: str
    title: str
    reads: tuple[Path, ...]
    makes: tuple[str, ...]
    settings: Mapping[str, Any]
    work: Callable[[Path], Mapping[str, Any]]


class StepCache:
    """Runs steps in a run folder, skipping what is done."""

    def __init__(self, folder: Path) -> None:
        """Take the run's folder.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be the run's folder: {error.strerror or error}") from error
        self.folder = folder
        self._models: dict[Path, str] = {}

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Keep other processes from running steps in the same folder while the block runs.

        Raises:
            UsageError: another one is at it.
        """
        path = self.folder / ".lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise UsageError(f"{path}: cannot be locked: {error.strerror or error}") from error
        with os.fdopen(lock):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{self.folder}: another run is at work in this folder; wait for it") from error
            yield

    def run(self, step: Step) -> Mapping[str, Any]:
        """Do the step unless it is done.

        Returns:
            The step's record: ``inputs`` (hash), ``outputs`` (name -> SHA-256), ``seconds``, ``peak_rss_mb`` and what
            the work returned as ``facts``.

        Raises:
            CaiError: the step failed, or did not make what it promised.
        """
        folder = self.folder / step.name
        reads = [self.identity(path) for path in step.reads]
        inputs = content_hash({"version": __version__, "settings": step.settings, "reads": reads}, length=64)
        models = [folder / name for name in step.makes if name.endswith(".nemo")]
        self._models |= {path: content_hash([inputs, path.name], length=64) for path in models}
        record = self._record(folder, step, inputs)
        if record is not None:
            _log.info("%s: done before, %s s", step.title, record["seconds"])
            return record
        _log.info("%s", step.title)
        self._begin(folder, inputs)
        started = time.monotonic()
        with PeakMemory() as memory:
            facts = step.work(folder)
        missing = [name for name in step.makes if not (folder / name).is_file()]
        if missing:
            raise CaiError(f"step {step.name}: did not make {', '.join(missing)} in {folder}")
        record = {
            "step": step.name,
            "inputs": inputs,
            "outputs": {name: sha256_file(folder / name) for name in step.makes},
            "seconds": round(time.monotonic() - started, 1),
            "peak_rss_mb": round(memory.megabytes, 1),
            "facts": dict(facts),
        }
        write_json(folder / _RECORD, record, overwrite=True)
        return record

    def identity(self, path: Path) -> str:
        """What a file is, as a hash: of its bytes or, for a model that a step of this run makes, of what it came from.

        A model's file holds the time at which it was packed.  By its bytes, a step repeated after an interruption
        would give another model, and everything after it would be drawn anew.
        """
        return self._models.get(path) or sha256_file(path)

    def forget(self, names: Sequence[str]) -> None:
        """Remove steps' folders, journals too, so that these steps are done again.

        Raises:
            UsageError: there is something in one of the folders that no step has put there; nothing is removed then.
        """
        folders = [self.folder / name for name in names]
        for folder in folders:
            _require_own(folder)
        for folder in folders:
            _empty(folder, but_journals=False)

    def _begin(self, folder: Path, inputs: str) -> None:
        """Make the folder ready: what an interrupted attempt with the same inputs left is kept, all else goes.

        Raises:
            UsageError: there is something in the folder that no step has put there.
        """
        _require_own(folder)
        started = folder / _STARTED
        if (folder / _RECORD).is_file():
            _log.info("its inputs, settings or outputs have changed since it was done: doing it again")
        if not started.is_file() or started.read_text(encoding="utf-8") != inputs:
            _empty(folder, but_journals=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
        started.write_text(inputs, encoding="utf-8")

    def _record(self, folder: Path, step: Step, inputs: str) -> dict[str, Any] | None:
        try:
            record = read_json(folder / _RECORD)
            same = record["inputs"] == inputs and set(record["outputs"]) == set(step.makes)
        except (CaiError, KeyError, TypeError):
            return None  # missing, torn or not a record
        unchanged = same and all(
            (folder / name).is_file() and sha256_file(folder / name) == digest
            for name, digest in record["outputs"].items()
        )
        return record if unchanged else None


def _require_own(folder: Path) -> None:
    """Raise UsageError for a step's folder with something in it and no sign that a step has begun there."""
    empty = not any(folder.iterdir()) if folder.is_dir() else not os.path.lexists(folder)
    started = folder / _STARTED
    if not empty and not (started.is_file() and _INPUTS.fullmatch(started.read_bytes())):
        raise UsageError(f"{folder}: holds files that are not this run's; give another --output")


def _empty(folder: Path, *, but_journals: bool) -> None:
    # A step's folder may be a link to another disk, which stays.
    for path in folder.glob("*"):
        if but_journals and path.name.endswith(JOURNAL_SUFFIX):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
