# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Index files that NeMo writes next to a data file, and that must not outlive it.

    train.jsonl.idx.npy, train.jsonl.idx.info        where each line ends
    train.jsonl_train.jsonl_indexmap_64mns_...npy    which rows are drawn, with model.data.sample

NeMo uses an index as long as it exists, so a replaced file would be read at the old file's line ends.
"""

import os
import re
from pathlib import Path

_INDEX_SUFFIX = re.compile(r"\.idx\.(npy|info)|_.*_indexmap_.*\.npy", re.DOTALL)


def remove_indexes(path: Path) -> None:
    """Remove NeMo's indexes of a data file that is about to be replaced or has been removed."""
    with os.scandir(path.parent) as entries:
        indexes = [
            entry.path
            for entry in entries
            if entry.name.startswith(path.name) and _INDEX_SUFFIX.fullmatch(entry.name, len(path.name))
        ]
    for index in indexes:
        os.unlink(index)


def remove_file(path: Path) -> None:
    """Remove a data file, if it exists, and its indexes."""
    path.unlink(missing_ok=True)
    remove_indexes(path)
