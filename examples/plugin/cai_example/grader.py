# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A grader: its prompt and classes are in tone.yaml."""

from pathlib import Path

from nemo_aligner_cai.evaluation.graders.spec import Grader, read_grader


def tone() -> Grader:
    """Polite, neutral or rude, by a model."""
    return read_grader(Path(__file__).with_name("tone.yaml"))
