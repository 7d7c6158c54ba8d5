# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a benchmark says at its end: each figure beside its bar, and the conditions that it was measured under."""

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

_LIBRARIES = ("aiohttp", "orjson", "nemo_aligner_cai")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `bar` is what issue and README promise, `holds` whether it was reached.

    Without a bar, the figure is there to be looked at, and holds.
    """

    what: str
    measured: str
    bar: str = ""
    holds: bool = True


def show(title: str, figures: Sequence[Figure], *, notes: Sequence[str] = ()) -> int:
    """Print the table; returns the exit code, 1 where a bar is missed."""
    table = Table()
    for column in ("figure", "measured", "bar", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in figures:
        verdict = "" if not figure.bar else "[green]holds[/]" if figure.holds else "[red]missed[/]"
        table.add_row(figure.what, figure.measured, figure.bar, verdict)
    # Off a terminal rich assumes 80 columns and breaks figures apart.
    console = Console()
    console = console if console.is_terminal else Console(width=119)
    console.print(f"[bold]{title}[/]", table, *notes, conditions(), sep="\n", highlight=False)
    return int(any(not figure.holds for figure in figures))


def list_table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a list-table of the docs, whose first row is the header; the cell "-" is left empty."""
    yield from (".. list-table::", "   :header-rows: 1", "")
    for row in rows:
        for number, cell in enumerate(row):
            yield f"   {'*' if number == 0 else ' '} - {'' if cell == '-' else cell}".rstrip()


def cpu_model() -> str:
    """The processor as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def conditions() -> str:
    """The machine, its load and the versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    load = os.getloadavg()[0]
    return f"{cpu_model()}, {os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}, {libraries}"
