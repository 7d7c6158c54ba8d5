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
from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.models.base import BatchClient, ModelClient
from nemo_aligner_cai.models.scripted import ScriptedBatchClient, ScriptedClient

R = TypeVar("R", bound=HasId)


async def plan(
    records: Iterable[R],
    steps: Sequence[Step[R]],
    *,
    seed: int,
    journal_path: PathLike | None,
    sources: Sequence[PathLike] = (),
    shard: Shard | None = None,
) -> RunStats:
    """Count a run's calls by step without sending or writing anything.

    Args:
        records: the run's records.
        steps: the run's steps.
        seed: the run's seed.
        journal_path: an earlier run's journal. None and a missing file mean that there was none.
        sources: other journals whose calls are reused.
        shard: count only this shard's calls.

    Raises:
        UsageError: a file is not a journal.
    """
    own = [journal_path] if journal_path is not None and Path(journal_path).exists() else []
    journal = Journal.open_to_read(*sources, *own)
    if shard is not None:
        records = shard.select(records, block_size([step.client for step in steps]))
    scripted = {id(step.client): _scripted(step.client) for step in steps}
    engine = Engine(seed=seed, journal=journal)
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
