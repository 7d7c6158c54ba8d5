# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Position flips of saved verdicts: the same numbers as those that the judge counted."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.judged_row import Candidate, JudgedRow
from nemo_aligner_cai.evaluation.preferences.audit import Audit
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.judges import base as j
from nemo_aligner_cai.judges.ensemble import ensemble
from nemo_aligner_cai.judges.orders import position_counts
from nemo_aligner_cai.judges.steps import PreferenceSample
from nemo_aligner_cai.models import Completion, Request
from nemo_aligner_cai.pipeline.steps.measure import judge_figures
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.registry import BUILTIN, load
from nemo_aligner_cai.stages.comparisons import judged_row
from tests.unit.judging import CASE, decide, scored, settings

POSITIONS = (j.BOTH_ORDERS, j.FLIPS, j.VERDICTS, j.FIRST)
CANDIDATES = tuple(Candidate(f"response_{number}", text) for number, text in enumerate(CASE.candidates))


def saved(judgment: j.Judgment) -> JudgedRow:
    sample = PreferenceSample(Prompt("id1", Conversation.of_user("a question")), CANDIDATES)
    return JudgedRow.from_row(json.loads(json.dumps(judged_row(replace(sample, judgment=judgment)).to_row())))


@pytest.mark.parametrize("name", BUILTIN["judges"])
def test_saved_verdicts_give_the_counts_of_every_strategy(name: str) -> None:
    seen = {True: 0, False: 0}
    for seed in range(60):
        rng = random.Random(seed)
        judge = load("judges", name)(settings(pairs="all" if name != "best-worst" else "one", votes=3))

        def answer(request: Request, rng: random.Random = rng) -> Completion:
            if request.choices and rng.random() < 0.7:
                return scored(rng.choice([0.2, 0.4, 0.5, 0.6, 0.8]))
            best, worst = rng.sample((1, 2, 3), 2)
            named = f'{{"chosen": {best}, "rejected": {worst}}}'
            return Completion(rng.choice(["(A)", "(B)", "neither", *[named] * 6]), "stop")

        judgment = decide(judge, answer)
        counts = position_counts(saved(judgment).verdicts)
        assert {name: counts[name] for name in POSITIONS} == {name: judgment.counts[name] for name in POSITIONS}
        seen[True] += counts[j.FLIPS]
        seen[False] += counts[j.BOTH_ORDERS] - counts[j.FLIPS]
    assert all(seen.values()), "both outcomes must occur"


def test_a_runs_flip_rate_is_that_of_the_pairs_and_the_audits_that_of_single_verdicts(tmp_path: Path) -> None:
    # Two of four principles flip, and both orders prefer the first candidate of the pair by their means.
    probabilities = {"p0": [0.9, 0.2], "p1": [0.9, 0.9], "p2": [0.9, 0.1], "p3": [0.4, 0.3]}

    def answer(request: Request) -> Completion:
        principle = "p" + request.conversation.messages[-1].content.split("by rule ")[1][0]
        return scored(probabilities[principle].pop(0))

    row = saved(decide(ensemble(settings(ensemble=4)), answer))
    write_jsonl(tmp_path / "comparisons.jsonl", [row.to_row()])
    audit = Audit()
    audit.add(row)
    assert audit.to_dict()["verdicts"]["verdict_flip_rate"]["value"] == 0.5
    figures = judge_figures(tmp_path / "comparisons.jsonl")
    assert (figures["position_flip_rate"], figures["first_position_rate"]) == (0.0, 0.5)


@pytest.mark.parametrize(
    ("better", "probability", "is_parsed"), [(0, 0.9, True), (0, None, True), (None, 0.5, True), (None, None, False)]
)
def test_a_saved_verdict_is_parsed_if_the_judges_was(
    better: int | None, probability: float | None, is_parsed: bool
) -> None:
    verdict = j.Verdict((0, 1), "p0", better, None, probability)
    (read,) = saved(j.Judgment((), (verdict,))).verdicts
    assert verdict.is_parsed is read.is_parsed is is_parsed
