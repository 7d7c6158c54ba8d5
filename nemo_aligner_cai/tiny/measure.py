# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Ask a served model held-out prompts of the tiny language and let the oracle say what its replies do.

Input row (``measure.jsonl``):  {"messages": [...], "kind": "theft", "verb": "rob", "noun": "shop", ...}
Output row:                     {"prompt": "...", "reply": "...", "outcome": "right_refusal", ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.engine import Engine, SkipRecord, Step
from nemo_aligner_cai.engine.engine import Outcome as Passed
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.rates import Rate
from nemo_aligner_cai.files import content_hash, write_jsonl
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.tiny.data import read_measured
from nemo_aligner_cai.tiny.language import Deed, language
from nemo_aligner_cai.tiny.oracle import Outcome, judge_reply


@dataclass(frozen=True)
class Asked:
    """A prompt, the deed it asks for and, once given, the reply."""

    id: str
    conversation: Conversation
    deed: Deed
    reply: str = ""

    @property
    def outcome(self) -> Outcome:
        """What the reply does."""
        return judge_reply(self.deed, self.reply)


async def ask(
    prompts: Path, client: ModelClient, sampling: Sampling, *, seed: int, journal: Path, replies: Path
) -> list[Asked]:
    """Get a reply to every prompt and write them with their outcomes.

    Args:
        prompts: a ``measure.jsonl``.
        client: the model to measure.
        sampling: greedy, or with a temperature.
        seed: of the run.
        journal: where finished calls are kept.
        replies: the file to write.

    Raises:
        CaiError: a prompt got no reply; a rate over the others would hide it.
    """
    asked: list[Asked] = []
    missing: list[SkipRecord] = []

    def keep(passed: Passed[Asked]) -> None:
        if passed.left_out is None:
            asked.append(passed.record)
        else:
            missing.append(passed.left_out)

    step = Step[Asked](
        name="measure",
        client=client,
        requests=lambda record: [Request(record.conversation, sampling)],
        absorb=_with_reply,
    )
    kept = Journal.open(journal, resume=True)
    try:
        await Engine(seed=seed, journal=kept).run(_read(prompts), [step], keep)
    finally:
        await kept.close()
    if missing:
        raise CaiError(f"{prompts}: {len(missing)} prompts got no reply, the first because of: {missing[0]}")
    write_jsonl(replies, map(_row, asked), overwrite=True)
    return asked


def rates(asked: Sequence[Asked]) -> dict[str, Rate]:
    """The six figures of a model, over the harmful requests or the benign ones, as their names say."""
    harmful = [record.outcome for record in asked if record.deed.harmful]
    benign = [record.outcome for record in asked if not record.deed.harmful]
    wanted: Mapping[str, tuple[list[Outcome], Outcome]] = {
        "harmful_compliance": (harmful, Outcome.COMPLIES),
        "right_refusal": (harmful, Outcome.RIGHT_REFUSAL),
        "flawed_refusal": (harmful, Outcome.FLAWED_REFUSAL),
        "evasion": (harmful, Outcome.EVADES),
        "helpfulness": (benign, Outcome.HELPS),
        "over_refusal": (benign, Outcome.OVER_REFUSES),
    }
    return {name: Rate.of(outcome is hit for outcome in outcomes) for name, (outcomes, hit) in wanted.items()}


def _read(path: Path) -> Iterator[Asked]:
    seen: Counter[str] = Counter()
    for conversation, deed in read_measured(path, language()):
        digest = content_hash(conversation.to_messages())
        seen[digest] += 1
        if seen[digest] > 1:
            raise CaiError(f"{path}: a prompt stands there twice: {conversation.turns[-1].content!r}")
        yield Asked(digest, conversation, deed)


def _with_reply(record: Asked, completions: Sequence[Completion]) -> Asked:
    return replace(record, reply=completions[0].text)


def _row(record: Asked) -> dict[str, Any]:
    return {
        "messages": record.conversation.to_messages(),
        "reply": record.reply,
        "outcome": record.outcome.value,
        "harmful": record.deed.harmful,
    }
