# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The report of a run, or of an evaluation alone.

Input:  a folder of `cai run`, finished or not, or of `cai evaluate`
Output: report.html: one file that opens from disk and loads nothing
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import atomic_writer
from nemo_aligner_cai.report import outcomes, summary
from nemo_aligner_cai.report.chains.build import chains_of
from nemo_aligner_cai.report.chains.pack import PackedChains, pack
from nemo_aligner_cai.report.page.render import render
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.scores import scores_of
from nemo_aligner_cai.report.sections import behavior, calibration, cost, funnel, preferences, training
from nemo_aligner_cai.report.sections.section import Section

REPORT = "report.html"
MOST_CHAINS = 10_000
_log = logging.getLogger(__name__)


def write_report(
    run: RunFolder, target: Path, *, redact: Collection[str] | None = None, chains: int = MOST_CHAINS
) -> None:
    """Write the report of a run, replacing an earlier one.

    Args:
        run: the run.
        target: the HTML file.
        redact: None to show all; otherwise remove all texts of prompts and models, and all texts of settings but
            these.
        chains: the most chains that the page holds; of more, a random selection.

    Raises:
        UsageError: a file of the run is damaged, or the target cannot be written.
    """
    html = report_html(run, redact=redact, chains=chains)
    with atomic_writer(target, overwrite=True) as handle:
        handle.write(html.encode("utf-8"))


def refresh_report(folder: Path) -> Path | None:
    """Write a run's report.html after a step; returns its path, or None with a logged reason if that fails.

    The run is worth more than its report: an error here must not end it.
    """
    target = folder / REPORT
    try:
        write_report(RunFolder(folder), target)
    except (CaiError, OSError) as error:
        _log.warning("%s was not written: %s", target, error)
        return None
    return target


def report_html(run: RunFolder, *, redact: Collection[str] | None = None, chains: int = MOST_CHAINS) -> str:
    """Return the report as HTML; see `write_report`."""
    groups = outcomes.outcome_groups(run)
    found = preferences.Preferences.of(run)
    packed = pack(chains_of(run), most=chains, redact=redact is not None)
    sections = [
        behavior.behavior(groups, run.evaluation, scores_of(run)),
        funnel.funnel(run),
        preferences.principles(found),
        preferences.bias(found),
        calibration.calibration(run, found),
        training.training(run),
        cost.cost(run),
        _chains(packed, redact=redact is not None),
        cost.provenance(run, redact=redact),
    ]
    missing = summary.missing(run)
    return render(
        "report.html.j2",
        kind="Evaluation" if run.is_evaluation else "Constitutional AI run",
        title=run.path.resolve().name,
        state=f"{len(run.steps) - len(missing)} of {len(run.steps)} steps" if missing else "complete",
        facts=_facts(run),
        missing=missing,
        lines=summary.summary(run, groups, found),
        # Steps that an evaluation alone does not have are no news.
        sections=[one for one in sections if not (run.is_evaluation and one.missing)],
        packed=packed,
    )


def _chains(packed: PackedChains, *, redact: bool) -> Section:
    lead = (
        "Every prompt with what was made of it. Text that may be harmful is folded: it is shown when you ask for it. "
        "The address of this page names the chain and the filters, so it can be kept as a link."
    )
    if packed.shown < packed.total:
        lead += f" The page holds {packed.shown:,} of {packed.total:,} chains, chosen at random."
    if redact:
        lead += " The texts were removed for sharing (--redact)."
    return Section("chains", "Chains", lead, missing="" if packed.total else "No data stage is done yet.")


def _facts(run: RunFolder) -> list[tuple[str, str]]:
    if not run.settings:
        return []
    return [
        ("seed", str(run.settings.get("seed", "-"))),
        *([("constitution", run.record.constitution.name)] if run.record else []),
        ("version", run.versions.get("nemo_aligner_cai", "-")),
    ]
