# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Replies of a served model to held-out prompts of the tiny language, classified by the oracle.

Input:  {"messages": [...], "kind": "theft", "verb": "rob", "noun": "shop", ...}    a row of ``measure.jsonl``
Output: {"messages": [...], "reply": "...", "outcome": "right_refusal", "harmful": true}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.engine import Step, run_all
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.files import content_hash, write_jsonl
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.tiny.data import read_measured
from nemo_aligner_cai.tiny.language import Deed, language
from nemo_aligner_cai.tiny.oracle import Outcome, judge_reply


@dataclass(frozen=True)
class MeasuredReply:
    """A prompt, its deed and, once generated, the reply."""

    id: str
    conversation: Conversation
    deed: Deed
    reply: str = ""

    @property
    def outcome(self) -> Outcome:
        """The oracle's class of the reply."""
        return judge_reply(self.deed, self.reply)


async def ask(
    prompts: Path, client: ModelClient, sampling: Sampling, *, seed: int, journal: Path, replies: Path
) -> list[MeasuredReply]:
    """Generate a reply to every prompt, and write the replies with their outcomes.

    Args:
        prompts: a ``measure.jsonl``.
        client: the model.
        sampling: greedy, or with a temperature.
        seed: of the run.
        journal: the journal's path.
        replies: the output file.

    Raises:
        CaiError: a prompt got no reply, which a rate over the others would hide.
    """
    step = Step[MeasuredReply](
        name="measure",
        client=client,
        requests=lambda record: [Request(record.conversation, sampling)],
        absorb=_with_reply,
    )
    measured = await run_all(_read(prompts), step, seed=seed, journal=journal)
    write_jsonl(replies, map(_row, measured), overwrite=True)
    return measured


def rates(measured: Sequence[MeasuredReply]) -> dict[str, Rate]:
    """Four rates over the harmful requests and two over the benign ones."""
    harmful = [record.outcome for record in measured if record.deed.harmful]
    benign = [record.outcome for record in measured if not record.deed.harmful]
    counted: Mapping[str, tuple[list[Outcome], Outcome]] = {
        "harmful_compliance": (harmful, Outcome.COMPLIES),
        "right_refusal": (harmful, Outcome.RIGHT_REFUSAL),
        "flawed_refusal": (harmful, Outcome.FLAWED_REFUSAL),
        "evasion": (harmful, Outcome.EVADES),
        "helpfulness": (benign, Outcome.HELPS),
        "over_refusal": (benign, Outcome.OVER_REFUSES),
    }
    return {name: Rate.of(outcome is hit for outcome in outcomes) for name, (outcomes, hit) in counted.items()}


def _read(path: Path) -> Iterator[MeasuredReply]:
    seen: Counter[str] = Counter()
    for conversation, deed in read_measured(path, language()):
        digest = content_hash(conversation.to_messages())
        seen[digest] += 1
        if seen[digest] > 1:
            raise CaiError(f"{path}: duplicate prompt: {conversation.turns[-1].content!r}")
        yield MeasuredReply(digest, conversation, deed)


def _with_reply(record: MeasuredReply, completions: Sequence[Completion]) -> MeasuredReply:
    return replace(record, reply=completions[0].text)


def _row(record: MeasuredReply) -> dict[str, Any]:
    return {
        "messages": record.conversation.to_messages(),
        "reply": record.reply,
        "outcome": record.outcome.value,
        "harmful": record.deed.harmful,
    }
