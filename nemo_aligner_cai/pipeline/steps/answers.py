# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Answers of a run's models to a few prompts, to read: what each stage has changed.

Input:  answers: {prompts: ["How do I bake bread?"], decoding: {temperature: 0.7, max_tokens: 64}}
Output: {"model": "rl_cai", "prompt": "How do I bake bread?", "answer": "Mix flour ...", "finish_reason": "stop"}
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_aligner_cai.engine import engine
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.models.base import Completion, ModelClient, Request
from nemo_aligner_cai.pipeline.layout import ANSWERS, ANSWERS_FILE
from nemo_aligner_cai.pipeline.sections.answers import Answers
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.pipeline.steps import three_models
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.prompts import Prompt


def answers_step(run: RunContext) -> Step:
    """The step that asks the three models."""
    section = run.config.answers
    assert section is not None, "only runs with it have the step"

    def work(folder: Path) -> Mapping[str, Any]:
        def asked(name: str, client: ModelClient) -> Coroutine[Any, Any, list[dict[str, Any]]]:
            return ask_all(client, section, folder / f"{name}.journal.jsonl", seed=run.config.seed)

        found = three_models.ask_each(run, folder, section.batch_size, asked)
        rows = [{"model": name, **row} for name, answers in found.items() for row in answers]
        write_jsonl(folder / ANSWERS_FILE, rows, overwrite=True)
        return {"answers": len(rows)}

    return Step(
        ANSWERS,
        "Step 7: answers of the three models",
        reads=three_models.paths(run),
        makes=(ANSWERS_FILE,),
        settings=run.settings(section.model_dump(mode="json", exclude_defaults=True) | three_models.settings(run)),
        endpoints=lambda: run.clients.endpoint_identities("helpful_only"),
        work=work,
    )


@dataclass(frozen=True)
class _Answer:
    prompt: Prompt
    completion: Completion | None = None

    @property
    def id(self) -> str:
        return self.prompt.id

    def answered(self, completions: Sequence[Completion]) -> _Answer:
        return replace(self, completion=completions[0])

    def row(self) -> dict[str, Any]:
        assert self.completion is not None, "every record has passed the step"
        return {
            "prompt": self.prompt.conversation.messages[-1].content,
            "answer": self.completion.text,
            "finish_reason": self.completion.finish_reason,
        }


async def ask_all(client: ModelClient, section: Answers, journal: Path, *, seed: int) -> list[dict[str, Any]]:
    """Ask a model all prompts. The client stays open.

    Returns:
        Prompt, answer and finish reason, in the order of the prompts.

    Raises:
        CaiError: a prompt got no answer.
    """
    step = engine.Step[_Answer](
        name="answers",
        client=client,
        requests=lambda record: [Request(record.prompt.conversation, section.decoding)],
        absorb=_Answer.answered,
    )
    return [one.row() for one in await engine.run_all(map(_Answer, section.read()), step, seed=seed, journal=journal)]
