# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The checks of a stage's files before its first request."""

from collections.abc import Sequence
from pathlib import Path

from nemo_aligner_cai.engine.journal import has_calls
from nemo_aligner_cai.engine.resuming import require_journal
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.files.output_paths import check_output, refuse_same
from nemo_aligner_cai.files.sources import DataFile, data_files


def input_files(*sources: PathLike | None) -> list[DataFile]:
    """The files behind what a run reads, in order: a folder's files, and a data set on the hub as itself."""
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
    """Check what a run reads and writes, before anything is asked.

    Raises:
        UsageError: an output is an input, cannot be written, or exists and may not be replaced; or there is nothing
            to resume a finished output from.
    """
    records = [journal] if manifest is None else [journal, manifest]
    refuse_same([one for one in inputs if isinstance(one, Path)], [*outputs, *records])
    if not (resume or overwrite) and has_calls(journal):
        raise UsageError(
            f"{journal}: the journal of an earlier run with this output; give --resume to go on from it, or "
            "--overwrite to start again"
        )
    for path in (*outputs, *records):
        check_output(path, overwrite=resume or overwrite)
    if resume:
        require_journal(journal, outputs)
