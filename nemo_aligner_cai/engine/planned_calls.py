# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Counts the calls of a run before it is started: reused from the journal, and still to be made.

Input:  the records and steps of a run, and the journal of an earlier one
Output: RunStats(calls={"critique": 31, "revision": 31}, reused={"answer": 500, "critique": 469, "revision": 469})

The steps run as usual, but a scripted model answers every call that is not in the journal. A call that depends on such
an answer is counted as still to be made, although a real reply may lead to a call that is in the journal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nemo_aligner_cai.engine.engine import Engine, HasId, Step, block_size
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.progress import RunStats
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.models.base import BatchClient, ModelClient
from nemo_aligner_cai.models.scripted import ScriptedBatchClient, ScriptedClient

R = TypeVar("R", bound=HasId)


async def count_calls(
    records: Iterable[R], steps: Sequence[Step[R]], run: RunSettings, journal_path: Path | None
) -> RunStats:
    """Count a run's calls by step without sending or writing anything.

    Args:
        records: the run's records.
        steps: the run's steps.
        run: the run's settings.
        journal_path: the run's journal, which is read if it exists and will not be overwritten; None for no journal.

    Raises:
        UsageError: a file is not a journal.
    """
    journals: list[Path] = []
    if journal_path is not None:
        own = [journal_path] if journal_path.exists() and not run.overwrite else []
        journals = [*run.other_journals(journal_path), *own]
    journal = Journal.open_to_read(*journals)
    if run.shard is not None:
        records = run.shard.select(records, block_size([step.client for step in steps]))
    scripted = {id(step.client): _scripted(step.client) for step in steps}
    engine = Engine(seed=run.seed, journal=journal)
    try:
        planned = [replace(step, client=scripted[id(step.client)]) for step in steps]
        await engine.run(records, planned, lambda outcome: None)
    finally:
        await journal.close()
    return engine.stats


def _scripted(client: ModelClient) -> ModelClient:
    """Return a scripted client with the same journal keys."""
    if isinstance(client, BatchClient):
        return ScriptedBatchClient(identity=client.identity, batch_size=client.batch_size, remember=False)
    return ScriptedClient(identity=client.identity, remember=False)
