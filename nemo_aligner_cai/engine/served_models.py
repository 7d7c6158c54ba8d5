# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Checks that a resumed run asks the model that produced the journal's replies."""

import logging
from collections.abc import Iterable

from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.models.served import FINGERPRINT, ReportsModel

_log = logging.getLogger(__name__)


async def check_served(journal: Journal, clients: Iterable[ModelClient], *, warn: bool) -> None:
    """Compare the models that the servers report with those in the journal, or record them.

    Args:
        journal: the run's journal.
        clients: the run's clients.
        warn: log a warning if it cannot be known that the journal's replies are the model's.

    Raises:
        UsageError: a server has another model than the one that produced the journal's replies.
    """
    for client in clients:
        if not isinstance(client, ReportsModel):
            continue
        served, recorded = await client.served_model(), journal.served_model(client.identity)
        if served is None:
            if warn and journal.had_calls:
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
                raise UsageError(
                    f"{client.name}: the server's model has changed since the journal was written, {change}; give "
                    "--model (for a judge, --judge-model) another name to ask the new model, or serve the old one"
                )
            # The same model may have another path.
            if warn:
                _log.warning(
                    "%s: the server's model or its path has changed, %s; replies are reused", client.name, change
                )
