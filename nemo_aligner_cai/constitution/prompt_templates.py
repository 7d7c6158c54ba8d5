# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The words around principles, answers and candidates, as data: another language needs another file.

Input, the optional section `wording` of a constitution's YAML; what is not there keeps its default:

    wording:
      critique_turn: "{critique}"
      turn: "{role} : {text}"
      judge_question: "{conversation}\n{principle}\n(A) {a}\n(B) {b}"
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import yaml

from nemo_aligner_cai.chat import CONTROL_TOKENS, Conversation, Role
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, read_text
from nemo_aligner_cai.models.base import CHOICE_LEAD

_INSET = 4 * " "
_PLACE = re.compile(r"\{(\w+)\}")
_NAMES = {Role.SYSTEM: "System", Role.USER: "Human", Role.ASSISTANT: "Assistant"}
"""Who speaks, as in Anthropic's transcripts."""
_PLACES = {
    "critique_turn": {"critique"},
    "revision_turn": {"revision"},
    "turn": {"speaker", "role", "name", "text"},
    "judge_question": {"conversation", "principle", "a", "b"},
    "judge_reasoning": {"conversation", "principle", "a", "b"},
    "best_worst_system": {"principles"},
    "best_worst_option": {"number", "text"},
    "best_worst_question": {"conversation", "options"},
}
"""The places that each text may have; `{text}`, `{a}`, `{b}`, `{conversation}` hold what models and users wrote."""


@dataclass(frozen=True)
class PromptWording:
    """Texts with places in braces.

    Raises:
        UsageError: a place that does not exist, or choices that a judge's question does not explain.
    """

    critique_turn: str = "{critique}"
    """What the user says to get a critique; `{critique}` is the principle's request."""
    revision_turn: str = "{revision}"
    """What the user says to get a revision."""
    turn: str = "{speaker}: {text}"
    """One turn of a conversation that a judge is shown; `{speaker}` is "User", `{role}` "user", `{name}` "Human"."""
    turn_separator: str = "\n\n"
    """What stands between two turns."""
    judge_question: str = (
        "Consider the following conversation between a user and an assistant.\n\n{conversation}\n\n"
        "{principle}\n\nOptions:\n(A) {a}\n(B) {b}\n\nAnswer with (A) or (B), and nothing else."
    )
    """What a multiple-choice judge is asked; `{principle}` is the principle's judge request."""
    judge_reasoning: str = (
        "Consider the following conversation between a user and an assistant.\n\n{conversation}\n\n"
        "{principle}\n\nOptions:\n(A) {a}\n(B) {b}\n\n"
        "Think step by step about what speaks for and against each option, by this question alone."
    )
    """What a chain-of-thought judge is asked first."""
    choice_turn: str = "So the answer is? Answer with (A) or (B), and nothing else."
    """What it is asked after its reasoning."""
    choices: tuple[str, str] = ("(A)", "(B)")
    """How the judge's answer begins: the first stands for `{a}`."""
    choice_lead: str = CHOICE_LEAD
    """What stands before the choice in the judge's answer, on servers that can be told how an answer begins."""
    best_worst_system: str = (
        "You compare an assistant's answers by these principles:\n\n{principles}\n\n"
        'Answer with a JSON object on the first line, {"chosen": <number of the best answer>, '
        '"rejected": <number of the worst answer>}, and explain your choice below it.'
    )
    """The system message of a best-and-worst judge."""
    best_worst_option: str = "#{number}:\n{text}"
    """One candidate, as a best-and-worst judge is shown it."""
    best_worst_question: str = "{conversation}\n\n{options}\n\nName the best and the worst answer as instructed."
    """What a best-and-worst judge is asked."""

    def __post_init__(self) -> None:
        for name, places in _PLACES.items():
            found = set(_PLACE.findall(getattr(self, name)))
            if not found <= places:
                known = ", ".join(f"{{{place}}}" for place in sorted(places))
                raise UsageError(f"wording: {name}: unknown place {{{min(found - places)}}}; there are {known}")
        if len(set(self.choices)) != 2:
            raise UsageError(f"wording: choices: two different texts are needed, not {list(self.choices)}")
        for name in ("judge_question", "judge_reasoning"):
            for place in ("a", "b"):
                if f"{{{place}}}" not in getattr(self, name):
                    raise UsageError(f"wording: {name}: the place {{{place}}} is missing")

    def critique(self, principle: Principle) -> str:
        """The user's turn that asks for a critique."""
        return _fill(self.critique_turn, critique=principle.critique_request)

    def revision(self, principle: Principle) -> str:
        """The user's turn that asks for a revision."""
        return _fill(self.revision_turn, revision=principle.revision_request)

    def conversation(self, conversation: Conversation) -> str:
        """A conversation as a judge is shown it."""
        return self.turn_separator.join(
            _fill(
                self.turn,
                {"text": turn.content},
                speaker=turn.role.speaker,
                role=turn.role.value,
                name=_NAMES[turn.role],
            )
            for turn in conversation.turns
        )

    def question(self, conversation: Conversation, principle: Principle, a: str, b: str) -> str:
        """A multiple-choice judge's question."""
        return self._compare(self.judge_question, conversation, principle, a, b)

    def reasoning_question(self, conversation: Conversation, principle: Principle, a: str, b: str) -> str:
        """A chain-of-thought judge's first question."""
        return self._compare(self.judge_reasoning, conversation, principle, a, b)

    def _compare(self, text: str, conversation: Conversation, principle: Principle, a: str, b: str) -> str:
        return _fill(
            text,
            {"a": a, "b": b},
            conversation=self.conversation(conversation),
            principle=principle.judge_request or "",
        )

    def constitution(self, constitution: Constitution) -> str:
        """A best-and-worst judge's system message."""
        requests = (f"- {principle.judge_request}" for principle in constitution.for_judging)
        return _fill(self.best_worst_system, principles="\n".join(requests))

    def options(self, conversation: Conversation, candidates: Sequence[str]) -> str:
        """A best-and-worst judge's question."""
        options = "\n\n".join(
            _fill(self.best_worst_option, {"text": text}, number=str(number))
            for number, text in enumerate(candidates, start=1)
        )
        return _fill(self.best_worst_question, conversation=self.conversation(conversation), options=options)


def load_wording(path: PathLike) -> PromptWording:
    """The section `wording` of a constitution's YAML, the defaults where there is none (as in Anthropic's JSON).

    Raises:
        UsageError: an unknown key, a value that is not a text, or an unknown place.
    """
    if Path(path).suffix in (".json", ".txt"):
        return PromptWording()
    try:
        document: Any = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}") from error
    section: Any = cast(dict[str, Any], document).get("wording") if isinstance(document, dict) else None
    if section is None:
        return PromptWording()
    known = {field.name for field in fields(PromptWording)}
    if not isinstance(section, dict) or not set(cast(dict[str, Any], section)) <= known:
        raise UsageError(f"{path}: wording: the keys may be {', '.join(sorted(known))}")
    values = cast(dict[str, Any], section)
    for key, value in values.items():
        parts = cast(list[Any], value) if key == "choices" and isinstance(value, list) else [value]
        if not all(isinstance(part, str) for part in parts) or (key == "choices" and len(parts) != 2):
            raise UsageError(f"{path}: wording: {key}: {'two texts are' if key == 'choices' else 'a text is'} needed")
    if "choices" in values:
        values["choices"] = tuple(values["choices"])
    try:
        return PromptWording(**values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _fill(template: str, said: Mapping[str, str] | None = None, **values: str) -> str:
    """The template with its places filled by our own texts, `values`, and by what models and users `said`.

    Of the latter, lines are indented, but for a first one that goes on with a line of ours: its own line "(B) ..." or
    "Assistant: ..." cannot pass for one of these.
    """

    def text_of(place: re.Match[str]) -> str:
        name = place[1]
        if said is None or name not in said:
            return values[name]
        begins = not template[: place.start()].rpartition("\n")[2].strip()
        return _INSET * begins + f"\n{_INSET}".join(without_markup(said[name]).strip().splitlines())

    # In one pass: a text that is filled in and contains "{b}" stays as it is.
    return _PLACE.sub(text_of, template)


def without_markup(text: str) -> str:
    """A text with a space in whatever a judge's server might take for its template's tokens, wherever it stands."""
    return CONTROL_TOKENS.escape(text)
