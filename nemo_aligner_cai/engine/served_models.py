# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A journal's replies belong to the model that gave them, even where its server has another one now."""

import logging
from collections.abc import Iterable

from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.models.served import FINGERPRINT, ReportsModel

_log = logging.getLogger(__name__)


async def check_served(journal: Journal, clients: Iterable[ModelClient], *, say: bool) -> None:
    """Compare what each server says of its model with what the journal has recorded, or record it.

    Args:
        journal: of the run.
        clients: whose servers are asked.
        say: tell the user where it cannot be known that the journal's replies are this model's.

    Raises:
        UsageError: a server has another model than the one that gave the journal's replies.
    """
    for client in clients:
        if not isinstance(client, ReportsModel):
            continue
        served, before = await client.served_model(), journal.served(client.identity)
        if served is None:
            if say and journal.had_calls:
                _log.warning(
                    "%s: its server does not tell which model it has; the journal's replies are taken for this "
                    "model's. If it is another model now, give --model (of a judge, --judge-model) another name",
                    client.name,
                )
        elif before is None:
            journal.append_served(client.identity, served)
        elif before != served:
            message = (
                f"{client.name}: its server has another model now ({', '.join(served.values())}) than the one that "
                f"gave the journal's replies ({', '.join(before.values())})"
            )
            if not (FINGERPRINT in served and FINGERPRINT in before):
                # A path may change and the model be the same.
                if say:
                    _log.warning("%s, or the same at another place; its replies are reused", message)
                continue
            raise UsageError(
                f"{message}; give --model (of a judge, --judge-model) another name to ask the new one, or serve the "
                "other one again"
            )
