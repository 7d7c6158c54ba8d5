# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Writes long JSON lists, the format of upstream's files, with constant memory."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from nemo_aligner_cai.files import PathLike, atomic_writer


def write_json_list(path: PathLike, rows: Iterable[Mapping[str, Any]], *, overwrite: bool = False) -> int:
    """Write one indented JSON list atomically; returns the number of rows."""
    written = 0
    with atomic_writer(path, overwrite=overwrite) as handle:
        handle.write(b"[")
        for row in rows:
            handle.write(b",\n" if written else b"\n")
            handle.write(orjson.dumps(row, option=orjson.OPT_INDENT_2))
            written += 1
        handle.write(b"\n]\n")
    return written
