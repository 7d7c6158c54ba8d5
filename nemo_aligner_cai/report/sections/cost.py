# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Time, memory, calls and tokens of each step, and what the run was made from."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, cast

from nemo_aligner_cai.console.printable import redacted
from nemo_aligner_cai.console.secrets import secrets_in_settings
from nemo_aligner_cai.report.charts.bars import Bar, bars
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.labels import duration, memory
from nemo_aligner_cai.report.run_folder import RunFolder, StepRecord
from nemo_aligner_cai.report.sections.section import Section, Table

_OVERRIDE = re.compile(r"([+~]*[\w.@]+=)(.*)", re.DOTALL)
_PLAIN = re.compile(r"-|true|false|null|[+-]?[\d.]+(?:e[+-]?\d+)?", re.IGNORECASE)


def cost(run: RunFolder) -> Section:
    """The section on cost and time."""
    lead = (
        "Time and memory of each step on the machine that ran it, with its interrupted attempts; calls and tokens as "
        "the model servers reported them."
    )
    done = [(step.name, step.record) for step in run.steps if step.record is not None]
    if not done:
        return Section("cost", "Cost and time", lead, missing="No step is done yet.")
    rows = [Bar(name, record.seconds, duration(record.seconds)) for name, record in done]
    figures = [(name, duration(record.seconds)) for name, record in done]
    title = "Time by step"
    total = f"{duration(sum(record.seconds for _, record in done))} in all."
    chart = Chart(title, total, bars(rows, title), ("step", "time"), figures)
    peaks = [Bar(name, record.peak_rss_mb, memory(record.peak_rss_mb), color="s2") for name, record in done]
    sizes = [(name, memory(record.peak_rss_mb)) for name, record in done]
    most = "The sum over all processes of the step, at its highest; a page that several of them share counts once."
    memories = Chart("Peak memory by step", most, bars(peaks, "Peak memory by step"), ("step", "memory"), sizes)
    head = ("step", "time", "peak memory", "calls", "from journal", "failed", "tokens read", "tokens written", "cost")
    return Section(
        "cost", "Cost and time", lead, [chart, memories], [Table("Each step", head, [_row(*one) for one in done])]
    )


def _row(name: str, record: StepRecord) -> tuple[str, ...]:
    first = (name, duration(record.seconds), memory(record.peak_rss_mb))
    generation = record.facts.generation
    if generation is None:
        return (*first, *("-",) * 6)
    counts = (generation.calls, generation.reused, generation.failed)
    tokens = (generation.prompt_tokens, generation.completion_tokens)
    # A server that reports no tokens leaves 0.
    shown = (f"{count:,}" if count else "-" for count in tokens)
    return (*first, *(f"{n:,}" for n in counts), *shown, "-" if generation.cost is None else f"{generation.cost:.2f}")


def provenance(run: RunFolder, *, redact: Collection[str] | None) -> Section:
    """The section on how the run was made; `redact` as for `settings_rows`."""
    lead = "What to give to the same command for the same result, and the hashes of what a run made."
    tables: list[Table] = []
    if run.settings:
        tables.append(Table("Versions", ("package", "version"), list(run.versions.items()), words=True))
        tables.append(Table("Settings", ("key", "value"), list(settings_rows(run.settings, redact)), words=True))
    if run.record:
        constitution = run.record.constitution
        texts = [
            (one.id, one.critique or "-", one.revision or "-", one.judge or "-") for one in constitution.principles
        ]
        head = ("principle", "critique request", "revision request", "judge request")
        tables.append(Table(f"Constitution: {constitution.name}", head, texts, words=True))
    hashes = [
        (f"{step.name}/{name}", digest)
        for step in run.steps
        if step.record
        for name, digest in step.record.outputs.items()
    ]
    if hashes:
        tables.append(Table("SHA-256 of the outputs", ("file", "hash"), hashes, words=True))
    unknown = "The run was made by an earlier version, which wrote no run.json: its settings are not known."
    return Section("made", "How it was made", lead, tables=tables, missing="" if run.settings else unknown)


def settings_rows(settings: dict[str, Any], redact: Collection[str] | None = None) -> Iterator[tuple[str, str]]:
    """Each setting by its dotted key, without secrets.

    Args:
        settings: of a run or an evaluation.
        redact: None to show all; otherwise the texts that may be shown. Numbers and booleans are always shown, and so
            is the key of a Hydra override. All other texts may be prompts, paths or addresses.
    """
    for key, value in flattened(settings).items():
        # An empty list is a value.
        values = cast(list[object], value) if isinstance(value, list) and value else [cast(object, value)]
        texts = [_shown(one) for one in values]
        if redact is not None:
            texts = [_without_texts(text, redact) for text in texts]
        shown = redacted("\n".join(texts))
        # Of a run that is older than the check of `RunConfig`.
        for _, secret in secrets_in_settings(cast(object, value), key):
            shown = shown.replace(secret, "***")
        yield key, shown


def _without_texts(value: str, allowed: Collection[str]) -> str:
    key, text = found.groups() if (found := _OVERRIDE.fullmatch(value)) else ("", value)
    return value if text in allowed or _PLAIN.fullmatch(text) else f"{key}[redacted]"


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested settings by their dotted keys; lists are leaves, except lists of objects."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            leaves |= flattened(cast(dict[str, Any], value), f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _shown(value: object) -> str:
    if value is None or value == [] or value == {}:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
