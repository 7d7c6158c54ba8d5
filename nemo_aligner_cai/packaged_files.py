# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The paths of packaged files: constitutions, and the tiny assistant that ``cai tiny build`` builds."""

from __future__ import annotations

from pathlib import Path

CONSTITUTIONS = Path(__file__).parent / "constitutions"
_TINY = Path(__file__).parent / "tiny"
MODEL = _TINY / "assistant.nemo"
PROVENANCE = _TINY / "assistant.json"
TOKENIZER = _TINY / "tokenizer.model"
CONSTITUTION = _TINY / "constitution.yaml"
GRADER = _TINY / "refusals.yaml"
QUICKSTART = _TINY / "quickstart.yaml"
