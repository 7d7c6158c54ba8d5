# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts that the models of a run answer at its end.

Input:  answers: {prompts: ["How do I bake bread?"], decoding: {temperature: 0.7, max_tokens: 64}}
"""

from __future__ import annotations

from pydantic import Field

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.pipeline.sections.decoding import Decoding
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.sections import Section


class Answers(Section):
    """The settings of the step.

    Attributes:
        prompts: the questions.
        system_message: of every prompt; empty for none, and a chat template may then add its own.
        decoding: sampling of the answers.
        batch_size: conversations per request to NeMo's server.
    """

    prompts: tuple[str, ...] = Field(min_length=1)
    system_message: str = ""
    decoding: Decoding
    batch_size: int = Field(default=64, gt=0)

    def read(self) -> list[Prompt]:
        """The prompts as conversations."""
        return [Prompt.of(Conversation.of_user(text).with_system(self.system_message)) for text in self.prompts]
