# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of NeMo's reward model and PPO files, for tests."""

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.records import Comparison, PromptOnly
from nemo_aligner_cai.files import Row


def comparison_rows(
    prompt: Conversation, *, chosen: str, rejected: str, dataset: str | None = None
) -> tuple[Row, ...]:
    """The chosen and the rejected row of a comparison."""
    return FORMATS["rm-comparisons"].write(Comparison(prompt, chosen, rejected, dataset), NEMO_CHAT)


def prompt_row(prompt: Conversation, *, dataset: str | None = None) -> Row:
    """The PPO row of a prompt."""
    return FORMATS["ppo-prompts"].write(PromptOnly(prompt, dataset), NEMO_CHAT)[0]
