# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The sampling of the replies of a step."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from nemo_aligner_cai.models.base import Sampling


def _without_seed(sampling: Sampling) -> Sampling:
    if sampling.seed is not None:
        raise ValueError("seed: the seeds follow from the run's; remove it")
    return sampling


Decoding = Annotated[Sampling, AfterValidator(_without_seed)]
