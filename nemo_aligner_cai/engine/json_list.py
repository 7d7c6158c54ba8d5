# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Long JSON lists, as upstream's files are, without holding them in memory."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from nemo_aligner_cai.files import PathLike, atomic_writer


def write_json_list(path: PathLike, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write one indented JSON list, in one step; returns the rows written."""
    written = 0
    with atomic_writer(path, overwrite=overwrite) as handle:
        handle.write(b"[")
        for row in rows:
            handle.write(b",\n" if written else b"\n")
            handle.write(orjson.dumps(row, option=orjson.OPT_INDENT_2))
            written += 1
        handle.write(b"\n]\n")
    return written
