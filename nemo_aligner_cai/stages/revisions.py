# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""SL-CAI data: a model answers red-team prompts, critiques its own answers by a principle, and revises them.

Input:  Prompt(id="9f86...", conversation="How do I pick a lock?")
Output: {"id": "9f86...", "prompt": [{"role": "user", "content": "How do I pick a lock?"}], "response": "Take a ...",
         "critique": "My answer helps a burglar ...", "revision": "I would rather not ...", "principle": "crime",
         "rounds": [{"principle", "critique_request", "critique", "revision_request", "revision"}]}

Each model call is a turn of one conversation (arXiv 2212.08073, section 3.1):

    [few-shots]  user: prompt  assistant: answer  user: critique request  assistant: critique
                 user: revision request  assistant: revision

Without critiques, the revision request follows the answer (section 3.5).

Each further turn of critique and revision applies another principle to the previous revision, in a new conversation
that starts from the prompt: the model sees the answer to revise, not the critiques of earlier ones.

The principle depends on the run's seed, the prompt's id and the principles' ids (rendezvous hashing): adding one of n
principles changes that of about 1/n of the prompts.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Message, Role
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.data.formats.cai import SL_CAI
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.engine.rehearsal import RowLimit
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.run_stage import Output, run_stage
from nemo_aligner_cai.engine.seeds import rendezvous
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row, RowCounts
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.prompts import Prompt

_QUOTE = 40
"""A revision that starts with this many characters of its critique is dropped."""
_DIRECT_TURNS = 4
"""Turns of a few-shot example without a critique."""
_MARKERS = ("critique:", "critiquerequest:", "critique request:", "revisionrequest:", "revision request:")


@dataclass(frozen=True)
class Turn:
    """One critique and revision by one principle."""

    principle: Principle
    critique: str = ""
    revision: str = ""


@dataclass(frozen=True)
class RevisionSample:
    """A prompt on its way through answer, critiques and revisions.

    Attributes:
        prompt: the prompt.
        answer: the first answer.
        principles: the principles of the turns, in order.
        turns: the turns so far.
        notes: what the summary counts.
    """

    prompt: Prompt
    answer: str = ""
    principles: tuple[Principle, ...] = ()
    turns: tuple[Turn, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The prompt's id."""
        return self.prompt.id

    @property
    def counts(self) -> Counter[str]:
        """The notes, counted."""
        return Counter(self.notes)

    @property
    def latest(self) -> str:
        """The answer or revision to which the next critique applies."""
        finished = [turn.revision for turn in self.turns if turn.revision]
        return finished[-1] if finished else self.answer


@dataclass(frozen=True)
class RevisionPipeline:
    """The steps of SL-CAI: pure functions of a sample.

    Attributes:
        client: the helpful-only model.
        constitution: the principles.
        few_shots: examples shown before each prompt.
        templates: the texts around the principles' requests.
        sampling: parameters of all replies.
        seed: the run's seed.
        num_revisions: turns of critique and revision.
        keep_unrevised: keep a revision that equals the answer (the critique found no fault).
        critique: critique each answer before its revision.
    """

    client: ModelClient
    constitution: Constitution
    few_shots: Sequence[Conversation]
    templates: PromptTemplates
    sampling: Sampling
    seed: int
    num_revisions: int = 1
    keep_unrevised: bool = False
    critique: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for invalid settings."""
        if not self.constitution.for_revision:
            raise UsageError(
                f"the constitution {self.constitution.name!r} has no critique and revision requests, its principles "
                "only judge; add 'critique' and 'revision' to them, or use it for RL-CAI"
            )
        if self.num_revisions < 1:
            raise UsageError(f"the number of revisions must be 1 or more, it is {self.num_revisions}")
        if not self.critique:
            for position, example in enumerate(self.few_shots):
                if len(example.turns) != _DIRECT_TURNS:
                    raise UsageError(
                        f"few-shot example {position} has {len(example.turns)} turns; without critiques an example is "
                        "a prompt, an answer, a revision request and a revision; give such examples, or none"
                    )

    def steps(self) -> list[Step[RevisionSample]]:
        """Return the steps: answer, then critique and revision for each turn."""
        steps = [Step("answer", self.client, self._answer_requests, self._answered)]
        for number in range(self.num_revisions):
            # The number is part of the journal key, so that a run with more turns reuses the calls of one with fewer.
            suffix = f".{number + 1}" if number else ""
            if self.critique:
                steps.append(Step(f"critique{suffix}", self.client, self._critique_requests, self._critiqued))
            steps.append(Step(f"revision{suffix}", self.client, self._revision_requests, self._revised))
        return steps

    def _principles_for(self, prompt: Prompt) -> tuple[Principle, ...]:
        principles = self.constitution.for_revision
        order = rendezvous(self.seed, prompt.id, "principle", names=[principle.id for principle in principles])
        return tuple(principles[order[number % len(order)]] for number in range(self.num_revisions))

    @cached_property
    def _few_shot_messages(self) -> tuple[Message, ...]:
        return tuple(message for example in self.few_shots for message in example.turns)

    def _requests(self, prompt: Prompt, *turns: tuple[Role, str]) -> list[Request]:
        own, examples = prompt.conversation, self._few_shot_messages
        system = own.messages[: len(own.messages) - len(own.turns)]
        added = (Message(role, text) for role, text in turns)
        conversation = Conversation((*system, *examples, *own.turns, *added))
        return [Request(conversation, self.sampling, shared=len(system) + len(examples) if examples else 0)]

    def _answer_requests(self, sample: RevisionSample) -> list[Request]:
        return self._requests(sample.prompt)

    def _answered(self, sample: RevisionSample, completions: Sequence[Completion]) -> RevisionSample:
        answer, notes = _reply(completions, "answer")
        return replace(sample, answer=answer, principles=self._principles_for(sample.prompt), notes=notes)

    def _critique_requests(self, sample: RevisionSample) -> list[Request]:
        principle = sample.principles[len(sample.turns)]
        return self._requests(
            sample.prompt, (Role.ASSISTANT, sample.latest), (Role.USER, self.templates.critique(principle))
        )

    def _critiqued(self, sample: RevisionSample, completions: Sequence[Completion]) -> RevisionSample:
        principle = sample.principles[len(sample.turns)]
        critique, notes = _reply(completions, "critique")
        return replace(sample, turns=(*sample.turns, Turn(principle, critique)), notes=(*sample.notes, *notes))

    def _revision_requests(self, sample: RevisionSample) -> list[Request]:
        current, critique = self._current(sample), ()
        if self.critique:
            critique = (
                (Role.USER, self.templates.critique(current.principle)),
                (Role.ASSISTANT, current.critique),
            )
        revision = (Role.USER, self.templates.revision(current.principle))
        return self._requests(sample.prompt, (Role.ASSISTANT, sample.latest), *critique, revision)

    def _revised(self, sample: RevisionSample, completions: Sequence[Completion]) -> RevisionSample:
        # The revision is trained on, so one that was cut off or contains a template token is dropped, not escaped.
        revision, notes = completions[0].text.strip(), _cut(completions, "revision")
        current = self._current(sample)
        earlier = sample.turns[:-1] if self.critique else sample.turns
        reason = unusable(revision, critique=current.critique) or next(iter(notes), None)
        # A round may find nothing to change: what counts is the distance of the last one from the answer.
        is_last = len(earlier) + 1 == self.num_revisions
        unchanged = is_last and _normalized(revision) == _normalized(sample.answer)
        if reason is None and unchanged and not self.keep_unrevised:
            reason = "revision is the answer unchanged"
        if reason is not None:
            raise SkipRecord(reason, revision[:200], fault=not revision)
        return replace(sample, turns=(*earlier, replace(current, revision=revision)))

    def _current(self, sample: RevisionSample) -> Turn:
        """The turn whose revision is next."""
        return sample.turns[-1] if self.critique else Turn(sample.principles[len(sample.turns)])


def unusable(revision: str, *, critique: str) -> str | None:
    """Return the reason why a revision cannot be an answer to its prompt, else None.

    Weak models repeat the critique, continue it, or start the next one.
    """
    text, criticism = _normalized(revision), _normalized(critique)
    if not text:
        return "empty revision"
    if text == criticism:
        return "revision repeats the critique"
    if len(criticism) >= _QUOTE and text.startswith(criticism[:_QUOTE]):
        return "revision quotes the critique"
    if text.startswith(_MARKERS):
        return "revision starts another critique"
    if NEMO_CHAT.contains_template_token(revision):
        return "revision contains template tokens"
    return None


def _reply(completions: Sequence[Completion], name: str) -> tuple[str, tuple[str, ...]]:
    """Return the model's reply with its template tokens escaped, for the next request, and its notes."""
    text = completions[0].text.strip()
    if not text:
        raise SkipRecord(f"empty {name}", fault=True)
    return NEMO_CHAT.escape(text), _cut(completions, name)


def _cut(completions: Sequence[Completion], name: str) -> tuple[str, ...]:
    return (f"{name} cut at the token limit",) if completions[0].finish_reason == "length" else ()


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())


def revision_row(sample: RevisionSample, templates: PromptTemplates) -> dict[str, Any]:
    """Return the output row of a finished sample."""
    last = sample.turns[-1]
    return {
        "id": sample.id,
        "prompt": sample.prompt.conversation.to_messages(),
        "response": sample.answer,
        "critique": last.critique,
        "revision": last.revision,
        "principle": last.principle.id,
        "rounds": [
            {
                "principle": turn.principle.id,
                "critique_request": templates.critique(turn.principle) if turn.critique else "",
                "critique": turn.critique,
                "revision_request": templates.revision(turn.principle),
                "revision": turn.revision,
            }
            for turn in sample.turns
        ],
    }


def revision_sft_row(sample: RevisionSample) -> Row:
    """Return the SFT row: the prompt and the last revision."""
    return sft_row(sample.prompt.conversation.with_turn(Role.ASSISTANT, sample.latest), dataset=SL_CAI)


async def generate_revisions(
    prompts: Iterable[Prompt],
    pipeline: RevisionPipeline,
    *,
    out_path: Path,
    sft_path: Path,
    journal_path: Path,
    run: RunSettings,
    total: int | None = None,
    read: RowCounts | None = None,
    limits: Sequence[RowLimit[RevisionSample]] = (),
) -> Summary:
    """Make SL-CAI data: one row per prompt in `out_path`, and its SFT row in `sft_path`. The client stays open.

    See `run_stage` for the other arguments and the errors.
    """
    return await run_stage(
        "SL-CAI",
        map(RevisionSample, prompts),
        pipeline.steps(),
        [
            Output(out_path, lambda sample: [revision_row(sample, pipeline.templates)]),
            Output(sft_path, lambda sample: [revision_sft_row(sample)]),
        ],
        journal_path=journal_path,
        run=run,
        total=total,
        read=read,
        limits=limits,
    )
