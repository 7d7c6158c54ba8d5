# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
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
