# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reader of parquet files in bounded memory.

A file of two megabytes can decompress to terabytes: by compression, by a dictionary that repeats a long text, or by a
row with a billion values. The file's metadata can hide that, but the headers of its pages cannot: Arrow allocates the
sizes in them. So the page headers of each row group are read first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from nemo_aligner_cai.errors import FormatError, one_line
from nemo_aligner_cai.files.reading import MAX_ROW_BYTES, Row

_BATCH_ROWS = 256
"""Rows that are decoded at a time."""
_FREE_BYTES = 64 << 20
_MAX_RATIO = 16
"""A row group may need `_FREE_BYTES`, and this many bytes per compressed byte."""
_BUFFER = 1 << 20
_OBJECT_BYTES = 64
"""The approximate memory of a Python object."""
_DICTIONARY_PAGE, _DATA_PAGE, _DATA_PAGE_V2 = 2, 0, 3
_DELTA_LENGTH_BYTE_ARRAY, _DELTA_BYTE_ARRAY = 6, 7
"""Encodings that Arrow cannot read as a dictionary; in the second, a value reuses the prefix of the previous one."""
_MAX_HEADER_BYTES = 16 << 20
_MAX_DEPTH = 8


def parquet_rows(path: Path, pyarrow: Any) -> Iterator[tuple[int, Row]]:
    """Yield (1-based number, row) of a parquet file.

    Args:
        path: the file.
        pyarrow: the package, with its modules `parquet` and `compute` imported.

    Raises:
        FormatError: the file is damaged, a row group needs too much memory, or a row is longer than 16 MiB.
    """
    number = 0
    try:
        with path.open("rb") as handle, pyarrow.parquet.ParquetFile(path) as table:
            metadata = table.metadata
            for group in range(metadata.num_row_groups):
                rows, texts = _read_options(path, handle, metadata, group)
                # As a dictionary, a repeated text is in memory once.
                reader = pyarrow.parquet.ParquetFile(handle, read_dictionary=texts, buffer_size=_BUFFER)
                for batch in reader.iter_batches(batch_size=rows, row_groups=[group]):
                    for part in _parts(batch, pyarrow, f"{path}: row group {group}", number):
                        for row in cast(list[Row], part.to_pylist()):
                            number += 1
                            yield number, row
            if number != metadata.num_rows:
                raise ValueError(f"it has {number} rows, but {metadata.num_rows} in its metadata")
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        # ValueError: text that is not UTF-8.
        raise FormatError.at(path, number + 1, f"the parquet data is damaged: {one_line(error)}") from error


def _read_options(path: Path, handle: BinaryIO, metadata: Any, group: int) -> tuple[int, list[str]]:
    """The rows to decode at a time, and the text columns to read as a dictionary.

    Raises:
        FormatError: the row group needs too much memory.
    """
    columns: list[_Column] = []
    for index in range(metadata.num_columns):
        schema = metadata.schema.column(index)
        width = schema.length if schema.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        pages = list(_pages(handle, metadata.row_group(group).column(index)))
        is_text = schema.physical_type == "BYTE_ARRAY"
        columns.append(_Column(schema.path, pages, schema.max_repetition_level > 0, width, is_text))
    for column in columns:
        if column.has_encoding(_DELTA_BYTE_ARRAY):
            raise FormatError(
                f"{path}: row group {group}: the column {column.path} is encoded as DELTA_BYTE_ARRAY, in which a few "
                "bytes can encode gigabytes; write the file in another encoding, or as JSON lines"
            )
    rows = 1 if any(column.is_expanded for column in columns) else _BATCH_ROWS
    needed = sum(column.memory(rows) for column in columns)
    packed = sum(page.packed for column in columns for page in column.pages)
    if needed > _FREE_BYTES + _MAX_RATIO * packed:
        raise FormatError(
            f"{path}: row group {group}: {packed:,} bytes decompress to {needed:,} at a time; "
            "if that is intended, write the file as JSON lines"
        )
    texts = [column for column in columns if column.is_text and not column.has_encoding(_DELTA_LENGTH_BYTE_ARRAY)]
    return rows, [column.path for column in texts]


def _parts(batch: Any, pyarrow: Any, where: str, before: int) -> Iterator[Any]:
    """Split a batch into parts that are small as Python objects; `before` is the number of rows before it."""
    size = sum(_size(column, pyarrow) for column in batch.columns)
    if size <= MAX_ROW_BYTES:
        yield batch
    elif batch.num_rows == 1:
        raise FormatError(f"{where}: row {before + 1} has more than {MAX_ROW_BYTES >> 20} MiB")
    else:
        half = batch.num_rows // 2
        yield from _parts(batch.slice(0, half), pyarrow, where, before)
        yield from _parts(batch.slice(half), pyarrow, where, before + half)


def _size(array: Any, pyarrow: Any) -> int:
    types, compute = pyarrow.types, pyarrow.compute
    size = _OBJECT_BYTES * len(array)
    if isinstance(array, pyarrow.ExtensionArray):
        return _size(array.storage, pyarrow)
    if types.is_dictionary(array.type):
        if types.is_primitive(array.type.value_type):
            return size
        return size + (compute.sum(compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
    if types.is_struct(array.type):
        return size + sum(_size(field, pyarrow) for field in array.flatten())
    if types.is_map(array.type):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return size + sum(_size(part.slice(first, last - first), pyarrow) for part in (array.keys, array.items))
    if types.is_nested(array.type):
        return size + _size(array.flatten(), pyarrow)
    return size + array.nbytes


@dataclass
class _Page:
    """The header of a page; `size` and `packed` are its bytes before and after compression."""

    kind: int
    size: int
    packed: int
    values: int
    encoding: int


@dataclass
class _Column:
    """The pages of a column in one row group; `width` is the length of fixed-length values, else 0."""

    path: str
    pages: list[_Page]
    nested: bool
    width: int
    is_text: bool

    @property
    def dictionary(self) -> int:
        """The size of the dictionary, in bytes."""
        return sum(page.size for page in self.pages if page.kind == _DICTIONARY_PAGE)

    def has_encoding(self, encoding: int) -> bool:
        """True if a page has this encoding."""
        return any(page.encoding == encoding for page in self.pages)

    @property
    def is_expanded(self) -> bool:
        """True if Arrow copies a dictionary text for each row, since it cannot read the column as a dictionary."""
        return self.dictionary > 0 and self.has_encoding(_DELTA_LENGTH_BYTE_ARRAY)

    def memory(self, rows: int) -> int:
        """The most bytes in memory while `rows` rows are decoded."""
        data = [page for page in self.pages if page.kind != _DICTIONARY_PAGE]
        if self.nested:
            # All values may be in one row.
            values = sum(page.values for page in data)
            longest = max((page.size for page in self.pages), default=0) if self.is_expanded else 0
            return self.dictionary + sum(page.size for page in data) + (8 + self.width + longest) * values
        most = size = values = first = 0
        for page in data:
            size, values = size + page.size, values + page.values
            # The first and the last page may each hold only one of the rows.
            while values - data[first].values - page.values >= rows:
                size, values, first = size - data[first].size, values - data[first].values, first + 1
            most = max(most, size)
        return self.dictionary + most + self.width * rows


def _pages(handle: BinaryIO, column: Any) -> Iterator[_Page]:
    start, left = column.data_page_offset, column.num_values
    if column.dictionary_page_offset and column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    end = start + column.total_compressed_size
    while left > 0 and start < end:
        fields, length = _header(handle, start, end)
        kind, size, packed = (fields.get(key) for key in (1, 2, 3))
        if not (isinstance(kind, int) and isinstance(size, int) and isinstance(packed, int)):
            raise ValueError(f"a page header without sizes at byte {start}")
        details = {_DATA_PAGE: fields.get(5), _DICTIONARY_PAGE: fields.get(7), _DATA_PAGE_V2: fields.get(8)}.get(kind)
        numbers = cast(dict[int, int], details if isinstance(details, dict) else {})
        values, encoding = numbers.get(1, 0), numbers.get(4 if kind == _DATA_PAGE_V2 else 2, 0)
        if min(size, packed, values) < 0:
            raise ValueError(f"a page of a negative size at byte {start}")
        yield _Page(kind, size, packed, values, encoding)
        if kind != _DICTIONARY_PAGE:
            left -= values
        start += length + packed


def _header(handle: BinaryIO, start: int, end: int) -> tuple[dict[int, Any], int]:
    """Parse the page header at `start`: its fields by number, and its length."""
    size = 1 << 10
    while True:
        handle.seek(start)
        compact = _ThriftParser(handle.read(min(size, end - start)))
        try:
            return compact.struct(_MAX_DEPTH), compact.at
        except IndexError as error:
            size *= 8
            if size > _MAX_HEADER_BYTES or size > 8 * (end - start):
                raise ValueError(f"a page header that does not end, at byte {start}") from error


class _ThriftParser:
    """Parser of Thrift's compact protocol, the encoding of page headers."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        key = 0
        while head := self._byte():
            key = key + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 15
            fields[key] = kind == 1 if kind in (1, 2) else self._value(kind, depth - 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth < 0:
            raise ValueError("a page header is nested too deep")
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._zigzag()
            case 7 | 8:
                length = 8 if kind == 7 else self._varint()
                self.at += length
                return None
            case 9 | 10:
                head = self._byte()
                for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                    self._value(head & 15, depth - 1)
                return None
            case 12:
                return self.struct(depth)
            case _:
                raise ValueError(f"a page header with a field of type {kind}")

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def _zigzag(self) -> int:
        number = self._varint()
        return number >> 1 ^ -(number & 1)
