# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reading what `metrics.JsonlLogger` writes, without Lightning."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


def read_metrics(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows written so far under a log directory, oldest first; none where there is no file yet.

    A run that goes on from a checkpoint has NeMo move the earlier files into `run_0`, `run_1` and so on; their rows
    come first. A step may be there twice: it was repeated after the last checkpoint.
    """
    earlier = sorted(directory.glob(f"run_*/{METRICS_FILE}"), key=lambda path: int(path.parent.name[4:]))
    for path in [*earlier, directory / METRICS_FILE]:
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                # The last line may still be under way.
                yield from (json.loads(line) for line in file if line.endswith("\n"))
