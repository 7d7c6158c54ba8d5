# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""Every parser of untrusted text on its stored inputs, and on inputs like them.

``pytest --hypothesis-profile=long tests/fuzz`` looks longer, and ``python -m tests.fuzz --minutes 60`` for an hour.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import CORPUS, TARGETS, corpus, run

LONG = settings.default.max_examples > 100
STORED = [(name, path.name) for name in TARGETS for path in corpus(name)]


def test_each_target_has_inputs_and_the_corpus_is_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize(("name", "file"), STORED)
def test_a_stored_input_gives_a_result_or_an_error_of_this_package(name: str, file: str) -> None:
    run(name, (CORPUS / name / file).read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=settings.default.max_examples if LONG else 10,
    # The fast tier tries the same inputs every time: a search is for `python -m tests.fuzz`.
    derandomize=not LONG,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_an_input_like_the_stored_ones_does_too(name: str, data: st.DataObject) -> None:
    run(name, data.draw(mutated([path.read_bytes() for path in corpus(name)])))
