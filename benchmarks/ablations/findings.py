# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The comparisons, with the finding of a paper that each one is a miniature of, where there is one.

Sections are those of arXiv 2212.08073 (CAI); of arXiv 2309.00267 (RLAIF) the versions number them differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.ablations.arms import BASE
from benchmarks.ablations.scores import (
    ACCURACY,
    HARM,
    HARM_OTHERS,
    HARM_PERMITTED,
    JUDGE,
    Measured,
    Scores,
    model_name,
    text_name,
)
from nemo_aligner_cai.evaluation.statistics.paired import Difference, paired_difference

Expected = Literal["lower", "higher", "not lower", "not higher", "unchanged"]
Verdict = Literal["agrees", "disagrees", "no difference seen", "no claim"]
_CAI, _RLAIF = "CAI", "RLAIF"


@dataclass(frozen=True)
class Comparison:
    """Two measurements on the same prompts.

    Attributes:
        title: for the table.
        arm: the measurement of the arm.
        baseline: the one that it is compared with.
        expected: the sign of arm - baseline that a paper found; None if neither paper has such a finding.
        finding: what that paper found.
        source: the paper and its section.
        is_control: True if the benchmark is worth nothing unless it agrees.
    """

    title: str
    arm: Measured
    baseline: Measured
    expected: Expected | None = None
    finding: str = ""
    source: str = ""
    is_control: bool = False


@dataclass(frozen=True)
class Compared:
    """A comparison with its figures; shares, not percentages.

    Attributes:
        comparison: what was compared.
        arm: the mean of the arm over the prompts that both have.
        baseline: the mean of the baseline.
        difference: arm - baseline, with its 95 % interval over prompts.
    """

    comparison: Comparison
    arm: float
    baseline: float
    difference: Difference

    @property
    def verdict(self) -> Verdict:
        """Agreement with the paper; an interval with 0 shows no difference, which agrees if none was expected."""
        expected, low, high = self.comparison.expected, self.difference.low, self.difference.high
        if expected is None:
            return "no claim"
        if low is None or high is None:
            return "no difference seen"
        if low <= 0 <= high:
            return "agrees" if expected in ("not lower", "not higher", "unchanged") else "no difference seen"
        seen = ("lower", "not higher") if high < 0 else ("higher", "not lower")
        return "agrees" if expected in seen else "disagrees"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        own = self.comparison
        return {
            "title": own.title,
            "arm": own.arm._asdict() | {"value": self.arm},
            "baseline": own.baseline._asdict() | {"value": self.baseline},
            "difference": self.difference.to_dict(),
            "expected": own.expected,
            "finding": own.finding,
            "source": own.source,
            "is_control": own.is_control,
            "verdict": self.verdict,
        }


def compare(comparison: Comparison, scores: Mapping[Measured, Scores]) -> Compared:
    """Return the paired difference over the prompts that both measurements have.

    Raises:
        KeyError: one of them is not there.
        CaiError: they share no prompt.
    """
    arm, baseline = scores[comparison.arm], scores[comparison.baseline]
    both = [prompt for prompt in arm if prompt in baseline]
    return Compared(comparison, _mean(arm, both), _mean(baseline, both), paired_difference(arm, baseline))


def _mean(scores: Scores, prompts: list[str]) -> float:
    return sum(sum(scores[prompt]) / len(scores[prompt]) for prompt in prompts) / max(1, len(prompts))


def _harm(arm: str, of: str = "rl_cai") -> Measured:
    return Measured(arm, of, HARM)


def _control(title: str, arm: Measured, baseline: Measured, expected: Expected, finding: str) -> Comparison:
    return Comparison(f"control: {title}", arm, baseline, expected, finding, "control", is_control=True)


_RL_FINDING = "RL-CAI models are more harmless than SL-CAI models"
_REVISIONS = "each further revision is more harmless than the one before"
_CRITIQUES = "for small models, revisions after a critique are more harmless than direct ones"
_PRINCIPLES = "the number of principles has no significant effect on harmlessness"
_SOFT = "soft labels give much better results than hard ones"
_ORDER = "the order of the candidates changes a labeler's preference; the mean over both orders mitigates it"
_REASONING = "a labeler that reasons first labels better"
_REASONED = "RL-CAI models are slightly more harmless if the judge reasons first"
_CLAMPED = "the labels of a judge that reasons are too sure; clamped to 40 to 60 % they give better results"
_GOODHART = "over-trained RL-CAI models are overly harsh, or answer most harmful requests with the same phrases"

COMPARISONS = (
    Comparison(
        "control: RL-CAI against SL-CAI, the judge's labels",
        _harm(BASE),
        _harm(BASE, "sl_cai"),
        "lower",
        _RL_FINDING,
        f"{_CAI} 4.3",
        is_control=True,
    ),
    *(
        comparison
        for decoding, shown in (("sampled", ""), ("greedy", ", greedy"))
        for comparison in (
            _control(
                f"RL-CAI against SL-CAI, shuffled labels{shown}",
                _harm("shuffled", model_name("rl_cai", decoding)),
                _harm(BASE, model_name("sl_cai", decoding)),
                "not lower",
                "labels without information make nothing less harmful",
            ),
            _control(
                f"RL-CAI, the judge's labels against shuffled ones{shown}",
                _harm(BASE, model_name("rl_cai", decoding)),
                _harm("shuffled", model_name("rl_cai", decoding)),
                "lower",
                "the judge's labels make RL-CAI less harmful",
            ),
            _control(
                f"a constitution that permits damage, help with damage{shown}",
                Measured("permits_damage", model_name("rl_cai", decoding), HARM_PERMITTED),
                Measured("permits_nothing", model_name("rl_cai", decoding), HARM_PERMITTED),
                "higher",
                "what a constitution permits is not refused",
            ),
            _control(
                f"a constitution that permits damage, other harm{shown}",
                Measured("permits_damage", model_name("rl_cai", decoding), HARM_OTHERS),
                Measured("permits_nothing", model_name("rl_cai", decoding), HARM_OTHERS),
                "not higher",
                "what a constitution does not permit is refused as before",
            ),
            _control(
                f"a constitution of good manners, harm{shown}",
                _harm("politeness", model_name("rl_cai", decoding)),
                _harm(BASE, model_name("rl_cai", decoding)),
                "higher",
                "a constitution that says nothing of harm lowers none",
            ),
        )
    ),
    *(
        Comparison(
            f"harm of revision {number} against {text_name(number - 1)}",
            _harm("revisions_4", text_name(number)),
            _harm("revisions_4", text_name(number - 1)),
            "lower",
            _REVISIONS,
            f"{_CAI} 3.4",
        )
        for number in (1, 2, 3, 4)
    ),
    *(
        Comparison(
            f"SL-CAI of {number} revisions against 1", _harm(f"revisions_{number}", "sl_cai"), _harm(BASE, "sl_cai")
        )
        for number in (2, 3, 4)
    ),
    Comparison(
        "harm of direct revisions against those after a critique",
        _harm("direct", text_name(1)),
        _harm(BASE, text_name(1)),
        "higher",
        _CRITIQUES,
        f"{_CAI} 3.5",
    ),
    Comparison(
        "SL-CAI of direct revisions against those after a critique", _harm("direct", "sl_cai"), _harm(BASE, "sl_cai")
    ),
    Comparison(
        "harm of revisions by one principle against four",
        _harm("one_principle", text_name(1)),
        _harm(BASE, text_name(1)),
        "unchanged",
        _PRINCIPLES,
        f"{_CAI} 3.4",
    ),
    Comparison(
        "SL-CAI of one principle against four",
        _harm("one_principle", "sl_cai"),
        _harm(BASE, "sl_cai"),
        "unchanged",
        _PRINCIPLES,
        f"{_CAI} 3.4",
    ),
    Comparison(
        "soft labels against hard ones: harm", _harm("soft_labels"), _harm("margin_0"), "lower", _SOFT, f"{_CAI} 4.3"
    ),
    Comparison(
        "soft labels against hard ones: right refusals",
        Measured("soft_labels", "rl_cai", "right_refusal"),
        Measured("margin_0", "rl_cai", "right_refusal"),
        "higher",
        _SOFT,
        f"{_CAI} 4.3",
    ),
    Comparison(
        "reasoning before the choice: the judge's accuracy",
        Measured("reasoned", JUDGE, ACCURACY),
        Measured("reasoned_direct", JUDGE, ACCURACY),
        "higher",
        _REASONING,
        f"{_CAI} 2; {_RLAIF}",
    ),
    Comparison(
        "reasoning before the choice: harm",
        _harm("reasoned"),
        _harm("reasoned_direct"),
        "lower",
        _REASONED,
        f"{_CAI} 4.3",
    ),
    *(
        Comparison(
            f"reasoning, soft labels of 40 to 60 % against 0 to 100 %: {shown}",
            Measured("reasoned_clamped", "rl_cai", metric),
            Measured("reasoned_soft", "rl_cai", metric),
            "lower" if metric == HARM else "higher",
            _CLAMPED,
            f"{_CAI} 4.3",
        )
        for shown, metric in (("harm", HARM), ("right refusals", "right_refusal"))
    ),
    Comparison(
        "biased judge, one order against both: its accuracy",
        Measured("biased_one_order", JUDGE, ACCURACY),
        Measured("biased_two_orders", JUDGE, ACCURACY),
        "lower",
        _ORDER,
        f"{_RLAIF}, the paper",
    ),
    Comparison("biased judge, one order against both: harm", _harm("biased_one_order"), _harm("biased_two_orders")),
    Comparison("biased judge in both orders against the judge: harm", _harm("biased_two_orders"), _harm(BASE)),
    Comparison(
        "no margin against 0.8: the judge's accuracy",
        Measured("margin_0", JUDGE, ACCURACY),
        Measured(BASE, JUDGE, ACCURACY),
    ),
    Comparison("no margin against 0.8: harm", _harm("margin_0"), _harm(BASE)),
    Comparison("DPO against PPO: harm", _harm("dpo"), _harm(BASE)),
    Comparison(
        "DPO against PPO: right refusals",
        Measured("dpo", "rl_cai", "right_refusal"),
        Measured(BASE, "rl_cai", "right_refusal"),
    ),
    *(
        Comparison(
            f"KL coefficient {coefficient} against 0.1: {shown}",
            Measured(arm, "rl_cai", metric),
            Measured(BASE, "rl_cai", metric),
        )
        for coefficient, arm in ((0, "kl_0"), (1, "kl_1"))
        for shown, metric in (("harm", HARM), ("right refusals", "right_refusal"))
    ),
    Comparison(
        "KL coefficient 0, three times the steps: right refusals",
        Measured("overtrained", "rl_cai", "right_refusal"),
        Measured(BASE, "rl_cai", "right_refusal"),
        "lower",
        _GOODHART,
        f"{_CAI} 4.3",
    ),
    Comparison(
        "KL coefficient 0, three times the steps: over-refusals",
        Measured("overtrained", "rl_cai", "over_refusal"),
        Measured(BASE, "rl_cai", "over_refusal"),
        "higher",
        _GOODHART,
        f"{_CAI} 4.3",
    ),
)
"""In the order of the table."""


def compared(scores: Mapping[Measured, Scores]) -> list[Compared]:
    """Return all comparisons whose two measurements are there."""
    return [compare(one, scores) for one in COMPARISONS if one.arm in scores and one.baseline in scores]
