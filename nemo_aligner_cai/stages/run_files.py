# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files of one run: checked before the first request, and recorded in the manifest after the last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.engine.journal import has_calls
from nemo_aligner_cai.engine.resuming import adopt, require_journal
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
    journal: Path,
    manifest: Path | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Check inputs and outputs before the first request.

    Raises:
        UsageError: an output is an input, cannot be written, or exists and may not be replaced; or an output is
            finished but has no journal to resume from.
    """
    records = [journal] if manifest is None else [journal, manifest]
    refuse_same([one for one in inputs if isinstance(one, Path)], [*outputs, *records])
    if not (resume or overwrite) and has_calls(journal):
        raise UsageError(
            f"{journal}: the journal of an earlier run with this output; give --resume to continue that run, or "
            "--overwrite to start again"
        )
    for path in (*outputs, *records):
        check_output(path, overwrite=resume or overwrite)
    if resume:
        require_journal(journal, outputs)


class RunFiles:
    """The files of one stage run; call `begin`, `announce`, `remove_stale` and `report` in this order."""

    def __init__(self, config: StageConfig, outputs: SlOutputs | RlOutputs) -> None:
        self.config = config
        self.outputs = outputs
        self._manifest: Manifest | None = None

    def adopt_journal(self) -> None:
        """When resuming, copy a journal from its location in earlier versions."""
        if self.config.run.resume and self.outputs.old_journal is not None:
            adopt(self.outputs.old_journal, self.outputs.journal)

    def begin(self, *inputs: PathLike | None) -> None:
        """Check inputs and outputs, and hash the inputs.

        Raises:
            UsageError: see `check_files` and `Manifest.begin`.
        """
        self.adopt_journal()
        files, location, run = input_files(*inputs), self.outputs.manifest, self.config.run
        check_files(
            files,
            self.outputs.all,
            journal=self.outputs.journal,
            manifest=location and location.path,
            resume=run.resume,
            overwrite=run.overwrite,
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
        )
        if self._manifest is not None:
            self._manifest.write(report.files, **report.to_dict())
        return report
