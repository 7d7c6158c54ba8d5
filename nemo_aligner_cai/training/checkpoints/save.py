# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a .nemo file atomically."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any


def save_nemo(model: Any, output: Path) -> None:
    """Save a model as a .nemo file that is either complete or absent.

    NeMo writes the weights into a folder next to the file, and fails if a previous attempt has left one; so each
    attempt uses a new folder.
    """
    attempt = Path(tempfile.mkdtemp(prefix=".nemo-", dir=output.parent))
    try:
        model.save_to(str(attempt / output.name))
        if model.trainer.global_rank == 0:
            os.replace(attempt / output.name, output)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
