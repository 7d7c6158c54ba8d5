# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that all replies of a journal are of one model: at the beginning of a run, each minute, and at its end."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.models.served import FINGERPRINT, ReportsModel

_log = logging.getLogger(__name__)
_SECONDS = 60.0
"""The time between two checks: replies of a replaced model are paid for that long."""


async def run_checked(work: Coroutine[Any, Any, None], journal: Journal, clients: Iterable[ModelClient]) -> None:
    """Run a coroutine that uses the clients, and check their servers' models before, during and after it.

    Raises:
        UsageError: a server has another model than the one that produced the journal's replies. If it was replaced
            during the work, the journal's calls since the last check do not count.
    """
    try:
        await _check(journal, clients, working=False)
    except BaseException:
        work.close()
        raise
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=_SECONDS))[0]:
            await _check(journal, clients, working=True)
    finally:
        task.cancel()
        await asyncio.wait([task])
    task.result()
    # The server may have been unavailable at the beginning, or replaced since.
    await _check(journal, clients, working=True)


async def _check(journal: Journal, clients: Iterable[ModelClient], *, working: bool) -> None:
    """Compare the models that the servers report with those in the journal, and record them.

    Before the work, it is also a warning if it cannot be known that the journal's replies are the model's.
    """
    for client in clients:
        if not isinstance(client, ReportsModel):
            continue
        served, recorded = await client.served_model(), journal.served_model(client.identity)
        if served is None:
            if not working and journal.had_calls:
                _log.warning(
                    "%s: its server does not report its model; the journal's replies are assumed to be this model's. "
                    "If the model has changed, give --model (for a judge, --judge-model) another name",
                    client.name,
                )
        elif recorded is None or recorded == served:
            journal.append_served_model(client.identity, served)
        else:
            change = f"from {', '.join(recorded.values())} to {', '.join(served.values())}"
            if FINGERPRINT in served and FINGERPRINT in recorded:
                when = "since the journal was written"
                if working:
                    # Without this line, the new model's replies would count as the old one's.
                    journal.append_served_model(client.identity, served)
                    when = "during the run, whose calls since the last check do not count"
                raise UsageError(
                    f"{client.name}: the server's model has changed {when}, {change}; give "
                    "--model (for a judge, --judge-model) another name to ask the new model, or serve the old one and "
                    "give --resume"
                )
            # The same model may have another path.
            if not working:
                _log.warning(
                    "%s: the server's model or its path has changed, %s; replies are reused", client.name, change
                )
