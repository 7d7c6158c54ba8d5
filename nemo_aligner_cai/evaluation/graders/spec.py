# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A grader as data: prompt, classes, parser, source and license, in a YAML file.

    name: or-bench
    description: direct answer, direct refusal or indirect refusal
    source: https://github.com/justincui03/or-bench, ...
    license: ...
    parser: bracketed                      strings, options, bracketed or rubric; see `parsing.py`
    classes: {direct_answer: "any direct attempt ...", direct_refusal: "...", indirect_refusal: "..."}
    complies: [direct_answer]              classes that count as compliance, for harmful_compliance
    refuses: [direct_refusal, indirect_refusal]
    prompt: "... {classes} ... {prompt} ... {reply} ..."

Another package adds a grader as a component of kind "graders": a function without arguments that returns a Grader.
"""

import re
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

from pydantic import Field, model_validator

from nemo_aligner_cai import registry
from nemo_aligner_cai.evaluation.results import Side
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.sections import Section, load_config

Parser = Literal["strings", "options", "bracketed", "rubric"]
EMPTY = "empty"
"""Class of an empty reply, which no model is asked about."""
REFUSED, ANSWERED = "refused", "answered"
"""The classes of a rubric."""
REFUSAL = "refusal"
"""The number of a rubric that tells them apart: 1 for a refusal, else 0."""
MAX_SCORE = 99
"""The greatest number in a rubric's answer."""
_YAML = (".yaml", ".yml")
_PLACEHOLDER = re.compile(r"\{(prompt|reply|classes)\}")


class Grader(Section):
    """A grader.

    Attributes:
        name: its name in files and results.
        description: one line for users.
        source: origin of the rubric.
        license: license of the rubric.
        parser: how a grade is read; see `parsing.py`.
        classes: class -> its definition; those of a rubric are `refused` and `answered`.
        complies: classes that count as compliance.
        refuses: classes that count as refusal.
        evades: classes that count as evasion, in addition to empty replies.
        prompt: the question, with {prompt}, {reply} and {classes}; "" for strings.
        system: the system message.
        prefixes: for strings: class -> beginnings of the lower-case reply.
        otherwise: for strings: the class of all other replies.
        scores: for a rubric: name of each number -> its range; "refusal" is 0 or 1.
        sides: the sides of prompts whose replies are graded.
        assumed: class of the replies that the first grader calls compliant; the model is asked about the others only.
            "" asks about all replies.
        max_tokens: limit of the model's text.
        reply_chars: longer replies are shortened in the middle.
        prompt_chars: the same for prompts.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str
    source: str
    license: str
    parser: Parser
    classes: dict[str, str]
    complies: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    evades: tuple[str, ...] = ()
    prompt: str = ""
    system: str = ""
    prefixes: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    otherwise: str = ""
    scores: dict[str, tuple[int, int]] = Field(default_factory=dict[str, tuple[int, int]])
    sides: tuple[Side, ...] = ("harmful", "benign")
    assumed: str = ""
    max_tokens: int = Field(default=512, gt=0)
    reply_chars: int = Field(default=8000, ge=100)
    prompt_chars: int = Field(default=4000, ge=100)

    @property
    def asks_model(self) -> bool:
        """True if a model grades."""
        return self.parser != "strings"

    @property
    def scored(self) -> bool:
        """True if its grades have scores."""
        return bool(self.scores)

    @property
    def all_classes(self) -> tuple[str, ...]:
        """The classes in order, with that of empty replies, which no model is asked about."""
        return (*self.classes, EMPTY) if self.asks_model else tuple(self.classes)

    @model_validator(mode="after")
    def _check(self) -> "Grader":
        assigned = filter(None, (self.otherwise, self.assumed))
        named = {*self.complies, *self.refuses, *self.evades, *self.prefixes, *assigned}
        if unknown := named - set(self.classes):
            raise ValueError(f"unknown class {min(unknown)!r}; the classes are {', '.join(self.classes)}")
        if len(self.classes) < 2 or EMPTY in self.classes:
            raise ValueError(f"needs at least two classes, other than {EMPTY!r}")
        if self.parser == "strings":
            if not (self.prefixes and self.otherwise):
                raise ValueError("the parser 'strings' needs 'prefixes' and 'otherwise'")
        elif not {"prompt", "reply"} <= set(_PLACEHOLDER.findall(self.prompt)):
            raise ValueError("'prompt' needs the placeholders {prompt} and {reply}")
        # The letters of the options are only in {classes}.
        if self.parser == "options" and "{classes}" not in self.prompt:
            raise ValueError("'prompt' needs the placeholder {classes} for the parser 'options'")
        if self.parser == "options" and len(self.classes) > len(ascii_uppercase):
            raise ValueError(f"{len(self.classes)} classes; 'options' has {len(ascii_uppercase)} letters for them")
        if (self.parser == "rubric") != self.scored:
            raise ValueError("'scores' belongs to the parser 'rubric'")
        if self.parser == "bracketed":
            self._check_bracketed()
        if self.parser == "rubric":
            self._check_rubric()
        return self

    def _check_bracketed(self) -> None:
        names = {name.casefold() for name in self.classes}
        if len(names) < len(self.classes) or any(set("[]\n") & set(name) or name != name.strip() for name in names):
            raise ValueError("classes of the parser 'bracketed' must differ in more than case, and have no brackets")

    def _check_rubric(self) -> None:
        if set(self.classes) != {REFUSED, ANSWERED}:
            raise ValueError(f"the classes of the parser 'rubric' are {REFUSED!r} and {ANSWERED!r}")
        others = [ends for name, ends in self.scores.items() if name != REFUSAL]
        if self.scores.get(REFUSAL) != (0, 1) or not others:
            raise ValueError(f"'scores' needs {REFUSAL!r}: [0, 1], and another number")
        if any(not 0 <= low < high <= MAX_SCORE for low, high in others):
            raise ValueError(f"'scores': a range is two numbers from 0 to {MAX_SCORE}, the lower one first")


def read_grader(path: PathLike) -> Grader:
    """Read a grader's YAML file.

    Raises:
        UsageError: the file cannot be read, or a key is unknown, missing or wrong.
    """
    return load_config(Path(path), (), Grader)


def is_grader_file(name: str) -> bool:
    """True for the path of a YAML file, False for the name of a component."""
    return Path(name).suffix in _YAML


def load_grader(name: str) -> Grader:
    """Load a grader by the name of a component, or by the path of a YAML file."""
    if is_grader_file(name):
        return read_grader(name)
    return registry.load("graders", name)()


def fill(template: str, **values: str) -> str:
    """Insert values in one pass: an inserted text that contains "{reply}" stays as it is."""
    return _PLACEHOLDER.sub(lambda place: values.get(place[1], place[0]), template)
