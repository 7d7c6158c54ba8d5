# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Incremental decompression in blocks of limited size: data can decompress to a thousand times its size."""

import zlib
from collections.abc import Iterator

INFLATE_ERRORS = (EOFError, zlib.error)
"""The errors of damaged data."""


class Inflater:
    """Decompresses data that arrives in pieces.

    Args:
        wbits: zlib's name of the format.
        block: the most bytes of a decompressed block.
    """

    def __init__(self, wbits: int, *, block: int) -> None:
        self._wbits, self._block = wbits, block
        self._decompressor = zlib.decompressobj(wbits)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the decompressed blocks of the next piece; raises zlib.error if it is damaged."""
        while piece:
            if self._decompressor.eof:
                # gzip data may have several members, and zeros after one.
                if not (piece := piece.lstrip(b"\0")):
                    break
                self._decompressor = zlib.decompressobj(self._wbits)
            if block := self._decompressor.decompress(piece, self._block):
                yield block
            piece = self._decompressor.unconsumed_tail or self._decompressor.unused_data

    def finish(self) -> None:
        """Raises EOFError if the end of the data is missing."""
        if not self._decompressor.eof:
            raise EOFError("it ends before its end marker")
