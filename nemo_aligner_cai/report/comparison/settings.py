# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Settings and principles that differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nemo_aligner_cai.report.run_folder import ConstitutionRecord, RunFolder
from nemo_aligner_cai.report.sections.cost import settings_rows


@dataclass(frozen=True)
class Changed:
    """A value by its name; None where a run does not have it."""

    name: str
    a: str | None
    b: str | None


def settings(a: RunFolder, b: RunFolder) -> list[Changed]:
    """Return the settings and versions that differ, by dotted key."""
    first, second = _settings(a), _settings(b)
    return list(_changed(first, second))


def principles(a: RunFolder, b: RunFolder) -> list[Changed]:
    """Return the requests of principles that differ, by "id: critique", "id: revision" and "id: judge"."""
    first, second = (_requests(run.record.constitution) if run.record else {} for run in (a, b))
    return list(_changed(first, second))


def _settings(run: RunFolder) -> dict[str, str]:
    constitution = {"constitution": run.record.constitution.name} if run.record else {}
    versions = {f"version of {name}": version for name, version in run.versions.items()}
    return dict(settings_rows(run.settings)) | constitution | versions


def _requests(constitution: ConstitutionRecord) -> dict[str, str]:
    return {
        f"{one.id}: {form}": text
        for one in constitution.principles
        for form, text in (("critique", one.critique), ("revision", one.revision), ("judge", one.judge))
        if text is not None
    }


def _changed(a: dict[str, str], b: dict[str, str]) -> Iterator[Changed]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield Changed(name, a.get(name), b.get(name))
