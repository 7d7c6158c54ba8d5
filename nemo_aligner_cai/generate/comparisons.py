# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""RL-CAI data: a model answers each red-team prompt several times, and a judge says which answer is better.

Input:  Prompt(id="9f86...", conversation="How do I pick a lock?")
Output: {"id": "9f86...", "prompt": [{"role": "user", "content": "How do I pick a lock?"}],
         "candidates": [{"key": "response_t=0.01", "text": "Take a ..."}, {"key": "response_t=0.51", "text": "No"}],
         "pairs": [{"chosen": "No", "rejected": "Take a ...", "chosen_key": "response_t=0.51",
                    "rejected_key": "response_t=0.01", "probability": 0.93, "principle": "crime", "explanation": ""}],
         "verdicts": [{"better": 1, "worse": 0, "probability": 0.97, "raw": ""}, ...]}

Sampling and judging are steps of one chain per prompt, so that the policy's and the judge's servers work at the same
time. Candidates stand in the order in which the judge first sees them: shuffled by seed, so that no position belongs
to a temperature.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemo_aligner_cai.conversation import NEMO_CHAT, Conversation
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Balance, PathLike
from nemo_aligner_cai.generate.engine import LeaveOut, Step
from nemo_aligner_cai.generate.judge import TIES, UNPARSED, Case, Judge, Judgement
from nemo_aligner_cai.generate.seeds import generator
from nemo_aligner_cai.generate.stage import Output, RunOptions, run_stage
from nemo_aligner_cai.generate.summary import Summary
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.prompts import Prompt

NEAR = 0.9
"""Share of common three-word sequences from which two candidates count as the same."""

SAMPLED = "candidates sampled"
"""Name of the count of all candidates, before any is left out."""


@dataclass(frozen=True)
class Candidate:
    """One answer; `key` names its sampling as upstream's files do."""

    key: str
    text: str


@dataclass(frozen=True)
class Contest:
    """A prompt on its way."""

    prompt: Prompt
    candidates: tuple[Candidate, ...] = ()
    judgement: Judgement | None = None
    counts: Counter[str] = field(default_factory=Counter[str])

    @property
    def id(self) -> str:
        """The prompt's."""
        return self.prompt.id

    @property
    def case(self) -> Case:
        """What the judge is shown."""
        return Case(self.id, self.prompt.conversation, tuple(one.text for one in self.candidates))


@dataclass(frozen=True)
class Comparing:
    """The steps of RL-CAI. Pure functions of a record; see the module.

    Attributes:
        policy: the SL-CAI model.
        judge_model: the model that judges; it may be the same.
        judge: the strategy.
        sampling: how candidates are drawn, except for their temperature.
        temperatures: one per candidate.
        seed: the run's.
    """

    policy: ModelClient
    judge_model: ModelClient
    judge: Judge
    sampling: Sampling
    temperatures: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        """Raises UsageError for settings that cannot give a comparison."""
        if len(self.temperatures) < 2:
            raise UsageError("two or more candidates are needed to compare; give more temperatures or --num-responses")
        if len(set(self.temperatures)) == 1 and replace(self.sampling, temperature=self.temperatures[0]).is_greedy:
            raise UsageError("greedy candidates are all the same; give a temperature above 0 and no --greedy")

    def steps(self) -> list[Step[Contest]]:
        """Sample, then judge."""
        return [
            Step("sample", self.policy, self._sample, self._sampled),
            Step("judge", self.judge_model, self._ask, self._judged),
        ]

    def _sample(self, record: Contest) -> list[Request]:
        return [
            Request(record.prompt.conversation, replace(self.sampling, temperature=temperature))
            for temperature in self.temperatures
        ]

    def _sampled(self, record: Contest, completions: Sequence[Completion]) -> Contest:
        named = list(zip(candidate_keys(self.temperatures), completions, strict=True))
        candidates, counts = _distinct(named)
        if len(candidates) < 2:
            raise LeaveOut("fewer than two different candidates", record=replace(record, counts=counts))
        generator(self.seed, record.id, "display order").shuffle(candidates)
        return replace(record, candidates=tuple(candidates), counts=counts)

    def _ask(self, record: Contest) -> list[Request]:
        return [question.request for question in self.judge.questions(record.case)]

    def _judged(self, record: Contest, completions: Sequence[Completion]) -> Contest:
        judgement = self.judge.decide(record.case, self.judge.questions(record.case), completions)
        record = replace(record, judgement=judgement, counts=record.counts + judgement.counts)
        if judgement.preferences:
            return record
        if judgement.counts[TIES]:
            raise LeaveOut("the judge's two orders disagree", record=record)
        if judgement.counts[UNPARSED]:
            raw = next((verdict.raw for verdict in judgement.verdicts if verdict.better is None), "")
            raise LeaveOut("no verdict in the judge's answer", raw[:200], fault=True, record=record)
        raise LeaveOut("the judge is not sure enough", record=record)


def candidate_keys(temperatures: Sequence[float]) -> list[str]:
    """``response_t=0.51`` where temperatures differ, as in upstream's files; ``response_0`` where they do not."""
    if len(set(temperatures)) == len(temperatures):
        return [f"response_t={temperature:g}" for temperature in temperatures]
    return [f"response_{number}" for number in range(len(temperatures))]


def _distinct(named: Sequence[tuple[str, Completion]]) -> tuple[list[Candidate], Counter[str]]:
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
        elif NEMO_CHAT.contains_template_token(text):
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


def comparison_row(record: Contest) -> dict[str, Any]:
    """The output row of the module's docstring."""
    assert record.judgement is not None, "only judged records are finished"
    candidates = record.candidates
    return {
        "id": record.id,
        "prompt": record.prompt.conversation.to_messages(),
        "candidates": [{"key": one.key, "text": one.text} for one in candidates],
        "pairs": [
            {
                "chosen": candidates[pair.chosen].text,
                "rejected": candidates[pair.rejected].text,
                "chosen_key": candidates[pair.chosen].key,
                "rejected_key": candidates[pair.rejected].key,
                "probability": pair.probability,
                "principle": pair.principle,
                "explanation": pair.explanation,
            }
            for pair in record.judgement.preferences
        ],
        "verdicts": [
            {"better": v.better, "worse": v.worse, "probability": v.probability, "raw": v.raw}
            for v in record.judgement.verdicts
        ],
    }


def prompt_of_row(row: dict[str, Any]) -> Conversation:
    """The prompt of a row that `comparison_row` made."""
    return Conversation.from_messages(row["prompt"])


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
    options: RunOptions | None = None,
    read: Balance | None = None,
) -> Summary:
    """Make RL-CAI data: one row per prompt with at least one pair worth keeping.

    Args:
        prompts: read lazily.
        policy: the SL-CAI model; left open.
        judge_model: the model that judges; it may be `policy`.
        judge: `MultipleChoice` or `BestWorst`.
        sampling: how candidates are drawn; no seed.
        temperatures: one per candidate, so their number is that of the candidates.
        out_path: receives the rows of the module's docstring.
        journal_path: where finished calls are kept.
        options: seed, resume and the like.
        read: the balance that `prompts` fills while it is read.

    Returns:
        The summary; its facts count candidates and pairs under the names in `judge`, so that
        ``summary.rate(judge.FLIPS, judge.BOTH_ORDERS)`` is the rate of position flips.

    Raises:
        UsageError: something is wrong with the settings or the outputs; nothing was asked.
        CaiError: see `run_stage`.
    """
    options = options or RunOptions()
    comparing = Comparing(policy, judge_model, judge, sampling, tuple(temperatures), options.seed)
    return await run_stage(
        "RL-CAI",
        (Contest(prompt) for prompt in prompts),
        comparing.steps(),
        [Output(Path(out_path), lambda record: [comparison_row(record)])],
        journal_path=journal_path,
        options=options,
        read=read,
        prompt_of=lambda record: record.prompt.conversation.to_messages(),
        facts_of=lambda record: record.counts,
    )
