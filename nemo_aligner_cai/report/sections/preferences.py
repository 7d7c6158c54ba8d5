# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Use and effect of each principle, also after training; length and position bias of the judge."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nemo_aligner_cai.data.judged_row import JudgedRow, JudgedVerdict, read_judged
from nemo_aligner_cai.evaluation.preferences.audit import Audit, VerdictStats
from nemo_aligner_cai.evaluation.preferences.by_principle import wins_by_principle
from nemo_aligner_cai.evaluation.preferences.compared_rows import read_compared
from nemo_aligner_cai.evaluation.statistics.calibration import Calibration, calibration
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.chains.rows import RevisionRow, read_rows
from nemo_aligner_cai.report.charts.bars import histogram
from nemo_aligner_cai.report.charts.points import Dot, dots
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.labels import model_label, percent
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.sections.section import Section, Table

_BINS = 13
"""Bars of the length histogram, over half to twice the length and the rest at both ends."""
_OUTER = 1.0
"""Its ends, as a power of 2."""


@dataclass
class PrincipleUse:
    """SL-CAI's use of one principle."""

    drawn: int = 0
    changed: list[bool] = field(default_factory=list[bool])


@dataclass
class Preferences:
    """Figures of the two data stages on principles and the judge.

    Attributes:
        revised: principle -> its use in SL-CAI; the change is that of the whole chain.
        audit: statistics of the comparisons; None if there are none yet.
        log_ratios: log2 of the length of the chosen to the rejected text, for each kept pair.
        orders: for each pair that was judged in both orders with probabilities, the probability that the first order
            gave to a candidate, and True if the second order preferred it.
        trained: the last model of the evaluation; "" without pairwise comparisons.
        followed: an earlier model -> principle -> the rate at which the last one's replies win by the principle.
    """

    revised: dict[str, PrincipleUse] = field(default_factory=dict[str, PrincipleUse])
    audit: Audit | None = None
    log_ratios: list[float] = field(default_factory=list[float])
    orders: list[tuple[float, bool]] = field(default_factory=list[tuple[float, bool]])
    trained: str = ""
    followed: dict[str, dict[str, Rate]] = field(default_factory=dict[str, dict[str, Rate]])

    @classmethod
    def of(cls, run: RunFolder) -> Preferences:
        """Read the rows of both data stages, as far as they are done."""
        found = cls()
        if path := run.find("revisions.jsonl"):
            for row in read_rows(path, RevisionRow):
                for name in dict.fromkeys(turn.principle for turn in row.rounds):
                    use = found.revised.setdefault(name, PrincipleUse())
                    use.drawn += 1
                    use.changed.append(row.changed)
        if path := run.find("comparisons.jsonl"):
            found.audit = Audit()
            for judged in read_judged(path):
                found._add(found.audit, judged)
        if run.evaluation and (path := run.evaluated("comparisons")):
            *earlier, found.trained = (model.name for model in run.evaluation.models)
            for name in earlier:
                found.followed[name] = wins_by_principle(read_compared(path), found.trained, name)
        return found

    def _add(self, audit: Audit, row: JudgedRow) -> None:
        audit.add(row)
        self.log_ratios += [math.log2(max(1, len(pair.chosen)) / max(1, len(pair.rejected))) for pair in row.pairs]
        self.orders += _two_orders(row.verdicts)

    @property
    def consistency(self) -> Calibration | None:
        """Calibration of the first order's probability by the second order's decision."""
        return calibration(self.orders) if self.orders else None


def _two_orders(verdicts: Iterable[JudgedVerdict]) -> Iterator[tuple[float, bool]]:
    groups: dict[tuple[str | None, frozenset[int]], list[JudgedVerdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.principle, frozenset(verdict.shown)].append(verdict)
    for group in groups.values():
        if len(group) != 2 or len(group[0].shown) != 2 or group[0].shown == group[1].shown:
            continue
        first, second = group
        if first.probability is not None and second.better is not None:
            yield first.probability, second.better == first.shown[0]


def principles(found: Preferences) -> Section:
    """The section on each principle."""
    lead = (
        "SL-CAI draws a principle for each prompt to critique and revise by; RL-CAI draws one to judge by. A "
        "principle that changes nothing, decides nothing or prefers the longer text is worth rewording. It is "
        "followed after training if the judge prefers the trained model's replies to held-out prompts by it."
    )
    judged = found.audit.principles if found.audit else {}
    names = sorted({*found.revised, *judged, *(name for rates in found.followed.values() for name in rates)})
    if not names:
        return Section("principles", "Principle by principle", lead, missing="No data stage is done yet.")
    charts: list[Chart] = []
    if found.revised:
        rates = {name: Rate.of(use.changed) for name, use in sorted(found.revised.items())}
        charts.append(_dots("Revisions that changed the answer", "of the answers that it criticized", rates, "s2"))
    if judged:
        decided = {name: _decided(stats) for name, stats in sorted(judged.items())}
        charts.append(_dots("Pairs on which both orders agree", "of the pairs that it judged", decided, "s1"))
    charts += [_followed(found.trained, name, rates) for name, rates in found.followed.items() if rates]
    head = ("principle", "drawn", "changed", "judged", "unparsed", "decided", "kept", "longer wins", "order decided")
    rows = [_row(name, found.revised.get(name), judged.get(name)) for name in names]
    unknown = (
        ""
        if found.followed
        else (
            "Whether they are followed after training was not measured: it needs `pairwise` in the section `evaluate`."
        )
    )
    table = Table("Each principle", head, rows)
    return Section("principles", "Principle by principle", lead, charts, [table], missing=unknown)


def _followed(trained: str, opponent: str, rates: dict[str, Rate]) -> Chart:
    title = f"Followed after training: {model_label(trained)} against {model_label(opponent)}"
    axis = "of the pairs that it judged, won"
    rows = [(name, percent(rate), f"{rate.n:,}") for name, rate in rates.items()]
    svg = dots([Dot(name, rate, "s3") for name, rate in rates.items()], axis, chance=0.5)
    caption = "Replies to held-out prompts, in both orders; right of the line the trained model follows it better."
    return Chart(title, caption, svg, ("principle", "wins", "prompts"), rows)


def _decided(stats: VerdictStats) -> Rate | None:
    return Rate.of_share(stats.decided / stats.pairs, stats.pairs) if stats.pairs else None


def _dots(title: str, axis: str, rates: dict[str, Rate | None] | dict[str, Rate], color: str) -> Chart:
    rows = [(name, percent(rate)) for name, rate in rates.items()]
    svg = dots([Dot(name, rate, color) for name, rate in rates.items()], axis)
    return Chart(title, f"Percent {axis}, with 95 % intervals.", svg, ("principle", "rate"), rows)


def _row(name: str, use: PrincipleUse | None, stats: VerdictStats | None) -> tuple[str, ...]:
    revised = (f"{use.drawn:,}", percent(Rate.of(use.changed))) if use else ("-", "-")
    if stats is None:
        return (name, *revised, *("-",) * 6)
    counts = (stats.pairs, stats.unparsed, stats.decided, stats.kept)
    rates = (stats.longer.rate, stats.flips.rate)
    return (name, *revised, *(f"{count:,}" for count in counts), *map(percent, rates))


def bias(found: Preferences) -> Section:
    """The section on length and position bias."""
    lead = (
        "A judge should follow the constitution, not the length of a text or its place in the question. Both biases "
        "are over all judged pairs, not only over those that were kept."
    )
    audit = found.audit
    if audit is None or not audit.all.pairs:
        return Section("bias", "Length and position bias", lead, missing="The judge has not judged any pair yet.")
    charts = [_lengths(found.log_ratios)] if found.log_ratios else []
    rows = {
        "first text wins": audit.all.first.rate,
        "order decides": audit.all.flips.rate,
        "longer text wins": audit.all.longer.rate,
        "chosen is longer": audit.longer.rate,
    }
    shown = [Dot(label, rate, "s0" if label == "order decides" else "s1") for label, rate in rows.items()]
    figures = [(label, percent(rate)) for label, rate in rows.items()]
    caption = "The line is chance; the order should decide nothing."
    svg = dots(shown, "of judged or kept pairs", chance=audit.all.first_by_chance.mean)
    charts.append(Chart("Bias of the judge", caption, svg, ("bias", "rate"), figures))
    wins = [(key, f"{won.count:,}", percent(won.rate)) for key, won in sorted(audit.wins.items())]
    table = Table("Candidates by sampling", ("candidate", "kept pairs", "wins"), wins)
    return Section("bias", "Length and position bias", lead, charts, [table])


def _lengths(log_ratios: Sequence[float]) -> Chart:
    size = 2 * _OUTER / (_BINS - 2)
    edge = _OUTER + size
    counted = Counter(min(_BINS - 1, max(0, math.floor((value + edge) / size))) for value in log_ratios)
    counts = [(number * size - edge, (number + 1) * size - edge, counted[number]) for number in range(_BINS)]
    rows = [(_ratios(low, high, number), f"{count:,}") for number, (low, high, count) in enumerate(counts)]
    title = "Length of the chosen text"
    svg = histogram(counts, "log2 of chosen to rejected length", middle=0.0)
    caption = "Right of the line the chosen text is longer; the outermost bars hold all that is beyond."
    return Chart(title, caption, svg, ("chosen to rejected", "pairs"), rows)


def _ratios(low: float, high: float, number: int) -> str:
    if number == 0:
        return f"below {2**high:.2f}"
    return f"{2**low:.2f} and more" if number == _BINS - 1 else f"{2**low:.2f} to {2**high:.2f}"
