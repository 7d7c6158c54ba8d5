# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files of one run: checked before the first request, and recorded in the manifest after the last.

A shard's run has no file but its journal.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.engine.journal import has_content
from nemo_aligner_cai.engine.resuming import adopt, require_journal
from nemo_aligner_cai.engine.shards import shards_folder
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.files.output_paths import check_output, refuse_same
from nemo_aligner_cai.files.sources import DataFile, data_files
from nemo_aligner_cai.stages.manifest import Manifest, hashes
from nemo_aligner_cai.stages.report import StageReport, TrainingFiles
from nemo_aligner_cai.stages.rl_outputs import RlOutputs
from nemo_aligner_cai.stages.settings import StageConfig
from nemo_aligner_cai.stages.sft_files import SlOutputs


def input_files(*sources: PathLike | None) -> list[DataFile]:
    """Return the input files in order: the files of a folder, and a data set on the hub as one entry."""
    return [file for source in sources if source for file in data_files(source)]


def check_files(
    inputs: Sequence[DataFile],
    outputs: Sequence[Path],
    *,
    journal: Path | None,
    manifest: Path | None,
    resume: bool,
    overwrite: bool,
    has_sources: bool = False,
) -> None:
    """Check inputs and outputs before the first request.

    Args:
        inputs: files that are read.
        outputs: files that are written.
        journal: the journal that is written, if any.
        manifest: the manifest, if any.
        resume: continue from the journal, and replace existing outputs.
        overwrite: start again, and replace existing files.
        has_sources: the run also reads other journals, from which finished outputs can be made again.

    Raises:
        UsageError: an output is an input, cannot be written, or exists and may not be replaced; or an output is
            finished but has no journal to resume from.
    """
    records = [path for path in (journal, manifest) if path is not None]
    refuse_same([one for one in inputs if isinstance(one, Path)], [*outputs, *records])
    if journal is not None and not (resume or overwrite) and has_content(journal):
        raise UsageError(
            f"{journal}: the journal of an earlier run with this output; give --resume to continue that run, or "
            "--overwrite to start again"
        )
    for path in (*outputs, *records):
        # An empty journal is that of a run whose first request failed, as by a wrong name of the model.
        check_output(path, overwrite=resume or overwrite or path == journal)
    if resume and journal is not None and not has_sources:
        require_journal(journal, outputs)


class RunFiles:
    """The files of one stage run; call `begin`, `announce`, `remove_stale` and `report` in this order."""

    def __init__(self, config: StageConfig, outputs: SlOutputs | RlOutputs) -> None:
        self.config = config
        self.outputs = outputs
        self._manifest: Manifest | None = None

    @property
    def journal(self) -> Path:
        """The journal that this run writes."""
        shard, whole = self.config.run.shard, self.outputs.journal
        return whole if shard is None else shard.journal(whole)

    def adopt_journal(self) -> None:
        """When resuming, copy a journal from its location in earlier versions."""
        run = self.config.run
        if run.resume and run.shard is None and not run.no_calls and self.outputs.old_journal is not None:
            adopt(self.outputs.old_journal, self.outputs.journal)

    def begin(self, *inputs: PathLike | None) -> None:
        """Check inputs and outputs, and hash the inputs.

        Raises:
            UsageError: see `check_files`, `RunSettings.other_journals` and `Manifest.begin`.
        """
        self.adopt_journal()
        files, location, run = input_files(*inputs), self.outputs.manifest, self.config.run
        if run.shard is not None:
            location = None
        check_files(
            [*files, *run.other_journals(self.journal)],
            self.outputs.all if run.shard is None else [],
            journal=None if run.no_calls else self.journal,
            manifest=location and location.path,
            resume=run.resume,
            overwrite=run.overwrite,
            has_sources=bool(run.journal_from),
        )
        if location is not None:
            record = self.config.record
            if record is None:
                record = self.config.model_dump(mode="json") | {location.owner: location.value}
            self._manifest = Manifest.begin(location, record, files)

    def announce(self) -> None:
        """Record which files are about to be written."""
        if self._manifest is not None:
            self._manifest.announce(self.outputs.all)

    def remove_stale(self, *, complete: bool) -> list[str]:
        """Remove files of earlier runs that this run does not write; return lines for the terminal.

        `complete` is False for a run with too few rows for training files.
        """
        if self._manifest is None:
            return []
        return self._manifest.remove_stale(self.outputs.all if complete else self.outputs.raw, self.outputs.all)

    def shard_report(self, title: str, summary: Summary, models: Mapping[str, Mapping[str, Any]]) -> StageReport:
        """Return the report of a shard, which has written its journal and no other file."""
        run = self.config.run
        assert run.shard is not None, "only a shard's run has such a report"
        lines = [
            f"journal: {self.journal}",
            f"when all {run.shard.count} shards have ended, the same command with --no-calls --journal-from "
            f"{shards_folder(self.outputs.journal)}, and without --shard, writes the files",
        ]
        return StageReport(title, summary, models, {}, {}, lines, run.max_dropped)

    def report(
        self,
        title: str,
        summary: Summary,
        models: Mapping[str, Mapping[str, Any]],
        written: TrainingFiles,
        lines: Sequence[str],
    ) -> StageReport:
        """Return the report of the finished run, and write the manifest."""
        report = StageReport(
            title,
            summary,
            models,
            written.rows,
            hashes(self.outputs.all),
            lines,
            self.config.run.max_dropped,
            written.missing,
            None if self._manifest is None else self._manifest.location.path,
        )
        if self._manifest is not None:
            self._manifest.write(report.files, **report.to_dict())
        return report
