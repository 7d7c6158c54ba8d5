# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Answers of a run's models to a few prompts, to read: what each stage has changed.

Input:  answers: {prompts: ["How do I bake bread?"], decoding: {temperature: 0.7, max_tokens: 64}}
Output: {"model": "rl_cai", "prompt": "How do I bake bread?", "answer": "Mix flour ...", "finish_reason": "stop"}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.engine import Engine, Outcome, Step
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
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
    decoding: Sampling
    batch_size: int = Field(default=64, gt=0)

    def read(self) -> list[Prompt]:
        """The prompts as conversations."""
        return [Prompt.of(Conversation.of_user(text).with_system(self.system_message)) for text in self.prompts]


@dataclass(frozen=True)
class _Asked:
    prompt: Prompt
    completion: Completion | None = None

    @property
    def id(self) -> str:
        return self.prompt.id

    def answered(self, completions: Sequence[Completion]) -> _Asked:
        return replace(self, completion=completions[0])


async def ask_all(client: ModelClient, section: Answers, journal: Path, *, seed: int) -> list[dict[str, Any]]:
    """Ask a model all prompts.

    Args:
        client: the model; stays open.
        section: prompts and sampling.
        journal: the journal's path.
        seed: of the run.

    Returns:
        Prompt, answer and finish reason, in the order of the prompts.

    Raises:
        CaiError: a prompt got no answer.
    """
    found: dict[str, Completion] = {}

    def keep(outcome: Outcome[_Asked]) -> None:
        if outcome.record.completion is None:
            asked = outcome.record.prompt.conversation.messages[-1].content
            raise CaiError(f"{journal}: no answer to {asked!r}: {outcome.skipped}")
        found[outcome.record.id] = outcome.record.completion

    step = Step[_Asked](
        name="answers",
        client=client,
        requests=lambda record: [Request(record.prompt.conversation, section.decoding)],
        absorb=_Asked.answered,
    )
    opened = Journal.open(journal, resume=True)
    try:
        await Engine(seed=seed, journal=opened).run(map(_Asked, section.read()), [step], keep)
    finally:
        await opened.close()
    return [
        {
            "prompt": prompt.conversation.messages[-1].content,
            "answer": found[prompt.id].text,
            "finish_reason": found[prompt.id].finish_reason,
        }
        for prompt in section.read()
    ]
