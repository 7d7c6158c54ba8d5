# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Finds a grader that is one of the evaluated models: models rate their own replies too well."""

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.models.base import ModelClient
from nemo_aligner_cai.models.served import FINGERPRINT, ReportsModel


async def same_model(model: ModelClient, grader: ModelClient) -> bool:
    """Return True if two clients use the same model.

    Fingerprints of the served files decide if both servers report them; otherwise the clients' identities do.
    """
    served = [await one.served_model() for one in (model, grader) if isinstance(one, ReportsModel)]
    prints = [one.get(FINGERPRINT) if one else None for one in served]
    if len(prints) == 2 and None not in prints:
        return prints[0] == prints[1]
    return model.identity == grader.identity


def self_grading_error(model: EvaluatedModel, grader: EvaluatedModel) -> UsageError:
    """Return the error of a grader that is an evaluated model."""
    return UsageError(
        f"the grader {grader.source} is the evaluated model {model.name}, and models rate their own replies too "
        "well; choose another --grader-model, or give --allow-self-grading, which the results will say"
    )
