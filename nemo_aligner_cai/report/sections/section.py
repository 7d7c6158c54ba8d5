# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A section of the page: a heading, charts, tables and remarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nemo_aligner_cai.report.charts.svg import Chart


@dataclass(frozen=True)
class Table:
    """A table; its first column is its rows' heading, the others are numbers unless `words` is set."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Section:
    """A section.

    Attributes:
        id: its anchor.
        title: its heading.
        lead: what it is about, in a sentence or two.
        charts: side by side where there is room.
        tables: below the charts.
        missing: what is missing from it, and why; "" if nothing is.
    """

    id: str
    title: str
    lead: str
    charts: Sequence[Chart] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)
    missing: str = ""
