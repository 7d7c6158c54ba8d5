# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that all replies of a journal are of one model: at the beginning of a run, each minute, and at its end."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    reporting = [client for client in clients if isinstance(client, ReportsModel)]
    during = "during the run, whose calls since the last check do not count"
    try:
        found = await _check(journal, reporting)
        _require_same(found, "since the journal was written")
        _warn(found, journal)
        for client in reporting:
            # The server may be unavailable, and come back with another model.
            journal.adopt_served_model(client.identity)
    except BaseException:
        work.close()
        raise
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=_SECONDS))[0]:
            _require_same(await _check(journal, reporting), during)
    finally:
        task.cancel()
        await asyncio.wait([task])
    try:
        # Also after an error, since the next run reuses the calls before it.
        found = await _check(journal, reporting)
    finally:
        task.result()
    _require_same(found, during)


@dataclass(frozen=True)
class _Difference:
    """A server that does not report the recorded model. `served` is None if it reports none."""

    name: str
    recorded: Mapping[str, str] | None
    served: Mapping[str, str] | None

    @property
    def is_other_model(self) -> bool:
        """True if the fingerprints differ. The same model may have another name or path."""
        return FINGERPRINT in (self.recorded or {}) and FINGERPRINT in (self.served or {})

    def __str__(self) -> str:
        recorded, served = (", ".join((model or {}).values()) for model in (self.recorded, self.served))
        return f"from {recorded} to {served}"


async def _check(journal: Journal, clients: Sequence[ReportsModel]) -> list[_Difference]:
    """Compare the models that all servers report with those in the journal, and record them."""
    differences: list[_Difference] = []
    for client in clients:
        served, recorded = await client.served_model(), journal.served_model(client.identity)
        difference = _Difference(client.name, recorded, served)
        is_same = served is not None and recorded in (None, served)
        if not is_same:
            differences.append(difference)
        if served is not None and (is_same or difference.is_other_model):
            # A changed model, too: without this line, its replies would count as the recorded one's.
            journal.append_served_model(client.identity, served)
    return differences


def _require_same(found: Sequence[_Difference], when: str) -> None:
    """Raises UsageError if a server has another model."""
    changed = [one for one in found if one.is_other_model]
    if changed:
        raise UsageError(
            f"{', '.join(one.name for one in changed)}: the server's model has changed {when}, "
            f"{', '.join(map(str, changed))}; give --model (for a judge, --judge-model) another name to ask the new "
            "model, or serve the old one and give --resume"
        )


def _warn(found: Sequence[_Difference], journal: Journal) -> None:
    """Log if it is unknown whether the journal's replies are the model's."""
    for one in found:
        if one.served is not None:
            _log.warning("%s: the server's model or its path has changed, %s; replies are reused", one.name, one)
        elif journal.had_calls:
            _log.warning(
                "%s: its server does not report its model; the journal's replies are assumed to be this model's. If "
                "the model has changed, give --model (for a judge, --judge-model) another name",
                one.name,
            )
