# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The chains that changed most, of the prompts that both runs have."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from nemo_aligner_cai.files import Row
from nemo_aligner_cai.report.chains.chain import title_of
from nemo_aligner_cai.report.chains.evaluated import graded_replies
from nemo_aligner_cai.report.chains.rows import ReplyRow, RevisionRow, read_rows
from nemo_aligner_cai.report.comparison.word_diff import changed_share
from nemo_aligner_cai.report.labels import model_label, outcome_label
from nemo_aligner_cai.report.run_folder import RunFolder

_MOST = 20


@dataclass(frozen=True)
class ChangedChain:
    """A prompt with different texts in the two runs.

    Attributes:
        id: of the prompt.
        prompt: its beginning.
        text: the text that changed, such as "revision".
        outcome_a: the class of A's text, by the first grader that gives one, or "".
        outcome_b: the class of B's text, or "".
        a: A's text.
        b: B's text.
        changed: the share of words that they do not have in common.
    """

    id: str
    prompt: str
    text: str
    outcome_a: str
    outcome_b: str
    a: str
    b: str
    changed: float


def changed_chains(a: RunFolder, b: RunFolder) -> list[ChangedChain]:
    """Return the chains that changed most: first those with another outcome, then by their share of new words."""
    found = (*_revisions(a, b), *_replies(a, b))
    return heapq.nlargest(_MOST, found, key=lambda one: (one.outcome_a != one.outcome_b, one.changed, one.id))


def _revisions(a: RunFolder, b: RunFolder) -> Iterator[ChangedChain]:
    first, second = (run.find("revisions.jsonl") for run in (a, b))
    if first is None or second is None:
        return
    texts = {row.id: row.revision for row in read_rows(first, RevisionRow)}
    for row in read_rows(second, RevisionRow):
        before = texts.get(row.id)
        if before is not None and before != row.revision:
            changed = changed_share(before, row.revision)
            yield ChangedChain(row.id, title_of(row.prompt), "revision", "", "", before, row.revision, changed)


class _Reply(NamedTuple):
    id: str
    prompt: tuple[Row, ...]
    text: str
    reply: str
    outcome: str


def _replies(a: RunFolder, b: RunFolder) -> Iterator[ChangedChain]:
    for read in (_measured, _evaluated):
        earlier = {(one.text, one.id): one for one in read(a)}
        for one in read(b):
            before = earlier.get((one.text, one.id))
            if before is not None and before.reply != one.reply:
                outcomes = outcome_label(before.outcome), outcome_label(one.outcome)
                changed = changed_share(before.reply, one.reply)
                title = title_of(one.prompt)
                yield ChangedChain(one.id, title, one.text, *outcomes, before.reply, one.reply, changed)


def _measured(run: RunFolder) -> Iterator[_Reply]:
    for model, decoding, path in run.replies():
        text = f"reply of {model_label(model)}, {decoding}"
        for row in read_rows(path, ReplyRow):
            yield _Reply(row.id, row.messages, text, row.reply, row.outcome)


def _evaluated(run: RunFolder) -> Iterator[_Reply]:
    for row, grades in graded_replies(run):
        number = f", sample {row.sample}" if row.sample else ""
        text = f"reply of {model_label(row.model)}{number}, {row.set}"
        outcome = next((grade.label for grade in grades if grade.label), "")
        yield _Reply(row.id, row.messages, text, row.shown, outcome)
