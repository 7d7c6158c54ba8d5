# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Writing a .nemo file."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any


def save_nemo(model: Any, output: Path) -> None:
    """Save a model as a .nemo file that is either whole or not there.

    NeMo writes its weights into a folder beside the file and refuses to start when one is left from a failed
    attempt, so each attempt gets a folder of its own.
    """
    attempt = Path(tempfile.mkdtemp(prefix=".nemo-", dir=output.parent))
    try:
        model.save_to(str(attempt / output.name))
        if model.trainer.global_rank == 0:
            os.replace(attempt / output.name, output)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
