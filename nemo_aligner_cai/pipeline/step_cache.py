# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of a pipeline and skips those whose inputs have not changed.

A step is done if its record, which is written last, names the current inputs, and its outputs are unchanged. All
files of a step are in its folder ``<run>/<step>/``; its record is ``<run>/<step>/step.json``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai import __version__
from nemo_aligner_cai.engine.shards import JOURNAL_SUFFIX, SHARDS_SUFFIX
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import atomic_writer, content_hash, read_json, sha256_file, write_json
from nemo_aligner_cai.files.locks import file_lock
from nemo_aligner_cai.pipeline.layout import HF
from nemo_aligner_cai.pipeline.peak_memory import peak_memory
from nemo_aligner_cai.pipeline.records import STARTED, STEP_RECORD, Origin, current_steps, read_origin

_MARKER = re.compile(rb"[0-9a-f]{64}")
_NO_INPUTS = 64 * "0"
_ATTEMPTS = "attempts.json"
"""Time and memory of the attempts of a step that is not done."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Inputs:
    """Everything that determines a step's outputs, as a hash, and the parts of it for the record; see `Origin`."""

    hash: str
    settings_hash: str
    reads: Mapping[str, str]


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: of the step and of its folder.
        title: shown to the user.
        reads: input files and folders: outputs of other steps, or outside the run.
        makes: names of the output files and folders in the step's folder.
        settings: everything else that determines the result, as JSON.
        work: runs the step in the given folder; returns facts for the record.
        endpoints: returns the identities of the models of other servers that the step uses.
    """

    name: str
    title: str
    reads: tuple[Path, ...]
    makes: tuple[str, ...]
    settings: Mapping[str, Any]
    work: Callable[[Path], Mapping[str, Any]]
    endpoints: Callable[[], Mapping[str, str]] = dict[str, str]


class StepMissing(UsageError):
    """A step that another one reads from is not done.

    Attributes:
        step: its name.
    """

    def __init__(self, step: Step, folder: Path) -> None:
        super().__init__(f"{folder}: {step.name} is not done, or its inputs, settings or files have changed since")
        self.step = step.name


class StepCache:
    """Runs steps in a run folder and skips those that are done."""

    def __init__(
        self, folder: Path, on_done: Callable[[Path], object] | None = None, *, read_only: bool = False
    ) -> None:
        """Create the run's folder; raises UsageError if that fails.

        Args:
            folder: the run's folder.
            on_done: called with it after each step that was run, not after those that were done before.
            read_only: create nothing, for a dry run, which may be on a machine without the folder's file system.
        """
        try:
            if not read_only or folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be the run's folder: {error.strerror or error}") from error
        self.folder = folder
        self._on_done = on_done
        self._models: dict[Path, str] = {}
        self._outside: dict[Path, str] = {}

    @contextmanager
    def locked(self, *, shared: bool = False) -> Generator[None, None, None]:
        """Lock the run's folder; raises UsageError if another process holds the lock.

        Args:
            shared: for a process that runs one shard of a step; others may run other shards at the same time.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.folder / ".lock", wait=False, shared=shared))
            except BlockingIOError as error:
                raise UsageError(f"{self.folder}: another run is using this folder; wait for it to end") from error
            yield

    def run(self, step: Step) -> Mapping[str, Any]:
        """Run the step unless it is done.

        Returns:
            The step's record: ``inputs`` (hash), ``outputs`` (name -> SHA-256), ``seconds`` and ``peak_rss_mb`` of all
            attempts with these inputs, ``facts`` returned by the work, and the keys of `Origin`.

        Raises:
            CaiError: the step failed, or did not write an output file.
        """
        record = self.done_before(step)
        if record is not None:
            return record
        _log.info("%s", step.title)
        folder, inputs = self.folder / step.name, self._inputs(step)
        self._begin(folder, inputs.hash)
        with _measured(folder) as used:
            facts = step.work(folder)
            missing = [name for name in step.makes if not (folder / name).exists()]
            if missing:
                raise CaiError(f"step {step.name}: did not make {', '.join(missing)} in {folder}")
            outputs = {name: _digest(folder / name) for name in step.makes}
        record = {
            "step": step.name,
            "inputs": inputs.hash,
            "outputs": outputs,
            "seconds": used["seconds"],
            "peak_rss_mb": used["peak_rss_mb"],
            "facts": dict(facts),
            **self._origin(folder, inputs, outputs),
        }
        write_json(folder / STEP_RECORD, record, overwrite=True)
        (folder / _ATTEMPTS).unlink(missing_ok=True)
        if self._on_done:
            self._on_done(self.folder)
        return record

    def run_shard(self, step: Step) -> None:
        """Do the work of one shard of a step unless the step is done; its outputs are made by `run`, later."""
        if self._record(step) is not None:
            return
        folder, inputs = self.folder / step.name, self._inputs(step)
        # The first shard prepares the folder for all.
        with file_lock(self.folder / f".{step.name}.lock", wait=True):
            self._begin(folder, inputs.hash)
        step.work(folder)

    def done_before(self, step: Step) -> Mapping[str, Any] | None:
        """Log that a step is done and return its record, or return None if it is not done.

        A record of an earlier version gets the keys of `Origin`.
        """
        record = self._record(step)
        if record is not None:
            if record != self._stored(step):
                write_json(self.folder / step.name / STEP_RECORD, record, overwrite=True)
            _log.info("%s: done before, %s s", step.title, record["seconds"])
        return record

    def require(self, step: Step) -> Mapping[str, Any]:
        """Return the record of a step that is done; raises StepMissing if it is not."""
        record = self._record(step)
        if record is None:
            raise StepMissing(step, self.folder)
        return record

    def current(self, steps: Sequence[Step]) -> list[Mapping[str, Any]] | None:
        """Return the records of all steps, or None if one of them is not done with its current settings.

        Unlike `require`, it hashes no file: it compares the steps' records alone.
        """
        origins = {step.name: origin for step in steps if (origin := read_origin(self.folder / step.name))}
        if len(current_steps({step.name: settings_hash(step, self.folder) for step in steps}, origins)) < len(steps):
            return None
        return [read_json(self.folder / step.name / STEP_RECORD) for step in steps]

    def _inputs(self, step: Step) -> _Inputs:
        identities = [self.identity(path) for path in step.reads]
        known = {"version": __version__, "settings": step.settings, "reads": identities}
        endpoints = dict(step.endpoints())
        inputs = content_hash(known | ({"endpoints": endpoints} if endpoints else {}), length=64)
        models = [self.folder / step.name / name for name in step.makes if name.endswith(".nemo") or name == HF]
        self._models |= {path: content_hash([inputs, path.name], length=64) for path in models}
        reads = {
            path.relative_to(self.folder).as_posix(): identity
            for path, identity in zip(step.reads, identities, strict=True)
            if path.is_relative_to(self.folder)
        }
        return _Inputs(inputs, settings_hash(step, self.folder), reads)

    def _origin(self, folder: Path, inputs: _Inputs, outputs: Mapping[str, str]) -> dict[str, Any]:
        """The keys of a record from which `current_steps` finds out if it is of the run's current settings."""
        identities = {name: self._models.get(folder / name, digest) for name, digest in outputs.items()}
        origin = Origin(settings_hash=inputs.settings_hash, reads=dict(inputs.reads), identities=identities)
        return origin.model_dump()

    def identity(self, path: Path) -> str:
        """A hash of a file or folder: of its bytes or, for a model made by a step of this run, of the step's inputs.

        A .nemo file contains the time at which it was packed. A hash of its bytes would change when an interrupted
        step is repeated, and all later steps would run again.
        """
        if path.is_relative_to(self.folder):
            return self._models.get(path) or _digest(path)
        # Several steps read the same model, whose hash takes minutes.
        if path not in self._outside:
            self._outside[path] = _digest(path)
        return self._outside[path]

    def forget(self, names: Sequence[str]) -> None:
        """Empty the folders of steps, journals included, so that they run again.

        Raises:
            UsageError: a folder has files that no step wrote; nothing is removed then.
        """
        folders = [self.folder / name for name in names]
        for folder in folders:
            _require_step_folder(folder)
        for folder in folders:
            if folder.is_dir():
                _empty(folder, keep_journals=False)
                (folder / STARTED).unlink()

    def _begin(self, folder: Path, inputs: str) -> None:
        """Prepare the folder: keep the files of an interrupted attempt with the same inputs, remove all others."""
        _require_step_folder(folder)
        started = folder / STARTED
        if (folder / STEP_RECORD).is_file():
            _log.info("inputs, settings or outputs have changed: running it again")
        folder.mkdir(parents=True, exist_ok=True)
        if not started.is_file() or started.read_text(encoding="utf-8") != inputs:
            _empty(folder, keep_journals=True)
            _mark(folder, inputs)
        (folder / STEP_RECORD).unlink(missing_ok=True)

    def _record(self, step: Step) -> dict[str, Any] | None:
        """The record of a step that is done; None if it is not, or if a file that it reads is missing."""
        if any(path.is_relative_to(self.folder) and not path.exists() for path in step.reads):
            return None
        folder = self.folder / step.name
        # First: hashing the models that the step reads takes minutes, and a dry run may have none of them.
        if not is_recorded(folder):
            return None
        inputs, record = self._inputs(step), self._stored(step)
        try:
            outputs = record["outputs"]
            same = record["inputs"] == inputs.hash and set(outputs) == set(step.makes)
        except (KeyError, TypeError):
            return None  # not a record
        unchanged = same and all(
            (folder / name).exists() and _digest(folder / name) == digest for name, digest in outputs.items()
        )
        return record | self._origin(folder, inputs, outputs) if unchanged else None

    def _stored(self, step: Step) -> Any:
        """The content of a step's record; None if it is missing or truncated."""
        try:
            return read_json(self.folder / step.name / STEP_RECORD)
        except CaiError:
            return None


def is_recorded(folder: Path) -> bool:
    """Return True if the step of a folder has ended with success; its inputs may have changed since."""
    return (folder / STEP_RECORD).is_file()


def settings_hash(step: Step, folder: Path) -> str:
    """The hash of what is known of a step's inputs without reading a file or asking a server.

    Args:
        step: the step.
        folder: the run's folder. Of the files that the step reads, those inside of it count, by their paths there: a
            run, and what it reads from elsewhere, may be moved.
    """
    reads = [path.relative_to(folder).as_posix() for path in step.reads if path.is_relative_to(folder)]
    return content_hash({"version": __version__, "settings": step.settings, "reads": reads}, length=64)


@contextmanager
def _measured(folder: Path) -> Generator[dict[str, float], None, None]:
    """Measure an attempt of a step; yields its time and memory, complete after the block.

    They include those of interrupted attempts with the same inputs, which a file in the step's folder has: the result
    is the work of all. An attempt that is killed, without an exception, is not in it.
    """
    file, started = folder / _ATTEMPTS, time.monotonic()
    used: dict[str, float] = read_json(file) if file.is_file() else {"seconds": 0.0, "peak_rss_mb": 0.0}
    with peak_memory() as memory:
        try:
            yield used
        finally:
            used["seconds"] = round(used["seconds"] + time.monotonic() - started, 1)
            used["peak_rss_mb"] = round(max(used["peak_rss_mb"], memory.megabytes), 1)
            # Without its folder, which somebody has removed, the file would be one of a foreign folder.
            if folder.is_dir():
                write_json(file, used, overwrite=True)


def _digest(path: Path) -> str:
    """The hash of a file, or of the names and bytes of a folder's files."""
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return content_hash({str(file.relative_to(path)): sha256_file(file) for file in files}, length=64)


def _require_step_folder(folder: Path) -> None:
    """Raise UsageError if a folder has files but no marker of a started step."""
    empty = not any(folder.iterdir()) if folder.is_dir() else not os.path.lexists(folder)
    started = folder / STARTED
    if not empty and not (started.is_file() and _MARKER.fullmatch(started.read_bytes())):
        raise UsageError(f"{folder}: holds files that are not this run's; give another --output")


def _mark(folder: Path, inputs: str) -> None:
    """Write the marker of a started step, whole or not at all: without it the folder would be refused."""
    with atomic_writer(folder / STARTED, overwrite=True) as file:
        file.write(inputs.encode())


def _empty(folder: Path, *, keep_journals: bool) -> None:
    """Remove a step's files but the marker, which then is of no inputs: half of an attempt must not be resumed."""
    _mark(folder, _NO_INPUTS)
    # The folder itself may be a link to another disk: keep it.
    for path in folder.glob("*"):
        # Journal entries are keyed by everything that determines them: those of another configuration are never wrong.
        if path.name == STARTED or (keep_journals and path.name.endswith((JOURNAL_SUFFIX, SHARDS_SUFFIX))):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
