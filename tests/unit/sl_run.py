# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A small run of the SL-CAI command, for several test files; its input files are the fixture `inputs`."""

import json
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands.generate.sl_cai import main


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(inputs: dict[str, str], *more: str, port: int = 1) -> int:
    flags = [part for pair in inputs.items() for part in pair]
    return main([*flags, "--port", str(port), "--host", "127.0.0.1", *more])
