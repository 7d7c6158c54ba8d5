# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
