# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a judge strategy can be told. A strategy takes what it needs and refuses what it cannot work with."""

from dataclasses import dataclass, field

from nemo_aligner_cai.constitution import Constitution
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.few_shot import FewShots
from nemo_aligner_cai.judges.pairs import Pairs


@dataclass(frozen=True)
class JudgeSettings:
    """The settings of a run's judge, with the defaults of the command line.

    Attributes:
        constitution: the principles; None where a text stands for all of them, see `system`.
        wording: how questions are put.
        seed: the run's.
        system: the system message of a best-and-worst judge; None makes one of the constitution.
        pairs: which candidates are compared, see `pairs.py`.
        both_orders: ask twice, the second time in reverse order, and keep what both orders agree on.
        margin: least distance of the probabilities of the two candidates, ``|2 p - 1|``, for a pair to be kept.
        logprobs: ask for log-probabilities; False goes straight to votes, for servers that are known to have none.
        votes: answers sampled for each question where there are no log-probabilities.
        structured: make the server write an answer that fits a JSON schema.
        shots: examples that are shown before each question.
        clamp: the interval that chain-of-thought probabilities are brought into.
        max_tokens: length of an explanation or a reasoning.
        ensemble: principles for each pair, of an ensemble.
        ensemble_of: the strategy that asks about each of them.
    """

    constitution: Constitution | None
    wording: PromptTemplates = field(default_factory=PromptTemplates)
    seed: int = 1234
    system: str | None = None
    pairs: Pairs = "best-worst"
    both_orders: bool = True
    margin: float = 0.0
    logprobs: bool = True
    votes: int = 5
    structured: bool = False
    shots: FewShots = field(default_factory=FewShots)
    clamp: tuple[float, float] = (0.4, 0.6)
    max_tokens: int = 1024
    ensemble: int = 4
    ensemble_of: str = "multiple-choice"

    def __post_init__(self) -> None:
        """Raises UsageError for settings that cannot work with any strategy."""
        low, high = self.clamp
        limits = (
            (0.0 <= self.margin < 1.0, f"the margin must be in [0, 1), it is {self.margin:g}"),
            (self.votes >= 1, f"at least one vote is needed, not {self.votes}"),
            (0.0 <= low < 0.5 < high <= 1.0, f"the interval must go over 0.5, it is {low:g} to {high:g}"),
            (self.max_tokens >= 1, f"the judge needs at least one token, not {self.max_tokens}"),
            (self.ensemble >= 2, f"an ensemble needs two or more principles, not {self.ensemble}"),
        )
        for holds, message in limits:
            if not holds:
                raise UsageError(f"judge: {message}")

    @property
    def principles(self) -> Constitution:
        """The constitution, for a strategy that asks about single principles.

        Raises:
            UsageError: there is none, or none of its principles can judge.
        """
        if self.constitution is None:
            raise UsageError("this judge needs a constitution with principles (.yaml or .json), not a text")
        if not self.constitution.for_judging:
            raise UsageError(f"the constitution {self.constitution.name!r} has no judge requests")
        return self.constitution
