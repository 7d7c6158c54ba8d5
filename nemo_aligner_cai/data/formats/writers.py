# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Atomic writers of rows as JSON lines, CSV or parquet."""

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import PathLike, Row, atomic_writer, write_jsonl
from nemo_aligner_cai.files.sources import hf_library

_ROW_GROUP = 4096
"""Rows of a parquet row group."""


def require_suffix(path: PathLike, format: Format) -> None:
    """Raise UsageError if the suffix of a file name does not fit the format."""
    given = Path(path).suffix
    if given != format.suffix and (format.suffix != ".jsonl" or given in (".csv", ".parquet")):
        raise UsageError(f"{path}: {format.name} is written as {format.suffix}; choose a name with this ending")


def require_writable(format: Format) -> None:
    """Raise UsageError if a format is only read."""
    if format.read_only:
        raise UsageError(f"the format {format.name} is only read; `cai components formats` lists the others")


def write_rows(path: PathLike, rows: Iterable[Row], format: Format, *, overwrite: bool = False) -> int:
    """Write rows of a format and return their number.

    Raises:
        UsageError: The file exists and `overwrite` is False, its suffix does not fit, or a package is missing.
        CaiError: A row has a value that the file cannot hold. The message has the row's number.
    """
    require_suffix(path, format)
    match format.suffix:
        case ".csv":
            return _write_csv(path, rows, format.columns, overwrite=overwrite)
        case ".parquet":
            return _write_parquet(path, rows, format.columns, overwrite=overwrite)
        case _:
            return write_jsonl(path, rows, overwrite=overwrite)


def _write_csv(path: PathLike, rows: Iterable[Row], columns: Mapping[str, Any], *, overwrite: bool) -> int:
    written = 0
    with atomic_writer(path, overwrite=overwrite) as handle:
        text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
        writer = csv.DictWriter(text, list(columns))
        writer.writeheader()
        try:
            for row in rows:
                writer.writerow(row)
                written += 1
        except UnicodeEncodeError as error:
            raise CaiError(f"{path}: row {written + 1} cannot be written as UTF-8: {error.reason}") from error
        finally:
            text.detach()
    return written


def _write_parquet(path: PathLike, rows: Iterable[Row], columns: Mapping[str, Any], *, overwrite: bool) -> int:
    pyarrow, parquet = (hf_library(name, f"{path}: parquet") for name in ("pyarrow", "pyarrow.parquet"))
    schema = pyarrow.schema([(name, _arrow_type(pyarrow, kind)) for name, kind in columns.items()])
    written = 0
    stream = iter(rows)
    with atomic_writer(path, overwrite=overwrite) as handle, parquet.ParquetWriter(handle, schema) as writer:
        while batch := list(islice(stream, _ROW_GROUP)):
            try:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            except (pyarrow.ArrowException, UnicodeEncodeError) as error:
                last = written + len(batch)
                raise CaiError(f"{path}: one of rows {written + 1} to {last} cannot be written: {error}") from error
            written += len(batch)
    return written


def _arrow_type(pyarrow: Any, kind: Any) -> Any:
    if isinstance(kind, list):
        return pyarrow.list_(_arrow_type(pyarrow, cast(list[Any], kind)[0]))
    if isinstance(kind, dict):
        return pyarrow.struct([(name, _arrow_type(pyarrow, one)) for name, one in cast(dict[str, Any], kind).items()])
    return {str: pyarrow.string, float: pyarrow.float64}[kind]()
