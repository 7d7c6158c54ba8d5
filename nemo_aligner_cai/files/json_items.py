# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The items of a JSON list, one at a time: a list of any length is read with the memory of its longest item.

Input:  blocks of a file's bytes, cut anywhere: b'[{"a": 1},', b' {"a": "]"}]'
Output: (1, b'{"a": 1}'), (1, b'{"a": "]"}'), the line that an item starts on and its bytes, which are not checked
"""

import re
from collections.abc import Iterable, Iterator

_OUTSIDE = re.compile(rb'[\[\]{}",]')
_INSIDE = re.compile(rb'[\[\]{}"]')
_BACKSLASH = ord("\\")
MOST_VALUES = 2_000_000
"""In one JSON document: each value takes up to 72 bytes of memory, and only three bytes of the document."""
_COUNTED = 1 << 20
"""Bytes of a document from which on its values are counted."""


def has_too_many_values(document: bytes) -> bool:
    """Whether a document might take hundreds of megabytes once it is parsed."""
    return len(document) > _COUNTED and document.count(b",") > MOST_VALUES


class BrokenListError(Exception):
    """The list is not JSON, or has too long an item, at a line."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


class _Splitter:
    """The state between two blocks: what is not given out yet, and how deep the next byte is."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
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
                end = _end_of_text(self.data, mark.end())
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
            raise BrokenListError(self.line, "not JSON: there is something after the list's end")
        if len(self.data) - self.begin > self.longest:
            raise self._too_long()

    def finish(self) -> None:
        if not self.is_over:
            raise BrokenListError(self.line, "not JSON: the file ends before its list does")

    def _item(self, end: int, *, last: bool) -> Iterator[tuple[int, bytes]]:
        chunk = self.data[self.begin : end]
        item = chunk.strip()
        if len(item) > self.longest:
            raise self._too_long()
        if item:
            self.items += 1
            yield self.line + chunk[: chunk.index(item[:1])].count(b"\n"), item
        elif not last or self.items:
            raise BrokenListError(self.line, "not JSON: there is no item before a comma or the list's end")
        self._skip()
        self.is_over = last

    def _skip(self) -> None:
        self.line += self.data.count(b"\n", self.begin, self.position)
        self.begin = self.position

    def _too_long(self) -> BrokenListError:
        return BrokenListError(self.line, f"an item of more than {self.longest >> 20} MiB starts here or right after")


def _end_of_text(data: bytes, start: int) -> int:
    """Where a text ends whose first character is at `start`; -1 where its end is not in `data`."""
    end = data.find(b'"', start)
    while end >= 0:
        before = end
        while data[before - 1] == _BACKSLASH:
            before -= 1
        if (end - before) % 2 == 0:
            return end + 1
        end = data.find(b'"', end + 1)
    return -1


def split_list(blocks: Iterable[bytes], *, longest: int) -> Iterator[tuple[int, bytes]]:
    """See the module.

    Args:
        blocks: of a file whose first character is ``[``.
        longest: bytes of an item.

    Raises:
        BrokenListError: it does not end, goes on after its end, lacks an item, or an item is too long.
    """
    splitter = _Splitter(longest)
    for block in blocks:
        yield from splitter.feed(block)
    splitter.finish()
