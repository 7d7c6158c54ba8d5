# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A small run of the SL-CAI command, for several test files; its input files are the fixture `inputs`."""

import json
import os
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands.generate.sl_cai import main

SHARDS = "cai_output/sl.jsonl/cai_revisions.shards"


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(inputs: dict[str, str], *more: str, port: int = 1) -> int:
    flags = [part for pair in inputs.items() for part in pair]
    return main([*flags, "--port", str(port), "--host", "127.0.0.1", *more])


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file of a run but those that hold times; the run's own folder, which some of them name, is cut out."""
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(os.fsencode(folder), b"")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "journal" not in path.name and "manifest" not in path.name
    }


class SlRun:
    """Runs of the SL-CAI command in a folder of their own, against a server on a real socket."""

    def __init__(self, inputs: dict[str, str], folder: Path, *flags: str) -> None:
        self.folder = folder / "out"
        self._inputs = inputs | {"--output-filepath": str(self.folder / "sl.jsonl")}
        self._flags = flags
        self.shards = self.folder / SHARDS

    def __call__(self, *more: str) -> int:
        return run(self._inputs, *self._flags, *more)
