# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Preparation for resuming a run: a required journal, and a journal at an earlier version's path."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from nemo_aligner_cai.engine.journal import has_content
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import atomic_writer

_logger = logging.getLogger(__name__)


def require_journal(journal: Path, outputs: Sequence[Path]) -> None:
    """Check that finished outputs can be made again from the journal, before a resumed run replaces them.

    Raises:
        UsageError: one of `outputs` has content, and there is no journal.
    """
    finished = [path for path in outputs if path.is_file() and path.stat().st_size]
    if finished and not has_content(journal):
        raise UsageError(
            f"{journal}: no journal to resume from, and the finished rows in {finished[0]} would be lost; restore the "
            "journal, or give --overwrite to start again"
        )


def adopt(old: Path, journal: Path) -> None:
    """Copy the journal of an earlier version to its present path, unless there is a journal."""
    if not has_content(journal) and has_content(old):
        _logger.info("%s: copied from %s", journal, old)
        with old.open("rb") as source, atomic_writer(journal, overwrite=True) as target:
            shutil.copyfileobj(source, target)
