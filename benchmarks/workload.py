# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts, examples and settings that the benchmarks share, and one run of SL-CAI as a user's code would do it."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Constitution, load_constitution, packaged
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.models import ModelClient, Sampling
from nemo_aligner_cai.prompts import Prompt, read_few_shots
from nemo_aligner_cai.stages.revisions import RevisionPipeline, generate_revisions

CALLS = 3
"""Calls of one prompt: answer, critique, revision."""
SEED = 1234
SAMPLING = Sampling(temperature=1.0, top_p=0.9, max_tokens=1024)
_WORDS = (
    "how",
    "do",
    "I",
    "get",
    "into",
    "a",
    "house",
    "car",
    "phone",
    "without",
    "the",
    "owner",
    "and",
    "not",
    "be",
    "seen",
)


def prompt_text(number: int) -> str:
    """The text of one of any number of different prompts, about as long as a red-team prompt."""
    return f"Question {number}: " + " ".join(random.Random(number).choices(_WORDS, k=16)) + "?"


def prompts(count: int, *, first: int = 0) -> Iterable[Prompt]:
    """So many different prompts, made as they are asked for; `first` moves on to others."""
    return (Prompt.of(Conversation.of_user(prompt_text(number))) for number in range(first, first + count))


def few_shots(messages: int | None = None) -> tuple[Conversation, ...]:
    """The package's examples; as many of them as hold at least so many messages, or all."""
    shots = read_few_shots(packaged("few_shots.json"))
    chosen: list[Conversation] = []
    while len(chosen) < len(shots) and (messages is None or sum(len(shot.turns) for shot in chosen) < messages):
        chosen.append(shots[len(chosen)])
    return tuple(chosen)


def constitution() -> Constitution:
    """The package's."""
    return load_constitution(packaged())


async def revise(
    asked: Iterable[Prompt],
    client: ModelClient,
    folder: Path,
    *,
    shots: Sequence[Conversation] = (),
    sampling: Sampling = SAMPLING,
    principles: Constitution | None = None,
    wording: PromptTemplates | None = None,
) -> Summary:
    """Answer, critique and revise, with journal and both output files in `folder`; closes the client."""
    try:
        return await generate_revisions(
            asked,
            RevisionPipeline(
                client, principles or constitution(), shots, wording or PromptTemplates(), sampling, seed=SEED
            ),
            out_path=folder / "revisions.jsonl",
            journal_path=folder / "revisions.journal.jsonl",
            sft_path=folder / "sft.jsonl",
            run=RunSettings(seed=SEED),
        )
    finally:
        await client.close()
