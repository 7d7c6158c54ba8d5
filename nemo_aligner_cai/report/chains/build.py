# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chains from the rows of a run's files.

A text is folded if it may help to do harm: an answer before revision, a candidate that lost, a reply that complies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from nemo_aligner_cai.data.judged_row import JudgedRow, JudgedVerdict, read_judged
from nemo_aligner_cai.report.chains.chain import (
    Chain,
    diff_part,
    prompt_parts,
    text_part,
    title_of,
    verdicts_part,
)
from nemo_aligner_cai.report.chains.evaluated import evaluated_chains
from nemo_aligner_cai.report.chains.rows import DroppedRow, ReplyRow, RevisionRow, read_rows
from nemo_aligner_cai.report.labels import model_label, outcome_label
from nemo_aligner_cai.report.run_folder import RunFolder

KINDS = {
    "revision": "Critique and revision",
    "comparison": "AI preferences",
    "reply": "Measured replies",
    "dropped": "Dropped prompts",
}
_COMPLIES = ("complies", "full_compliance", "yes")
"""Outcomes whose text may help to do harm."""


def chains_of(run: RunFolder) -> Iterator[Chain]:
    """All chains of a run, in the order of its steps and files."""
    if path := run.find("revisions.jsonl"):
        yield from map(revision_chain, read_rows(path, RevisionRow))
    if path := run.find("comparisons.jsonl"):
        yield from map(comparison_chain, read_judged(path))
    yield from _reply_chains(run)
    yield from evaluated_chains(run)
    for name in ("revisions.left_out.jsonl", "comparisons.left_out.jsonl"):
        if path := run.find(name):
            yield from map(dropped_chain, read_rows(path, DroppedRow))


def revision_chain(row: RevisionRow) -> Chain:
    """Prompt, answer, and a critique, if there was one, and a revision for each turn."""
    parts = prompt_parts(row.prompt)
    parts.append(text_part("Answer", row.response, badges=["before revision"], fold=True))
    answer = len(parts) - 1
    for turn in row.rounds:
        badge = [turn.principle]
        if turn.critique:
            parts.append(text_part("Critique request", turn.critique_request, badges=badge, quiet=True))
            parts.append(text_part("Critique", turn.critique))
        parts.append(text_part("Revision request", turn.revision_request, badges=badge, quiet=True))
        unchanged = turn.revision == row.response
        parts.append(text_part("Revision", turn.revision, badges=["unchanged"] if unchanged else [], fold=unchanged))
    if row.changed:
        parts.append(diff_part("What the revision changed", answer, len(parts) - 1))
    principles = tuple(dict.fromkeys(turn.principle for turn in row.rounds))
    tags = ("revision changed the answer" if row.changed else "revision left the answer as it was",)
    return Chain(row.id, "revision", title_of(row.prompt), principles, tags, tuple(parts))


def comparison_chain(row: JudgedRow) -> Chain:
    """Prompt, candidates, and what the judge decided."""
    messages = row.prompt.to_messages()
    kept, parts = row.kept(), prompt_parts(messages)
    winners, losers = ({pair[side] for pair in kept} for side in (0, 1))
    for number, candidate in enumerate(row.candidates):
        won = [f"won {sum(pair[0] == number for pair in kept)}"] if number in winners else []
        lost = [f"lost {sum(pair[1] == number for pair in kept)}"] if number in losers else []
        fold = number in losers or number not in winners
        parts.append(text_part(f"Candidate {number + 1}", candidate.text, badges=[*won, *lost], fold=fold))
    if row.verdicts:
        parts.append(verdicts_part(row, {n: str(n + 1) for n in range(len(row.candidates))}))
    parts += [text_part(f"Judge's text {n + 1}", one.raw, fold=True) for n, one in enumerate(row.verdicts) if one.raw]
    principles = tuple(dict.fromkeys(one.principle for one in row.verdicts if one.principle))
    return Chain(row.id, "comparison", title_of(messages), principles, _comparison_tags(row), tuple(parts))


def _comparison_tags(row: JudgedRow) -> tuple[str, ...]:
    tags = ["a pair was kept" if row.pairs else "no pair was kept"]
    if not all(one.is_parsed for one in row.verdicts):
        tags.append("unparsed verdict")
    if _flipped(row.verdicts):
        tags.append("the order decided")
    if any(len(pair.chosen) > len(pair.rejected) for pair in row.pairs):
        tags.append("longer text preferred")
    return tuple(tags)


def _flipped(verdicts: Sequence[JudgedVerdict]) -> bool:
    choices: dict[frozenset[int], set[int | None]] = defaultdict(set)
    for verdict in verdicts:
        if verdict.better is not None:
            choices[frozenset(verdict.shown)].add(verdict.better)
    return any(len(better) > 1 for better in choices.values())


def _reply_chains(run: RunFolder) -> Iterator[Chain]:
    """A chain for each measured prompt, with the replies of all models."""
    found: dict[str, dict[tuple[str, str], ReplyRow]] = {}
    for model, decoding, path in run.replies():
        for row in read_rows(path, ReplyRow):
            found.setdefault(row.id, {})[model, decoding] = row
    for name, replies in found.items():
        yield reply_chain(name, replies)


def reply_chain(name: str, replies: Mapping[tuple[str, str], ReplyRow]) -> Chain:
    """Prompt, and the reply of each model with its outcome, by (model, decoding)."""
    first = next(iter(replies.values()))
    parts, tags = prompt_parts(first.messages), ["harmful prompt" if first.harmful else "benign prompt"]
    for (model, decoding), row in replies.items():
        label, outcome = f"{model_label(model)}, {decoding}", outcome_label(row.outcome)
        parts.append(text_part(label, row.reply, badges=[outcome], fold=row.harmful and row.outcome in _COMPLIES))
        tags.append(f"{label}: {outcome}")
    return Chain(name, "reply", title_of(first.messages), (), tuple(tags), tuple(parts))


def dropped_chain(row: DroppedRow) -> Chain:
    """Prompt, and the reason why it gave no row."""
    parts = [*prompt_parts(row.prompt), text_part("Reason", row.reason, quiet=True)]
    if row.detail:
        parts.append(text_part("Reply or error, its beginning", row.detail, fold=True))
    return Chain(row.id, "dropped", title_of(row.prompt), (), (row.reason,), tuple(parts))
