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
"""No command replaces what it reads."""

import os
from collections.abc import Iterable
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike


def refuse_same(inputs: Iterable[PathLike], outputs: Iterable[PathLike]) -> None:
    """Raises UsageError where an output is an input or another output, by whatever name. Call it before any work."""
    seen: list[tuple[Path, str]] = [(Path(path), "is read by this command") for path in inputs]
    for output in map(Path, outputs):
        for path, what in seen:
            if os.path.realpath(path) == os.path.realpath(output) or (
                path.exists() and output.exists() and path.samefile(output)
            ):
                raise UsageError(f"{output}: {what}, and would be replaced; choose another name")
        seen.append((output, "is written twice"))
