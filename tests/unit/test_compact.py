# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`CompactSet` and `CompactMap` are a set and a dict of 64-bit integers, in a few bytes an entry."""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.files.compact_sets import CompactMap, CompactSet

KEYS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**52 - 1, 2**52, 2**64 - 1])


@given(st.lists(KEYS))
def test_a_set_is_a_set(keys: list[int]):
    compact, builtin = CompactSet(), set[int]()
    for key in [*keys, *keys[::-1]]:
        assert compact.add(key) == (key not in builtin)
        builtin.add(key)
    assert list(compact) == sorted(builtin)
    assert len(compact) == len(builtin)


@given(st.lists(st.tuples(KEYS, KEYS)), KEYS)
def test_a_map_is_a_dict(items: list[tuple[int, int]], other: int):
    compact, builtin = CompactMap(), dict[int, int]()
    for key, value in items:
        compact[key] = builtin[key] = value
    assert list(compact) == sorted(builtin)
    assert len(compact) == len(builtin)
    assert all(compact.get(key) == builtin.get(key) for key in (other, *builtin))


@pytest.mark.parametrize("key", [-1, 2**64])
def test_other_integers_are_refused_and_not_folded(key: int):
    with pytest.raises((IndexError, OverflowError)):
        CompactSet().add(key)
    with pytest.raises((IndexError, OverflowError)):
        CompactMap()[key] = 1


def test_a_value_that_does_not_fit_leaves_the_map_as_it_was():
    entries = CompactMap()
    with pytest.raises(OverflowError):
        entries[7] = 2**64
    assert (entries.get(7), len(entries)) == (None, 0)


def test_what_is_looked_for_takes_no_memory():
    entries = CompactMap()
    tracemalloc.start()
    try:
        assert not any(entries.get(shard << 52) for shard in range(4096))
        assert tracemalloc.get_traced_memory()[0] < 4096
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_entries_take_few_bytes_and_growing_takes_no_more():
    entries = 300_000
    random_ = random.Random(1)
    tracemalloc.start()
    try:
        keys, places = CompactSet(), CompactMap()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(entries):
            keys.add(random_.getrandbits(64))
        one = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.reset_peak()
        for number in range(entries):
            places[random_.getrandbits(64)] = number
        two = tracemalloc.get_traced_memory()[1] - before - one
    finally:
        tracemalloc.stop()
    assert one / entries < 12
    assert two / entries < 24
