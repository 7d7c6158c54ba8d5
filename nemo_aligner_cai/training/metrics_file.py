# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Read metrics.jsonl without Lightning."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


def read_metrics(directory: Path) -> Iterator[dict[str, Any]]:
    """The rows in a log directory, oldest first; no rows if there is no file yet.

    When a run resumes, NeMo moves the earlier files into `run_0`, `run_1` and so on; their rows come first. A step may
    be present twice, since steps after the last checkpoint are repeated.
    """
    earlier = sorted(directory.glob(f"run_*/{METRICS_FILE}"), key=lambda path: int(path.parent.name[4:]))
    for path in [*earlier, directory / METRICS_FILE]:
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                # The last line may be incomplete.
                yield from (json.loads(line) for line in file if line.endswith("\n"))
