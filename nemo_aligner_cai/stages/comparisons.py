# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""RL-CAI data: a model answers each red-team prompt several times, and a judge says which answer is better.

Input:  Prompt(id="9f86...", conversation="How do I pick a lock?")
Output: {"id": "9f86...", "prompt": [{"role": "user", "content": "How do I pick a lock?"}],
         "candidates": [{"key": "response_t=0.01", "text": "Take a ..."}, {"key": "response_t=0.51", "text": "No"}],
         "pairs": [{"chosen": "No", "rejected": "Take a ...", "chosen_key": "response_t=0.51",
                    "rejected_key": "response_t=0.01", "probability": 0.93, "principle": "crime", "explanation": ""}],
         "verdicts": [{"shown": [0, 1], "principle": "crime", "better": 1, "worse": 0, "probability": 0.03, "raw": ""},
                      ...]}

Sampling and judging are steps of one chain per prompt, so that the policy's and the judge's servers work at the same
time. Candidates stand in the order in which the judge first sees them: shuffled by seed, so that no position belongs
to a temperature. `probability` is the judge's that the first shown one is better, in a pair that the chosen one is.

A prompt of which no pair is kept has a row too, with its verdicts and no pairs: what a judge did is not to be known
from the pairs that survived it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate
from nemo_aligner_cai.data.judged_row import JudgedCandidate, JudgedPair, JudgedRow, JudgedVerdict
from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.engine.seeds import generator
from nemo_aligner_cai.engine.stage import Output, RunOptions, run_stage
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts
from nemo_aligner_cai.judges.base import Judge, Judgement
from nemo_aligner_cai.judges.preference_sample import Candidate, Judging, PreferenceSample
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.prompts import Prompt

NEAR = 0.9
"""Share of common three-word sequences from which two candidates count as the same."""

SAMPLED = "candidates sampled"
"""Name of the count of all candidates, before any is left out."""


@dataclass(frozen=True)
class ComparisonPipeline:
    """The steps of RL-CAI. Pure functions of a record; see the module.

    Attributes:
        policy: the SL-CAI model.
        judge_model: the model that judges; it may be the same.
        judge: the strategy.
        sampling: how candidates are drawn, except for their temperature.
        temperatures: one per candidate.
        seed: the run's.
        template: the comparisons will be rendered with it, so no candidate may hold its tokens.
    """

    policy: ModelClient
    judge_model: ModelClient
    judge: Judge
    sampling: Sampling
    temperatures: tuple[float, ...]
    seed: int
    template: ChatTemplate = NEMO_CHAT

    def __post_init__(self) -> None:
        """Raises UsageError for settings that cannot give a comparison."""
        for temperature in self.temperatures:
            replace(self.sampling, temperature=temperature)
        if len(self.temperatures) < 2:
            raise UsageError("two or more candidates are needed to compare; give more temperatures or --num-responses")
        if len(set(self.temperatures)) == 1 and replace(self.sampling, temperature=self.temperatures[0]).is_greedy:
            raise UsageError("greedy candidates are all the same; give a temperature above 0 and no --greedy")

    def steps(self) -> list[Step[PreferenceSample]]:
        """Sample, then judge."""
        judging = Judging(self.judge, self.judge_model)
        return [Step("sample", self.policy, self._sample, self._sampled), *judging.steps(len(self.temperatures))]

    def _sample(self, record: PreferenceSample) -> list[Request]:
        return [
            Request(record.prompt.conversation, replace(self.sampling, temperature=temperature))
            for temperature in self.temperatures
        ]

    def _sampled(self, record: PreferenceSample, completions: Sequence[Completion]) -> PreferenceSample:
        named = list(zip(candidate_keys(self.temperatures), completions, strict=True))
        candidates, counts = _distinct(named, self.template)
        generator(self.seed, record.id, "display order").shuffle(candidates)
        record = replace(record, candidates=tuple(candidates), counts=counts)
        if len(candidates) < 2:
            raise SkipRecord("fewer than two different candidates", record=record)
        return record


def candidate_keys(temperatures: Sequence[float]) -> list[str]:
    """``response_t=0.51`` where temperatures differ, as in upstream's files; ``response_0`` where they do not.

    Temperatures that are equal in six digits are written in full.
    """
    if len(set(temperatures)) == len(temperatures):
        short = [f"response_t={temperature:g}" for temperature in temperatures]
        if len(set(short)) == len(short):
            return short
        return [f"response_t={temperature!r}" for temperature in map(float, temperatures)]
    return [f"response_{number}" for number in range(len(temperatures))]


def _distinct(named: Sequence[tuple[str, Completion]], template: ChatTemplate) -> tuple[list[Candidate], Counter[str]]:
    """Candidates worth comparing, and how many were left out for what."""
    counts = Counter({SAMPLED: len(named)})
    kept: list[Candidate] = []
    for key, completion in named:
        text = completion.text.strip()
        if not text:
            counts["candidates that are empty"] += 1
        elif completion.finish_reason == "length":
            # Cut off: it would be trained on as if it ended there.
            counts["candidates cut at the token limit"] += 1
        elif template.contains_template_token(text):
            counts["candidates with template tokens"] += 1
        elif any(near_identical(text, other.text) for other in kept):
            counts["candidates that are near-identical"] += 1
        else:
            kept.append(Candidate(key, text))
    return kept, counts


def near_identical(one: str, other: str) -> bool:
    """Whether two answers say the same: equal but for case and spaces, or `NEAR` alike in three-word sequences."""
    words, others = one.casefold().split(), other.casefold().split()
    if words == others:
        return True
    shingles, other_shingles = _shingles(words), _shingles(others)
    union = shingles | other_shingles
    return bool(union) and len(shingles & other_shingles) / len(union) >= NEAR


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


def judged_row(record: PreferenceSample) -> JudgedRow:
    """The output row of the module's docstring, of a record as far as it came."""
    candidates, judgement = record.candidates, record.judgement or Judgement((), ())
    return JudgedRow(
        record.id,
        record.prompt.conversation,
        tuple(JudgedCandidate(one.key, one.text) for one in candidates),
        tuple(
            JudgedPair(
                candidates[pair.chosen].text,
                candidates[pair.rejected].text,
                candidates[pair.chosen].key,
                candidates[pair.rejected].key,
                pair.probability,
                pair.principle,
                pair.explanation,
            )
            for pair in judgement.preferences
        ),
        tuple(
            JudgedVerdict(
                verdict.shown,
                verdict.principle,
                verdict.better,
                verdict.worse,
                None if verdict.probability is None else float(verdict.probability),
                verdict.raw,
            )
            for verdict in judgement.verdicts
        ),
    )


def _rows(record: PreferenceSample) -> list[Row]:
    return [judged_row(record).to_row()]


async def generate_comparisons(
    prompts: Iterable[Prompt],
    policy: ModelClient,
    judge_model: ModelClient,
    judge: Judge,
    *,
    sampling: Sampling,
    temperatures: Sequence[float],
    out_path: PathLike,
    journal_path: PathLike,
    template: ChatTemplate = NEMO_CHAT,
    options: RunOptions | None = None,
    read: RowCounts | None = None,
) -> Summary:
    """Make RL-CAI data: one row per prompt; written counts those with at least one pair worth keeping.

    Args:
        prompts: read lazily.
        policy: the SL-CAI model; left open.
        judge_model: the model that judges; it may be `policy`.
        judge: the strategy.
        sampling: how candidates are drawn; no seed.
        temperatures: one per candidate, so their number is that of the candidates.
        out_path: receives the rows of the module's docstring.
        journal_path: where finished calls are kept.
        template: the comparisons will be rendered with it.
        options: seed, resume and the like.
        read: the counts that `prompts` fills while it is read.

    Returns:
        The summary; its facts count candidates and pairs under the names in `judge`, so that
        ``judge.position_rates(summary.facts)`` says how much the order of the candidates mattered.

    Raises:
        UsageError: something is wrong with the settings or the outputs; nothing was asked.
        CaiError: see `run_stage`.
    """
    options = options or RunOptions()
    comparing = ComparisonPipeline(policy, judge_model, judge, sampling, tuple(temperatures), options.seed, template)
    return await run_stage(
        "RL-CAI",
        (PreferenceSample(prompt) for prompt in prompts),
        comparing.steps(),
        [Output(Path(out_path), _rows, skipped_rows=_rows)],
        journal_path=journal_path,
        options=options,
        read=read,
        prompt_of=lambda record: record.prompt.conversation.to_messages(),
        facts_of=lambda record: record.counts,
    )
