# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Pairwise comparisons of models by a judge, in both presentation orders.

Input:  the graded replies of all models
Output: rows of `data.judged_row` with "set", "side" and "models" (model -> number of its candidate), and from them
        Match(model="rl_cai", opponent="sl_cai", win_rate=...) and Bradley-Terry ratings

Equal replies are one candidate: they are ties and are not judged. Empty replies are judged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any, TypedDict

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.judged_row import Candidate, JudgedRow
from nemo_aligner_cai.evaluation.results import Figure, Match, Pairwise, Rating, Side
from nemo_aligner_cai.evaluation.statistics.bradley_terry import Strength, bradley_terry
from nemo_aligner_cai.evaluation.statistics.win_rates import PairResult, win_rates
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.judges.steps import PreferenceSample
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.comparisons import judged_row

WIN, TIE, LOSS = 1.0, 0.5, 0.0
Group = tuple[str, Side]
"""A set and a side."""


@dataclass(frozen=True)
class ModelReplies(PreferenceSample):
    """The replies of several models to one prompt.

    Attributes:
        group: the set and side of the prompt.
        models: model -> number of its candidate.
    """

    group: Group = ("", "harmful")
    models: Mapping[str, int] = field(default_factory=dict[str, int])

    def to_row(self) -> dict[str, Any]:
        """Return the row of the comparisons file."""
        set_name, side = self.group
        return {**judged_row(self).to_row(), "set": set_name, "side": side, "models": dict(self.models)}


def model_replies(rows: Iterable[Row]) -> list[ModelReplies]:
    """Return one sample for each prompt to which at least two models have replied, in the order of the rows.

    With several replies of a model to one prompt, the first one is compared.
    """
    by_prompt: dict[tuple[str, Side, str], tuple[Row, dict[str, str]]] = {}
    for row in rows:
        if row["reply"] is not None:
            _, replies = by_prompt.setdefault((row["set"], row["side"], row["id"]), (row, {}))
            replies.setdefault(row["model"], row["reply"])
    return [_sample(key, row, replies) for key, (row, replies) in by_prompt.items() if len(replies) > 1]


def _sample(key: tuple[str, Side, str], row: Row, replies: Mapping[str, str]) -> ModelReplies:
    set_name, side, prompt_id = key
    texts = list(dict.fromkeys(replies.values()))
    first_models = {text: model for model, text in reversed(list(replies.items()))}
    return ModelReplies(
        Prompt(f"{set_name}/{prompt_id}", Conversation.from_messages(row["messages"])),
        tuple(Candidate(first_models[text], text) for text in texts),
        group=(set_name, side),
        models={model: texts.index(text) for model, text in replies.items()},
    )


@dataclass
class _Tally:
    """The outcomes of two models."""

    wins: int = 0
    ties: int = 0
    losses: int = 0
    unscored: int = 0
    flips: int = 0


def pairwise_results(
    rows: Iterable[Row], models: Sequence[str], *, judge: str, judge_model: Mapping[str, Any], baseline: str | None
) -> tuple[Pairwise, ...]:
    """Return the figures of each group from the rows of the comparisons file.

    Args:
        rows: the rows.
        models: the models in order.
        judge: the name of the strategy.
        judge_model: the identity of the judge model.
        baseline: the model with the rating 0.
    """
    tallies: dict[Group, dict[tuple[str, str], _Tally]] = {}
    results: dict[Group, list[PairResult]] = {}
    for row in rows:
        group: Group = (row["set"], row["side"])
        by_pair = tallies.setdefault(group, {pair: _Tally() for pair in permutations(models, 2)})
        found = results.setdefault(group, [])
        for (first, second), score in _scores(row, models, by_pair):
            found.append(PairResult(row["id"], first, second, score))
    return tuple(
        Pairwise(
            set=group[0],
            side=group[1],
            judge=judge,
            judge_model=dict(judge_model),
            matches=tuple(_matches(by_pair, results[group])),
            **_ratings(results[group], models, baseline),
        )
        for group, by_pair in tallies.items()
    )


def _scores(
    row: Row, models: Sequence[str], tallies: Mapping[tuple[str, str], _Tally]
) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield the score of the first model of each pair with an outcome, and count all outcomes."""
    judged, numbers = JudgedRow.from_row(row), row["models"]
    for first, second in combinations([model for model in models if model in numbers], 2):
        score, is_flip = outcome(judged, numbers[first], numbers[second])
        for pair, of_pair in (((first, second), score), ((second, first), None if score is None else 1 - score)):
            tally = tallies[pair]
            tally.flips += is_flip
            tally.unscored += of_pair is None
            tally.wins += of_pair == WIN
            tally.ties += of_pair == TIE
            tally.losses += of_pair == LOSS
        if score is not None:
            yield (first, second), score


def outcome(row: JudgedRow, first: int, second: int) -> tuple[float | None, bool]:
    """Return the score of candidate `first` against `second`, and if the two orders prefer different ones.

    A kept preference is a win. Any other pair whose verdicts were all parsed is a tie: the orders disagree, or the
    judge sees no difference. A pair with an unparsed verdict has no score.
    """
    if first == second:
        return TIE, False
    verdicts = [verdict for verdict in row.verdicts if set(verdict.shown) == {first, second}]
    orders = {verdict.shown: verdict.better for verdict in verdicts if verdict.better is not None}
    is_flip = len(set(orders.values())) > 1
    if not verdicts or not all(verdict.is_parsed for verdict in verdicts):
        return None, is_flip
    kept = [pair for pair in row.kept() if set(pair) == {first, second}]
    return (TIE if not kept else WIN if kept[0][0] == first else LOSS), is_flip


def _matches(tallies: Mapping[tuple[str, str], _Tally], results: Sequence[PairResult]) -> Iterator[Match]:
    rates = win_rates(results)
    for (model, opponent), tally in tallies.items():
        rate = rates.get((model, opponent))
        figure = Figure.of(rate) if rate else None
        yield Match(model=model, opponent=opponent, win_rate=figure, **vars(tally))


class _Ratings(TypedDict):
    ratings: tuple[Rating, ...]
    zero: str | None


def _ratings(results: Sequence[PairResult], models: Sequence[str], baseline: str | None) -> _Ratings:
    if not results:
        return {"ratings": (), "zero": None}
    compared = {name for result in results for name in (result.first, result.second)}
    found = bradley_terry(results, baseline=baseline if baseline in compared else None)
    strengths = {model: found.strengths.get(model, Strength(None, None, None)) for model in models}
    return {"ratings": tuple(_rating(*one) for one in strengths.items()), "zero": found.zero}


def _rating(model: str, strength: Strength) -> Rating:
    is_lower = strength.value is None and strength.low is not None
    is_upper = strength.value is None and strength.high is not None
    return Rating(
        model=model,
        rating=strength.value,
        low=strength.low,
        high=strength.high,
        bound="lower" if is_lower else "upper" if is_upper else None,
    )
