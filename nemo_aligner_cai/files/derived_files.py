# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Files that belong to another file, and must not outlive it.

NeMo writes an index beside each file of JSON lines that it reads, and uses it as long as it is there:

    train.jsonl.idx.npy, train.jsonl.idx.info        where each line ends
    train.jsonl_train.jsonl_indexmap_64mns_...npy    which rows are drawn, with model.data.sample

A file that is replaced under the same name would be read by the old file's lines. So whatever writes a file here
removes its indexes, and trainers are given a folder for indexes whose name is the hash of the file's content.

A run also leaves files that only its own settings call for. Its manifest lists them with their hashes, and the next
run removes those that it does not write itself.
"""

import os
import re
from pathlib import Path

_INDEX_ENDING = re.compile(r"\.idx\.(npy|info)|_.*_indexmap_.*\.npy", re.DOTALL)


def remove_indexes(path: Path) -> None:
    """Remove NeMo's indexes of a data file, which is about to be replaced or has been removed."""
    with os.scandir(path.parent) as entries:
        indexes = [
            entry.path
            for entry in entries
            if entry.name.startswith(path.name) and _INDEX_ENDING.fullmatch(entry.name, len(path.name))
        ]
    for index in indexes:
        os.unlink(index)


def remove_file(path: Path) -> None:
    """Remove a data file, if it is there, and its indexes."""
    path.unlink(missing_ok=True)
    remove_indexes(path)
