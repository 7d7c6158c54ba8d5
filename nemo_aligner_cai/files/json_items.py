# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Splits a JSON list into its items, in the memory of the longest item.

Input:  blocks of a file's bytes, cut anywhere: b'[{"a": 1},', b' {"a": "]"}]'
Output: (1, b'{"a": 1}'), (1, b'{"a": "]"}'): the line where an item starts, and its bytes, which are not validated
"""

import re
from collections.abc import Iterable, Iterator

_OUTSIDE = re.compile(rb'[\[\]{}",]')
_INSIDE = re.compile(rb'[\[\]{}"]')
_BACKSLASH = ord("\\")
MAX_VALUES = 2_000_000
"""The most values of a JSON document: a value of three bytes, as in ``[],``, may need 72 bytes of memory."""
_COUNTED_BYTES = 1 << 20
"""The least size of a document whose values are counted."""


def has_too_many_values(document: bytes) -> bool:
    """True if a document may need hundreds of megabytes when parsed."""
    return len(document) > _COUNTED_BYTES and document.count(b",") > MAX_VALUES


class BrokenListError(Exception):
    """The list is not JSON, or an item is too long, at `line`."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


class _Splitter:
    """The state between two blocks: the bytes that are not yielded yet, and the depth of the next byte."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.data = b""
        self.position = self.begin = self.depth = self.items = 0
        self.line = 1
        self.is_over = False

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        self.data = self.data[self.begin :] + block
        self.position, self.begin = self.position - self.begin, 0
        while mark := (_INSIDE if self.depth > 1 else _OUTSIDE).search(self.data, self.position):
            character = mark[0]
            if self.is_over:
                break
            if character == b'"':
                end = _end_of_string(self.data, mark.end())
                if end < 0:
                    self.position = mark.start()
                    break
                self.position = end
                continue
            self.position = mark.end()
            if character in b"[{":
                self.depth += 1
                if self.depth == 1:
                    self._skip()
            elif character == b"," or self.depth == 1:
                yield from self._item(mark.start(), last=character != b",")
            else:
                self.depth -= 1
        else:
            self.position = len(self.data)
        if self.is_over and self.data[self.begin :].strip():
            raise BrokenListError(self.line, "not JSON: data after the list's end")
        if len(self.data) - self.begin > self.max_bytes:
            raise self._too_long()

    def finish(self) -> None:
        if not self.is_over:
            raise BrokenListError(self.line, "not JSON: the file ends before its list does")

    def _item(self, end: int, *, last: bool) -> Iterator[tuple[int, bytes]]:
        chunk = self.data[self.begin : end]
        item = chunk.strip()
        if len(item) > self.max_bytes:
            raise self._too_long()
        if item:
            self.items += 1
            yield self.line + chunk[: chunk.index(item[:1])].count(b"\n"), item
        elif not last or self.items:
            raise BrokenListError(self.line, "not JSON: no item before a comma or the list's end")
        self._skip()
        self.is_over = last

    def _skip(self) -> None:
        self.line += self.data.count(b"\n", self.begin, self.position)
        self.begin = self.position

    def _too_long(self) -> BrokenListError:
        return BrokenListError(
            self.line, f"an item of more than {self.max_bytes >> 20} MiB starts here or on the next line"
        )


def _end_of_string(data: bytes, start: int) -> int:
    """The end of the string whose content starts at `start`; -1 if it is not in `data`."""
    end = data.find(b'"', start)
    while end >= 0:
        before = end
        while data[before - 1] == _BACKSLASH:
            before -= 1
        if (end - before) % 2 == 0:
            return end + 1
        end = data.find(b'"', end + 1)
    return -1


def split_list(blocks: Iterable[bytes], *, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield (line, bytes) of each item.

    Args:
        blocks: the content of a file whose first character is ``[``.
        max_bytes: the most bytes of an item.

    Raises:
        BrokenListError: the list does not end, an item is missing or too long, or there is data after the list.
    """
    splitter = _Splitter(max_bytes)
    for block in blocks:
        yield from splitter.feed(block)
    splitter.finish()
