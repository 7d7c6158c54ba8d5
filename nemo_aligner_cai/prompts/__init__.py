# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts, few-shot examples, and transcripts in the format of Anthropic HH."""

from nemo_aligner_cai.prompts.prompt import Prompt, read_few_shots

__all__ = ["Prompt", "read_few_shots"]
