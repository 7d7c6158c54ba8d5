# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""Inputs that are like the stored ones: with parts exchanged, cut, repeated, or put in from another input."""

from collections.abc import Sequence

from hypothesis import strategies as st

PIECES = (
    *(b"{", b"}", b"[", b"]", b'"', b"\n", b":", b",", b"\\", b"'", b"#", b"&a ", b"*a", b"- ", b"<<: ", b"? "),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 5000, b"0x_", b"{}", b"[]", b'""', b"!!set "),
    *(b"[" * 2000, b'{"a":' * 300, b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\r", "\u2028".encode()),
    *("\u0130".encode(), b"<think>", b"</think>", b"(A)", b"(B)", b"[[", b"]]", b"```"),
    *(b"<extra_id_1>", b"<|im_start|>", b"\n\nHuman:", b"\n\nAssistant:"),
)


@st.composite
def mutated(draw: st.DrawFn, inputs: Sequence[bytes]) -> bytes:
    """One of the inputs after one to four changes."""
    data = draw(st.sampled_from(inputs))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from((0, 0, 1, 1, 4, 30, 1000))))
        other = draw(st.sampled_from(inputs))
        where = draw(st.integers(0, len(other)))
        piece = draw(
            st.sampled_from(PIECES)
            | st.binary(max_size=3)
            | st.just(other[where : where + 40])
            | st.just(data[start:stop])
        )
        data = data[:start] + piece + data[stop:]
    return data
