# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Unpacking gzip beside Python: a thread unpacks the next block while this one is looked at."""

import io
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

GZIP_MAGIC = b"\x1f\x8b"
"""What a gzip file starts with."""
GZIP_ERRORS = (EOFError, zlib.error)
"""What reading a damaged one raises."""
_BLOCK = 1 << 20


class ThreadedGzipReader(io.RawIOBase):
    """What is in a gzip file. The next block is unpacked by a thread, beside Python, while this one is looked at."""

    def __init__(self, packed: BinaryIO) -> None:
        self._blocks = _unpacked_blocks(packed)
        self._block = memoryview(b"")
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._ahead = self._thread.submit(next, self._blocks, b"")

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """See `io.RawIOBase`."""
        if not self._block:
            self._block = memoryview(self._ahead.result())
            self._ahead = self._thread.submit(next, self._blocks, b"")
        size = min(len(buffer), len(self._block))
        buffer[:size], self._block = self._block[:size], self._block[size:]
        return size

    def close(self) -> None:
        """See `io.RawIOBase`."""
        self._thread.shutdown()
        super().close()


class Inflater:
    """Decompresses data that arrives in pieces, and gives it out in blocks of limited size."""

    def __init__(self, wbits: int = zlib.MAX_WBITS | 16, *, block: int = _BLOCK) -> None:
        """`wbits` is zlib's name for the format, gzip by default; `block` is the most bytes of a block."""
        self._wbits, self._block = wbits, block
        self._unpacker = zlib.decompressobj(wbits)

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """The blocks of the next piece; raises zlib.error where it is damaged."""
        while packed:
            if self._unpacker.eof:
                # Files of several parts, and zeros after a part, are gzip too.
                if not (packed := packed.lstrip(b"\0")):
                    break
                self._unpacker = zlib.decompressobj(self._wbits)
            # Of limited size: a gzip file can be a thousand times larger than it looks.
            if block := self._unpacker.decompress(packed, self._block):
                yield block
            packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data

    def finish(self) -> None:
        """Raises EOFError where the end of the data is missing."""
        if not self._unpacker.eof:
            raise EOFError("it ends before its end marker")


def _unpacked_blocks(packed: BinaryIO) -> Iterator[bytes]:
    inflater = Inflater()
    while piece := packed.read(_BLOCK):
        yield from inflater.feed(piece)
    inflater.finish()
