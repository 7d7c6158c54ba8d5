# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Before a run resumes: is there a journal for what is finished, and is it where earlier versions had it?"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from nemo_aligner_cai.engine.journal import has_calls
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import atomic_writer

_logger = logging.getLogger(__name__)


def require_journal(journal: Path, outputs: Sequence[Path]) -> None:
    """Check that finished files can be made again from their journal, before a run that resumes replaces them.

    Raises:
        UsageError: one of `outputs` has content, and there is no journal.
    """
    finished = [path for path in outputs if path.is_file() and path.stat().st_size]
    if finished and not has_calls(journal):
        raise UsageError(
            f"{journal}: there is no journal to resume from, and {finished[0]} has finished rows that would be lost; "
            "put the journal back, or give --overwrite to start again"
        )


def adopt(old: Path, journal: Path) -> None:
    """Copy the calls of a journal at the place of earlier versions, where there is none at the present place."""
    if not has_calls(journal) and has_calls(old):
        _logger.info("%s: the calls of %s are taken over", journal, old)
        with old.open("rb") as source, atomic_writer(journal, overwrite=True) as target:
            shutil.copyfileobj(source, target)
