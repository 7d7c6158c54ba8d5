# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Few-shot examples that precede a judge's question.

Input, one of:
    [{"prompt": "\n\nHuman: ...\n\nAssistant:", "corrects": ["No, because ..."], "incorrects": ["Take a ..."]}, ...]
        comparisons (the paper's RLMadisonFewShotPrompts.json), formatted like the judge's own questions
    [{"prompt": "\n\nHuman: ... {} ...\n\nAssistant: Let's think ...\n\nHuman: So the answer is: (B)"}, ...]
        dialogues with reasoning (the paper's RLMadisonPrecogFewShotPrompts.json); {} is replaced by the principle
    {"samples": [[{"role": "User", "content": ...}, {"role": "Assistant", "content": ...}], ...]}
        any dialogues, used verbatim except that {principle} is replaced
Output: messages
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.constitution import Principle
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, read_unique_json, to_json
from nemo_aligner_cai.prompts import read_few_shots
from nemo_aligner_cai.prompts.transcript import TranscriptError, parse_transcript

_PLACEHOLDER = "{principle}"
_CHOICE_AT_END = re.compile(r"(.*?)\s*(\([A-Z]\))", re.DOTALL)


@dataclass(frozen=True)
class ComparedExample:
    """A prompt with a better and a worse response."""

    conversation: Conversation
    better: str
    worse: str


@dataclass(frozen=True)
class FewShots:
    """Examples: comparisons, dialogues, or none."""

    comparisons: tuple[ComparedExample, ...] = ()
    dialogues: tuple[Conversation, ...] = ()

    @property
    def ordered(self) -> Iterator[tuple[Conversation, tuple[str, str], int]]:
        """Each comparison's conversation, its responses in presentation order, and the index of the better one.

        The better response alternates between first and second, so that the examples teach no position.
        """
        for number, example in enumerate(self.comparisons):
            texts = (example.better, example.worse) if number % 2 == 0 else (example.worse, example.better)
            yield example.conversation, texts, number % 2

    @property
    def dialogue_messages(self) -> list[Message]:
        """The messages of all dialogues."""
        return [message for dialogue in self.dialogues for message in dialogue.turns]


# Cached, since thousands of questions have the same examples.
@lru_cache(maxsize=1024)
def choice_examples(few_shots: FewShots, principle: Principle, templates: PromptTemplates) -> tuple[Message, ...]:
    """Return the messages before a question about two candidates by this principle."""
    messages: list[Message] = []
    for conversation, texts, better in few_shots.ordered:
        messages.append(Message(Role.USER, templates.question(conversation, principle, *texts)))
        messages.append(Message(Role.ASSISTANT, templates.choices[better]))
    for message in few_shots.dialogue_messages:
        content = message.content.replace(_PLACEHOLDER, principle.judge_request or "")
        messages.append(replace(message, content=content))
    return tuple(messages)


@lru_cache(maxsize=16)
def best_worst_examples(few_shots: FewShots, templates: PromptTemplates) -> tuple[Message, ...]:
    """Return the messages before a question for the best and the worst candidate.

    Raises:
        UsageError: an example refers to a single principle.
    """
    messages = few_shots.dialogue_messages
    if any(_PLACEHOLDER in message.content for message in messages):
        raise UsageError("--judge-few-shot-path: best-worst has no single principle to insert into an example")
    for conversation, texts, better in few_shots.ordered:
        answer = {"chosen": better + 1, "rejected": 2 - better}
        messages.append(Message(Role.USER, templates.options(conversation, texts)))
        messages.append(Message(Role.ASSISTANT, to_json(answer).decode()))
    return tuple(messages)


def read_few_shot_file(path: PathLike) -> FewShots:
    """Read a file in one of the forms above.

    Raises:
        UsageError: the file has another form; the message has the number of the example.
    """
    document = read_unique_json(path)
    items: list[Any] = cast(list[Any], document) if isinstance(document, list) else []
    if not items or not all(isinstance(item, dict) and "prompt" in item for item in items):
        return FewShots(dialogues=read_few_shots(path))
    comparisons: list[ComparedExample] = []
    dialogues: list[Conversation] = []
    for position, item in enumerate(cast(list[dict[str, Any]], items)):
        try:
            if "corrects" in item:
                comparisons += _comparisons(item)
            else:
                dialogues.append(_reasoning_dialogue(item))
        except (UsageError, TranscriptError) as error:
            raise UsageError(f"{path}: example {position}: {error}") from error
    if comparisons and dialogues:
        raise UsageError(f"{path}: some examples have 'corrects' and some do not; a file must hold one kind")
    return FewShots(tuple(comparisons), tuple(dialogues))


def _comparisons(item: Mapping[str, Any]) -> Iterator[ComparedExample]:
    better, worse = (item.get(key) for key in ("corrects", "incorrects"))
    match item["prompt"], better, worse:
        case str(prompt), [str(), *_], [str(), *_]:
            conversation = parse_transcript(prompt)
        case _:
            raise UsageError("'prompt' must be a text, 'corrects' and 'incorrects' must be lists of texts")
    if not all(isinstance(text, str) for text in [*cast(list[Any], better), *cast(list[Any], worse)]):
        raise UsageError("'corrects' and 'incorrects' must be lists of texts")
    if conversation.turns[-1].role is Role.ASSISTANT:
        conversation = conversation.without_last()
    for one in cast(list[str], better):
        for other in cast(list[str], worse):
            yield ComparedExample(conversation, one.strip(), other.strip())


def _reasoning_dialogue(item: Mapping[str, Any]) -> Conversation:
    """Parse a dialogue; the answer at the end of its last user turn becomes an assistant turn."""
    text = item["prompt"]
    conversation = parse_transcript(text.replace("{}", _PLACEHOLDER, 1)) if isinstance(text, str) else None
    if conversation is None or conversation.turns[-1].role is not Role.USER or len(conversation.turns) < 3:
        raise UsageError("'prompt' must be a transcript that ends with 'Human: So the answer is: (A)'")
    last = _CHOICE_AT_END.fullmatch(conversation.turns[-1].content)
    if last is None or not last[1]:
        raise UsageError("the last turn must end with the answer, for example 'So the answer is: (A)'")
    return conversation.without_last().with_turn(Role.USER, last[1]).with_turn(Role.ASSISTANT, last[2])
