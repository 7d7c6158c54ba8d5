# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The prompt templates around principles, answers and candidates.

Input, the optional section `wording` of a constitution's YAML; missing keys keep their defaults:

    wording:
      critique_turn: "{critique}"
      turn: "{role} : {text}"
      judge_question: "{conversation}\n{principle}\n(A) {a}\n(B) {b}"
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationInfo, field_validator

from nemo_aligner_cai.chat import JUDGED_TOKENS, Conversation, Role
from nemo_aligner_cai.chat.special_tokens import SpecialTokens
from nemo_aligner_cai.constitution.constitution import Constitution, Principle
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.files.yaml_text import read_yaml
from nemo_aligner_cai.models.base import CHOICE_LEAD
from nemo_aligner_cai.sections import Config, SectionError

INDENT = 4 * " "
"""Before lines of untrusted text, so that none looks like a line of a template."""
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_DELIMITED = re.compile(r"([^\w\s{}]{2,})?\{(?:text|a|b|conversation|options)\}([^\w\s{}]{2,})?")
"""Two or more signs right before or after an untrusted text; one, such as a full stop, is in every text."""
_NAMES = {Role.SYSTEM: "System", Role.USER: "Human", Role.ASSISTANT: "Assistant"}
"""The speakers' names in Anthropic's transcripts."""
_PLACEHOLDERS = {
    "critique_turn": {"critique"},
    "revision_turn": {"revision"},
    "turn": {"speaker", "role", "name", "text"},
    "judge_question": {"conversation", "principle", "a", "b"},
    "judge_reasoning": {"conversation", "principle", "a", "b"},
    "best_worst_system": {"principles"},
    "best_worst_option": {"number", "text"},
    "best_worst_question": {"conversation", "options"},
}
"""The placeholders of each template; `{text}`, `{a}`, `{b}` and `{conversation}` hold text of models and users."""
_OPTIONAL = {"speaker", "role", "name", "conversation"}
"""Every other placeholder holds what a model is asked about, without which its answers mean nothing."""


class PromptTemplates(Config):
    """Texts with placeholders in braces.

    Raises:
        UsageError: a placeholder is unknown or missing, or the choices are equal.
    """

    critique_turn: str = "{critique}"
    """The user turn that requests a critique; `{critique}` is the principle's request."""
    revision_turn: str = "{revision}"
    """The user turn that requests a revision."""
    turn: str = "{speaker}: {text}"
    """One message of a conversation in a judge's prompt; `{speaker}` is "User", `{role}` "user", `{name}` "Human"."""
    turn_separator: str = "\n\n"
    """The text between two turns."""
    judge_question: str = (
        "Consider the following conversation between a user and an assistant.\n\n{conversation}\n\n"
        "{principle}\n\nOptions:\n(A) {a}\n(B) {b}\n\nAnswer with (A) or (B), and nothing else."
    )
    """The question of a multiple-choice judge; `{principle}` is the principle's judge request."""
    judge_reasoning: str = (
        "Consider the following conversation between a user and an assistant.\n\n{conversation}\n\n"
        "{principle}\n\nOptions:\n(A) {a}\n(B) {b}\n\n"
        "Think step by step about what speaks for and against each option, by this question alone."
    )
    """The first question of a chain-of-thought judge."""
    choice_turn: str = "So the answer is? Answer with (A) or (B), and nothing else."
    """The question after its reasoning."""
    choices: tuple[str, str] = ("(A)", "(B)")
    """The start of the judge's answer for `{a}` and for `{b}`."""
    choice_lead: str = CHOICE_LEAD
    """The text before the choice in the judge's answer, on servers that can continue an answer."""
    best_worst_system: str = (
        "You compare an assistant's answers by these principles:\n\n{principles}\n\n"
        'Answer with a JSON object on the first line, {"chosen": <number of the best answer>, '
        '"rejected": <number of the worst answer>}, and explain your choice below it.'
    )
    """The system message of a best-worst judge."""
    best_worst_option: str = "#{number}:\n{text}"
    """One candidate in a best-worst judge's question."""
    best_worst_question: str = "{conversation}\n\n{options}\n\nName the best and the worst answer as instructed."
    """The question of a best-worst judge."""

    if TYPE_CHECKING:  # pydantic generates it, since the model is frozen

        def __hash__(self) -> int: ...

    @field_validator(*_PLACEHOLDERS)
    @classmethod
    def _check_placeholders(cls, template: str, info: ValidationInfo) -> str:
        name = str(info.field_name)
        found, known = set(_PLACEHOLDER.findall(template)), _PLACEHOLDERS[name]
        if unknown := found - known:
            listed = ", ".join(f"{{{place}}}" for place in sorted(known))
            raise ValueError(f"unknown placeholder {{{min(unknown)}}}; known: {listed}")
        if missing := known - _OPTIONAL - found:
            raise ValueError(f"the placeholder {{{min(missing)}}} is missing")
        return template

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, choices: tuple[str, str]) -> tuple[str, str]:
        if choices[0] == choices[1]:
            raise ValueError(f"two different texts are needed, got {list(choices)}")
        return choices

    def critique(self, principle: Principle) -> str:
        """The user turn that requests a critique."""
        return _fill(self.critique_turn, critique=principle.critique_request)

    def revision(self, principle: Principle) -> str:
        """The user turn that requests a revision."""
        return _fill(self.revision_turn, revision=principle.revision_request)

    def conversation(self, conversation: Conversation) -> str:
        """A conversation as it is shown to a judge, with its system message unless that is empty."""
        messages = conversation.messages if conversation.system.strip() else conversation.turns
        return self.turn_separator.join(
            _fill(
                self.turn,
                {"text": message.content},
                speaker=message.role.speaker,
                role=message.role.value,
                name=_NAMES[message.role],
            )
            for message in messages
        )

    def question(self, conversation: Conversation, principle: Principle, a: str, b: str) -> str:
        """The question of a multiple-choice judge."""
        return self._compare(self.judge_question, conversation, principle, a, b)

    def reasoning_question(self, conversation: Conversation, principle: Principle, a: str, b: str) -> str:
        """The first question of a chain-of-thought judge."""
        return self._compare(self.judge_reasoning, conversation, principle, a, b)

    def _compare(self, text: str, conversation: Conversation, principle: Principle, a: str, b: str) -> str:
        return _fill(
            text,
            {"a": a, "b": b},
            conversation=_delimiters(text).escape(self.conversation(conversation)),
            principle=principle.judge_request or "",
        )

    def constitution(self, constitution: Constitution) -> str:
        """The system message of a best-worst judge."""
        requests = (f"- {principle.judge_request}" for principle in constitution.for_judging)
        return _fill(self.best_worst_system, principles="\n".join(requests))

    def options(self, conversation: Conversation, candidates: Sequence[str]) -> str:
        """The question of a best-worst judge."""
        options = "\n\n".join(
            _fill(self.best_worst_option, {"text": text}, number=str(number))
            for number, text in enumerate(candidates, start=1)
        )
        escape = _delimiters(self.best_worst_question).escape
        conversation_text = escape(self.conversation(conversation))
        return _fill(self.best_worst_question, conversation=conversation_text, options=escape(options))


def load_prompt_templates(path: PathLike) -> PromptTemplates:
    """Read the section `wording` of a constitution's YAML; JSON and text files have the defaults.

    Raises:
        UsageError: a key is unknown, or a value is not a text or has wrong placeholders.
    """
    if Path(path).suffix in (".json", ".txt"):
        return PromptTemplates()
    document: Any = read_yaml(path)
    section: Any = cast(dict[str, Any], document).get("wording") if isinstance(document, dict) else None
    if section is None:
        return PromptTemplates()
    known = PromptTemplates.model_fields
    if not isinstance(section, dict) or not set(cast(dict[str, Any], section)) <= set(known):
        raise UsageError(f"{path}: wording: the keys may be {', '.join(known)}")
    try:
        return PromptTemplates(**cast(dict[str, Any], section))
    except SectionError as error:
        raise UsageError(f"{path}: wording: {error.key}: {error.problem}") from error


def continued(text: str) -> str:
    """Return an untrusted text with all lines but the first one indented."""
    return f"\n{INDENT}".join(text.splitlines())


@cache
def _delimiters(template: str) -> SpecialTokens:
    """The delimiters of a template's texts, such as "[[[" and "]]]" in "(A) [[[{a}]]]"; none for "(A) {a}"."""
    return SpecialTokens(one for pair in _DELIMITED.findall(template) for one in pair if one)


def _fill(template: str, untrusted: Mapping[str, str] | None = None, **trusted: str) -> str:
    """Fill a template's placeholders.

    Lines of untrusted text are indented, except a first line that continues a line of the template: its own line
    "(B) ..." or "Assistant: ..." must not look like one of the template's. Its control tokens and reasoning tags are
    broken: a quoted tag must not end the judge's own reasoning. So are the template's delimiters of texts.
    """
    delimiters = _delimiters(template)

    def text_of(place: re.Match[str]) -> str:
        name = place[1]
        if untrusted is None or name not in untrusted:
            return trusted[name]
        begins = not template[: place.start()].rpartition("\n")[2].strip()
        return INDENT * begins + continued(delimiters.escape(JUDGED_TOKENS.escape(untrusted[name])).strip())

    # In one pass: an inserted text that contains "{b}" stays as it is.
    return _PLACEHOLDER.sub(text_of, template)
