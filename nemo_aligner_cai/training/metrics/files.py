# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files that a trainer's loggers write, without Lightning: metrics.jsonl, and the number of steps.

metrics.jsonl  {"step": 12, "train/loss": 1.93, "train/lr": 0.0009, ...}
steps.json     {"steps": 120}
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import FormatError, one_line
from nemo_aligner_cai.files import read_json, write_json

METRICS_FILE = "metrics.jsonl"
_STEPS_FILE = "steps.json"


def read_metrics(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows in a log directory, oldest first; no rows if there is no file yet.

    When a run resumes, NeMo moves the earlier files into `run_0`, `run_1` and so on; their rows come first. A step may
    be present twice, since steps after the last checkpoint are repeated.

    Raises:
        FormatError: a line is damaged.
    """
    earlier = sorted(directory.glob(f"run_*/{METRICS_FILE}"), key=lambda path: int(path.parent.name[4:]))
    for path in [*earlier, directory / METRICS_FILE]:
        if path.is_file():
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    # The last line may be incomplete.
                    if line.endswith(b"\n"):
                        yield _row(path, number, line)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError.at(path, number, f"not JSON: {one_line(error)}") from error
    if not isinstance(row, dict):
        raise FormatError.at(path, number, f"a JSON object is needed, got {type(row).__name__}")
    return row


def write_steps(directory: Path, steps: int) -> None:
    """Write the number of steps of the whole run, when training begins."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / _STEPS_FILE, {"steps": steps}, overwrite=True)


def read_steps(directory: Path) -> int | None:
    """Return the number of steps of the whole run; None if training has not begun."""
    path = directory / _STEPS_FILE
    return int(read_json(path)["steps"]) if path.is_file() else None


class NewRows:
    """The rows that are added to a log directory from now on, while its trainer works."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / METRICS_FILE
        self._file, self._offset = self._identity()

    def _identity(self) -> tuple[int | None, int]:
        """Return the file's number and size. When a run resumes, another file has the name."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None, 0
        return status.st_ino, status.st_size

    def read(self) -> list[dict[str, Any]]:
        """Return the complete rows since the last call, oldest first."""
        file, size = self._identity()
        if file != self._file:
            self._file, self._offset = file, 0
        if file is None or size == self._offset:
            return []
        with self._path.open("rb") as opened:
            opened.seek(self._offset)
            added = opened.read()
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [json.loads(line) for line in complete.splitlines()]
