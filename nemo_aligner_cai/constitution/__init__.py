# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Constitutions, and the prompt templates around their principles."""

from nemo_aligner_cai.constitution.constitution import Constitution, Principle, packaged
from nemo_aligner_cai.constitution.loading import load_constitution

__all__ = ["Constitution", "Principle", "load_constitution", "packaged"]
