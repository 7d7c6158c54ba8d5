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

With several rounds, each one critiques the revision before it by another principle, in a fresh conversation that
starts from the prompt: the model sees the answer that it is to mend, and not what was wrong with earlier ones.

Which principle a prompt gets depends on the run's seed, the prompt's id and the principles' ids, and hardly changes
when principles are added or removed: a new one takes over about 1/n of the prompts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
from nemo_aligner_cai.engine.seeds import rendezvous
from nemo_aligner_cai.engine.stage import Output, Row, RunOptions, run_stage
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, RowCounts
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling
from nemo_aligner_cai.prompts import Prompt

_QUOTE = 40
"""Characters of a critique that a revision may not start with."""
_MARKERS = ("critique:", "critiquerequest:", "critique request:", "revisionrequest:", "revision request:")


@dataclass(frozen=True)
class Turn:
    """One critique and revision by one principle."""

    principle: Principle
    critique: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Revised:
    """A prompt on its way; `answer` is the first answer, the rounds' revisions come after it.

    `principles` are those that the rounds use, in their order. `notes` say what a summary should count.
    """

    prompt: Prompt
    answer: str = ""
    principles: tuple[Principle, ...] = ()
    rounds: tuple[Turn, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The prompt's."""
        return self.prompt.id

    @property
    def latest(self) -> str:
        """The answer that the next critique is about."""
        finished = [done.revision for done in self.rounds if done.revision]
        return finished[-1] if finished else self.answer


@dataclass(frozen=True)
class RevisionPipeline:
    """The steps of SL-CAI. Pure functions of a record; see the module.

    Attributes:
        client: the helpful-only model.
        constitution: whose principles are drawn.
        few_shots: examples shown before each prompt.
        wording: the words around the principles' requests.
        sampling: how all three kinds of reply are drawn.
        seed: the run's.
        num_revisions: rounds of critique and revision.
        keep_unrevised: keep a revision that equals the answer (the critique found nothing wrong).
    """

    client: ModelClient
    constitution: Constitution
    few_shots: Sequence[Conversation]
    wording: PromptTemplates
    sampling: Sampling
    seed: int
    num_revisions: int = 1
    keep_unrevised: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for settings that cannot work."""
        if not self.constitution.for_revision:
            raise UsageError(
                f"the constitution {self.constitution.name!r} has no critique and revision requests, its principles "
                "only judge; add 'critique' and 'revision' to them, or use it for RL-CAI"
            )
        if self.num_revisions < 1:
            raise UsageError(f"the number of revisions must be 1 or more, it is {self.num_revisions}")

    def steps(self) -> list[Step[Revised]]:
        """Answer, then critique and revision for each round."""
        steps = [Step("answer", self.client, self._ask, self._answered)]
        for number in range(self.num_revisions):
            # The round is part of the name: a further round later repeats none of the earlier ones.
            suffix = f".{number + 1}" if number else ""
            steps.append(Step(f"critique{suffix}", self.client, self._ask_critique, self._critiqued))
            steps.append(Step(f"revision{suffix}", self.client, self._ask_revision, self._revised))
        return steps

    def principles_for(self, prompt: Prompt) -> tuple[Principle, ...]:
        """The principles in the order in which the prompt's rounds use them."""
        principles = self.constitution.for_revision
        order = rendezvous(self.seed, prompt.id, "principle", names=[principle.id for principle in principles])
        return tuple(principles[order[number % len(order)]] for number in range(self.num_revisions))

    @cached_property
    def _shots(self) -> tuple[Message, ...]:
        return tuple(message for shot in self.few_shots for message in shot.turns)

    def _request(self, prompt: Prompt, *turns: tuple[Role, str]) -> list[Request]:
        own = prompt.conversation
        system = own.messages[: len(own.messages) - len(own.turns)]
        added = (Message(role, text) for role, text in turns)
        conversation = Conversation((*system, *self._shots, *own.turns, *added))
        return [Request(conversation, self.sampling, shared=len(system) + len(self._shots) if self._shots else 0)]

    def _ask(self, record: Revised) -> list[Request]:
        return self._request(record.prompt)

    def _answered(self, record: Revised, completions: Sequence[Completion]) -> Revised:
        answer, notes = _said(completions, "answer")
        principles = self.principles_for(record.prompt)
        return replace(record, answer=answer, principles=principles, notes=notes)

    def _ask_critique(self, record: Revised) -> list[Request]:
        principle = record.principles[len(record.rounds)]
        return self._request(
            record.prompt, (Role.ASSISTANT, record.latest), (Role.USER, self.wording.critique(principle))
        )

    def _critiqued(self, record: Revised, completions: Sequence[Completion]) -> Revised:
        principle = record.principles[len(record.rounds)]
        critique, notes = _said(completions, "critique")
        return replace(record, rounds=(*record.rounds, Turn(principle, critique)), notes=(*record.notes, *notes))

    def _ask_revision(self, record: Revised) -> list[Request]:
        current = record.rounds[-1]
        return self._request(
            record.prompt,
            (Role.ASSISTANT, record.latest),
            (Role.USER, self.wording.critique(current.principle)),
            (Role.ASSISTANT, current.critique),
            (Role.USER, self.wording.revision(current.principle)),
        )

    def _revised(self, record: Revised, completions: Sequence[Completion]) -> Revised:
        # It would be trained on: cut off, or with a template token in it, it must not be.
        revision, notes = completions[0].text.strip(), _cut(completions, "revision")
        current = record.rounds[-1]
        reason = unusable(revision, critique=current.critique) or next(iter(notes), None)
        if reason is None and not self.keep_unrevised and _plain(revision) == _plain(record.latest):
            reason = "revision is the answer unchanged"
        if reason is not None:
            raise SkipRecord(reason, revision[:200], fault=not revision)
        return replace(record, rounds=(*record.rounds[:-1], replace(current, revision=revision)))


def unusable(revision: str, *, critique: str) -> str | None:
    """Why a revision is no answer to its prompt, None where it may be one.

    Models that lose the thread repeat the critique, go on with it, or start the next one.
    """
    plain, criticism = _plain(revision), _plain(critique)
    if not plain:
        return "empty revision"
    if plain == criticism:
        return "revision repeats the critique"
    if criticism[:_QUOTE] and len(criticism) >= _QUOTE and plain.startswith(criticism[:_QUOTE]):
        return "revision quotes the critique"
    if plain.startswith(_MARKERS):
        return "revision starts another critique"
    if NEMO_CHAT.contains_template_token(revision):
        return "revision contains template tokens"
    return None


def _said(completions: Sequence[Completion], what: str) -> tuple[str, tuple[str, ...]]:
    """What the model said, for the next step to read, and what is to be noted of it.

    A template token in it loses its meaning.
    """
    text = completions[0].text.strip()
    if not text:
        raise SkipRecord(f"empty {what}", fault=True)
    return NEMO_CHAT.escape(text), _cut(completions, what)


def _cut(completions: Sequence[Completion], what: str) -> tuple[str, ...]:
    return (f"{what} cut at the token limit",) if completions[0].finish_reason == "length" else ()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def revision_row(record: Revised, wording: PromptTemplates) -> dict[str, Any]:
    """The output row of the module's docstring."""
    last = record.rounds[-1]
    return {
        "id": record.id,
        "prompt": record.prompt.conversation.to_messages(),
        "response": record.answer,
        "critique": last.critique,
        "revision": last.revision,
        "principle": last.principle.id,
        "rounds": [
            {
                "principle": done.principle.id,
                "critique_request": wording.critique(done.principle),
                "critique": done.critique,
                "revision_request": wording.revision(done.principle),
                "revision": done.revision,
            }
            for done in record.rounds
        ],
    }


def revision_sft_row(record: Revised) -> Row:
    """The row that SFT trains on: the prompt and the last revision."""
    return sft_row(record.prompt.conversation.with_turn(Role.ASSISTANT, record.latest), dataset=SL_CAI)


def fresh_records(prompts: Iterable[Prompt]) -> Iterator[Revised]:
    """Records that nothing has been done with."""
    return (Revised(prompt) for prompt in prompts)


async def generate_revisions(
    prompts: Iterable[Prompt],
    client: ModelClient,
    constitution: Constitution,
    *,
    few_shots: Sequence[Conversation] = (),
    wording: PromptTemplates | None = None,
    sampling: Sampling,
    out_path: PathLike,
    journal_path: PathLike,
    sft_path: PathLike | None = None,
    num_revisions: int = 1,
    keep_unrevised: bool = False,
    options: RunOptions | None = None,
    read: RowCounts | None = None,
) -> Summary:
    """Make SL-CAI data.

    Args:
        prompts: read lazily.
        client: the helpful-only model; left open.
        constitution: whose principles are drawn, one per prompt and round.
        few_shots: examples of answer, critique and revision.
        wording: the words around the principles.
        sampling: how replies are drawn; no seed.
        out_path: receives the rows of the module's docstring.
        journal_path: where finished calls are kept.
        sft_path: receives SFT chat rows of prompt and revision.
        num_revisions: rounds.
        keep_unrevised: keep revisions that equal the answer.
        options: seed, resume and the like.
        read: the counts that `prompts` fills while it is read.

    Raises:
        UsageError: something is wrong with the settings or the outputs; nothing was asked.
        CaiError: see `run_stage`.
    """
    options = options or RunOptions()
    wording = wording or PromptTemplates()
    revising = RevisionPipeline(
        client, constitution, few_shots, wording, sampling, options.seed, num_revisions, keep_unrevised
    )
    outputs = [Output(Path(out_path), lambda record: [revision_row(record, wording)])]
    if sft_path is not None:
        outputs.append(Output(Path(sft_path), lambda record: [revision_sft_row(record)]))
    return await run_stage(
        "SL-CAI",
        fresh_records(prompts),
        revising.steps(),
        outputs,
        journal_path=journal_path,
        options=options,
        read=read,
        prompt_of=lambda record: record.prompt.conversation.to_messages(),
        facts_of=lambda record: Counter(record.notes),
    )
