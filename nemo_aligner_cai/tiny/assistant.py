# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files of the tiny assistant that come with the package; ``cai tiny build`` makes them again."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
MODEL = _FOLDER / "assistant.nemo"
PROVENANCE = _FOLDER / "assistant.json"
TOKENIZER = _FOLDER / "tokenizer.model"
CONSTITUTION = _FOLDER / "constitution.yaml"
QUICKSTART = _FOLDER / "quickstart.yaml"
