# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Examples that a judge is shown before its question.

Input, one of:
    [{"prompt": "\n\nHuman: ...\n\nAssistant:", "corrects": ["No, because ..."], "incorrects": ["Take a ..."]}, ...]
        comparisons (the paper's RLMadisonFewShotPrompts.json): put as the judge's own questions are
    [{"prompt": "\n\nHuman: ... {} ...\n\nAssistant: Let's think ...\n\nHuman: So the answer is: (B)"}, ...]
        dialogues with a reasoning (its RLMadisonPrecogFewShotPrompts.json); {} stands for the principle
    {"samples": [[{"role": "User", "content": ...}, {"role": "Assistant", "content": ...}], ...]}
        dialogues of any kind, taken to the letter, but for {principle}
Output: messages
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.constitution import Principle
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, read_json, to_json
from nemo_aligner_cai.prompts import read_few_shots
from nemo_aligner_cai.prompts.transcript import TranscriptError, parse_transcript

_PLACE = "{principle}"
_CHOICE_AT_END = re.compile(r"(.*?)\s*(\([A-Z]\))", re.DOTALL)


@dataclass(frozen=True)
class ComparedExample:
    """A prompt with a better and a worse response."""

    conversation: Conversation
    better: str
    worse: str

    def shown(self, position: int) -> tuple[tuple[str, str], int]:
        """The two responses in the order in which they are shown, and which is better: in turn the first, the second.

        So no example teaches that the better one has a place of its own.
        """
        return ((self.better, self.worse), 0) if position % 2 == 0 else ((self.worse, self.better), 1)


@dataclass(frozen=True)
class FewShots:
    """Examples of one kind, or none."""

    comparisons: tuple[ComparedExample, ...] = ()
    dialogues: tuple[Conversation, ...] = ()

    def for_choice(self, principle: Principle, wording: PromptTemplates) -> tuple[Message, ...]:
        """Messages before a multiple-choice question by this principle."""
        return _choice_messages(self, principle, wording)

    def for_reasoning(self, principle: Principle, wording: PromptTemplates) -> tuple[Message, ...]:
        """Messages before a question that asks for a reasoning.

        Raises:
            UsageError: the examples are comparisons, which have none.
        """
        if self.comparisons:
            raise UsageError(
                "--judge-few-shot-path: comparisons hold no reasoning; give dialogues to a judge that thinks first"
            )
        return self.for_choice(principle, wording)

    def for_best_worst(self, wording: PromptTemplates) -> tuple[Message, ...]:
        """Messages before a question for the best and the worst.

        Raises:
            UsageError: an example names a principle, of which this judge has none.
        """
        return _best_worst_messages(self, wording)


@lru_cache(maxsize=1024)
def _choice_messages(shots: FewShots, principle: Principle, wording: PromptTemplates) -> tuple[Message, ...]:
    # Made once for each principle: the same messages stand in thousands of questions.
    messages: list[Message] = []
    for position, example in enumerate(shots.comparisons):
        texts, better = example.shown(position)
        messages.append(Message(Role.USER, wording.question(example.conversation, principle, *texts)))
        messages.append(Message(Role.ASSISTANT, wording.choices[better]))
    for message in _messages(shots.dialogues):
        messages.append(replace(message, content=message.content.replace(_PLACE, principle.judge_request or "")))
    return tuple(messages)


@lru_cache(maxsize=16)
def _best_worst_messages(shots: FewShots, wording: PromptTemplates) -> tuple[Message, ...]:
    messages = list(_messages(shots.dialogues))
    if any(_PLACE in message.content for message in messages):
        raise UsageError("--judge-few-shot-path: best-worst has no single principle to put into an example")
    for position, example in enumerate(shots.comparisons):
        texts, better = example.shown(position)
        answer = {"chosen": better + 1, "rejected": 2 - better}
        messages.append(Message(Role.USER, wording.options(example.conversation, texts)))
        messages.append(Message(Role.ASSISTANT, to_json(answer).decode()))
    return tuple(messages)


def _messages(dialogues: Sequence[Conversation]) -> Iterator[Message]:
    for dialogue in dialogues:
        yield from dialogue.turns


def read_judge_shots(path: PathLike) -> FewShots:
    """Read a file of the module's docstring.

    Raises:
        UsageError: it is of another form; with the example's number.
    """
    document = read_json(path)
    items: list[Any] = cast(list[Any], document) if isinstance(document, list) else []
    if not items or not all(isinstance(item, dict) and "prompt" in item for item in items):
        return FewShots(dialogues=read_few_shots(path))
    comparisons: list[ComparedExample] = []
    dialogues: list[Conversation] = []
    for position, item in enumerate(cast(list[dict[str, Any]], items)):
        try:
            if "corrects" in item:
                comparisons += _compared(item)
            else:
                dialogues.append(_reasoned(item))
        except (UsageError, TranscriptError) as error:
            raise UsageError(f"{path}: example {position}: {error}") from error
    if comparisons and dialogues:
        raise UsageError(f"{path}: some examples have 'corrects' and some have not; a file holds one kind")
    return FewShots(tuple(comparisons), tuple(dialogues))


def _compared(item: Mapping[str, Any]) -> Iterator[ComparedExample]:
    better, worse = (item.get(key) for key in ("corrects", "incorrects"))
    match item["prompt"], better, worse:
        case str(prompt), [str(), *_], [str(), *_]:
            conversation = parse_transcript(prompt)
        case _:
            raise UsageError("needs a text 'prompt', and lists of texts 'corrects' and 'incorrects'")
    if conversation.turns[-1].role is Role.ASSISTANT:
        conversation = conversation.without_last()
    for one in cast(list[str], better):
        for other in cast(list[str], worse):
            yield ComparedExample(conversation, one.strip(), other.strip())


def _reasoned(item: Mapping[str, Any]) -> Conversation:
    """A dialogue whose last user turn ends with the answer, which becomes a turn of the assistant's."""
    text = item["prompt"]
    conversation = parse_transcript(text.replace("{}", _PLACE, 1)) if isinstance(text, str) else None
    if conversation is None or conversation.turns[-1].role is not Role.USER or len(conversation.turns) < 3:
        raise UsageError("needs a transcript that ends with 'Human: So the answer is: (A)'")
    last = _CHOICE_AT_END.fullmatch(conversation.turns[-1].content)
    if last is None or not last[1]:
        raise UsageError("its last turn must end with the answer, such as 'So the answer is: (A)'")
    return conversation.without_last().with_turn(Role.USER, last[1]).with_turn(Role.ASSISTANT, last[2])
