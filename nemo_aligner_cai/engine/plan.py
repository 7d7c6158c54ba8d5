# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a run would cost before it is started: calls that are in the journal, and calls that are to be made.

Input:  the records and steps of a run, and the journal of an earlier one
Output: Tally(calls={"critique": 31, "revision": 31}, reused={"answer": 500, "critique": 469, "revision": 469})

The steps run as they would, but a scripted model stands in for every call that is not in the journal. What depends on
such a call counts as to be made, although a real reply might happen to lead to calls that are there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nemo_aligner_cai.engine.engine import Engine, HasId, Step
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.progress import RunStats
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.models.base import BatchClient, ModelClient
from nemo_aligner_cai.models.scripted import ScriptedBatchClient, ScriptedClient

R = TypeVar("R", bound=HasId)


async def plan(
    records: Iterable[R], steps: Sequence[Step[R]], *, seed: int, journal_path: PathLike | None
) -> RunStats:
    """Count a run's calls by step; nothing is sent, and nothing is written.

    Args:
        records: as for the run.
        steps: likewise.
        seed: likewise.
        journal_path: an earlier run's journal; None, or a file that is not there, where there was none.

    Raises:
        UsageError: the file is not a journal.
    """
    journal = Journal.open_to_read(journal_path) if journal_path is not None and Path(journal_path).exists() else None
    stand_ins = {id(step.client): _stand_in(step.client) for step in steps}
    engine = Engine(seed=seed, journal=journal)
    try:
        planned = [replace(step, client=stand_ins[id(step.client)]) for step in steps]
        await engine.run(records, planned, lambda outcome: None)
    finally:
        if journal is not None:
            await journal.close()
    return engine.tally


def _stand_in(client: ModelClient) -> ModelClient:
    """A script under the client's identity, so that the journal's keys are that client's."""
    if isinstance(client, BatchClient):
        return ScriptedBatchClient(identity=client.identity, batch_size=client.batch_size, remember=False)
    return ScriptedClient(identity=client.identity, remember=False)
