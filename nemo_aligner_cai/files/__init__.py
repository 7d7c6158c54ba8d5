# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reading and writing data files: JSON lines, gzip, parquet, hub data sets, atomic writes."""

from nemo_aligner_cai.files.hashing import content_hash, sha256_file
from nemo_aligner_cai.files.reading import (
    PathLike,
    Row,
    read_items,
    read_json,
    read_jsonl,
    read_lines,
    read_text,
    read_unique_json,
    require_file,
)
from nemo_aligner_cai.files.row_counts import RowCounts
from nemo_aligner_cai.files.writing import (
    atomic_writer,
    jsonl_writer,
    put_in_place,
    to_json,
    write_json,
    write_json_list,
    write_jsonl,
)

__all__ = [
    "PathLike",
    "Row",
    "RowCounts",
    "atomic_writer",
    "content_hash",
    "jsonl_writer",
    "put_in_place",
    "read_items",
    "read_json",
    "read_jsonl",
    "read_lines",
    "read_text",
    "read_unique_json",
    "require_file",
    "sha256_file",
    "to_json",
    "write_json",
    "write_json_list",
    "write_jsonl",
]
