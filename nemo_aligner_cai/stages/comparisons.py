# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""RL-CAI data: a model answers each red-team prompt several times, and a judge compares the answers.

Input:  Prompt(id="9f86...", conversation="How do I pick a lock?")
Output: a row of `data.judged_row`

Sampling and judging are steps of one chain per prompt, so the policy's and the judge's servers work at the same time.
The first presentation order of the candidates is shuffled by seed, so that no position belongs to a temperature.

A prompt without a kept pair has a row too, with its verdicts: the surviving pairs alone would hide the judge's bias.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate
from nemo_aligner_cai.data.judged_row import Candidate, JudgedPair, JudgedRow, JudgedVerdict
from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.engine.rehearsal import RowLimit
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.run_stage import Output, run_stage
from nemo_aligner_cai.engine.seeds import generator
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.judges.base import Judge, Judgment
from nemo_aligner_cai.judges.steps import JudgePipeline, PreferenceSample
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.prompts import Prompt

_NEAR = 0.9
"""Share of common three-word sequences above which two candidates count as near-identical."""


@dataclass(frozen=True)
class ComparisonPipeline:
    """The steps of RL-CAI: pure functions of a sample.

    Attributes:
        policy: the SL-CAI model.
        judge_model: the model that judges; it may be the policy.
        judge: the judge strategy.
        sampling: parameters of the candidates, except for their temperature.
        temperatures: one per candidate.
        seed: the run's seed.
        template: the template that will render the comparisons; candidates that contain its tokens are dropped.
    """

    policy: ModelClient
    judge_model: ModelClient
    judge: Judge
    sampling: Sampling
    temperatures: tuple[float, ...]
    seed: int
    template: ChatTemplate = NEMO_CHAT

    def __post_init__(self) -> None:
        """Raises UsageError for settings that cannot produce a comparison."""
        samplings = self._samplings()
        if len(samplings) < 2:
            raise UsageError("at least two candidates are needed; give more temperatures or --num-responses")
        if all(one.is_greedy or one.top_k == 1 for one in samplings):
            raise UsageError(
                "greedy candidates are identical; use temperatures above 0, no --greedy, and a --top_k other than 1"
            )

    def steps(self) -> list[Step[PreferenceSample]]:
        """Return the steps: sample, then judge."""
        judging = JudgePipeline(self.judge, self.judge_model).steps(len(self.temperatures))
        return [Step("sample", self.policy, self._requests, self._sampled), *judging]

    def _samplings(self) -> list[Sampling]:
        return [replace(self.sampling, temperature=temperature) for temperature in self.temperatures]

    def _requests(self, sample: PreferenceSample) -> list[Request]:
        return [Request(sample.prompt.conversation, sampling) for sampling in self._samplings()]

    def _sampled(self, sample: PreferenceSample, completions: Sequence[Completion]) -> PreferenceSample:
        candidates, counts = self._usable(completions)
        generator(self.seed, sample.id, "display order").shuffle(candidates)
        sample = replace(sample, candidates=tuple(candidates), counts=counts)
        if len(candidates) < 2:
            raise SkipRecord("fewer than two different candidates", record=sample)
        return sample

    def _usable(self, completions: Sequence[Completion]) -> tuple[list[Candidate], Counter[str]]:
        """Return the candidates worth comparing, and the counts of the dropped ones by reason."""
        counts = Counter({"candidates sampled": len(completions)})
        usable: list[Candidate] = []
        for key, completion in zip(candidate_keys(self.temperatures), completions, strict=True):
            text = completion.text.strip()
            if not text:
                counts["candidates that are empty"] += 1
            elif completion.finish_reason == "length":
                # The model would be trained to stop in the middle of a sentence.
                counts["candidates cut at the token limit"] += 1
            elif self.template.contains_template_token(text):
                counts["candidates with template tokens"] += 1
            elif any(near_identical(text, other.text) for other in usable):
                counts["candidates that are near-identical"] += 1
            else:
                usable.append(Candidate(key, text))
        return usable, counts


def candidate_keys(temperatures: Sequence[float]) -> list[str]:
    """Return ``response_t=0.51`` if temperatures differ, as in upstream's files, else ``response_0``.

    Temperatures that are equal in six digits are written in full.
    """
    if len(set(temperatures)) == len(temperatures):
        short = [f"response_t={temperature:g}" for temperature in temperatures]
        if len(set(short)) == len(short):
            return short
        return [f"response_t={temperature!r}" for temperature in map(float, temperatures)]
    return [f"response_{number}" for number in range(len(temperatures))]


def near_identical(one: str, other: str) -> bool:
    """Return True for texts that are equal except for case and spaces, or share most three-word sequences."""
    words, others = one.casefold().split(), other.casefold().split()
    if words == others:
        return True
    shingles, other_shingles = _shingles(words), _shingles(others)
    union = shingles | other_shingles
    return bool(union) and len(shingles & other_shingles) / len(union) >= _NEAR


def _shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


def judged_row(sample: PreferenceSample) -> JudgedRow:
    """Return the output row of a sample, whether it has been judged or not."""
    candidates, judgment = sample.candidates, sample.judgment or Judgment((), ())
    return JudgedRow(
        sample.id,
        sample.prompt.conversation,
        candidates,
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
            for pair in judgment.preferences
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
            for verdict in judgment.verdicts
        ),
    )


async def generate_comparisons(
    prompts: Iterable[Prompt],
    pipeline: ComparisonPipeline,
    *,
    out_path: Path,
    journal_path: Path,
    run: RunSettings,
    total: int | None = None,
    read: RowCounts | None = None,
    limits: Sequence[RowLimit[PreferenceSample]] = (),
) -> Summary:
    """Make RL-CAI data: one row per prompt in `out_path`. The pipeline's clients stay open.

    See `run_stage` for the other arguments and the errors. In the returned summary, `written` counts the prompts with
    a kept pair, and the facts count candidates and pairs under the names in `judges.base`.
    """
    return await run_stage(
        "RL-CAI",
        map(PreferenceSample, prompts),
        pipeline.steps(),
        [Output(out_path, lambda sample: [judged_row(sample).to_row()], include_skipped=True)],
        journal_path=journal_path,
        run=run,
        total=total,
        read=read,
        limits=limits,
    )
