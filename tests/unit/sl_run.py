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
"""A small run of the SL-CAI command, for several test files; its input files are the fixture `inputs`."""

import json
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands.generate_sl import main


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(inputs: dict[str, str], *more: str, port: int = 1) -> int:
    flags = [part for pair in inputs.items() for part in pair]
    return main([*flags, "--port", str(port), "--host", "127.0.0.1", *more])
