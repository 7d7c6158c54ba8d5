# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Parts that are chosen by name, ours and those of other packages.

    kind            chosen by                  what the name stands for
    judges          --judge                    (JudgeSettings) -> Judge
    judge_prompts   --judge-prompt             a mapping of keys of `PromptTemplates`
    generators      cai data NAME              something with main(command line) -> exit code; makes data with a model
    processors      cai data NAME              likewise; makes data of a published data set
    formats         cai convert --to, ...      a subclass of `data.format.Format`

Another package adds one by an entry point of the group ``nemo_aligner_cai.KIND``:

    setup(..., entry_points={"nemo_aligner_cai.judges": ["mine = my_package.my_judge:my_judge"]})

Ours are listed here and not as entry points of our own, so that they are there in a checkout that is not installed.
Using a name that two packages give is an error: which one a run means would depend on what else is installed. Neither
that nor a package that cannot be imported hides the other components.
"""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, cast

from nemo_aligner_cai import __version__
from nemo_aligner_cai.errors import UsageError

_OWN = f"nemo_aligner_cai {__version__}"
_GROUP = "nemo_aligner_cai."
_JUDGES = "nemo_aligner_cai.judges."
_FORMATS = "nemo_aligner_cai.data.formats."

OURS: Mapping[str, Mapping[str, str]] = {
    "judges": {
        "best-worst": f"{_JUDGES}best_worst:best_worst",
        "multiple-choice": f"{_JUDGES}multiple_choice:multiple_choice",
        "chain-of-thought": f"{_JUDGES}chain_of_thought:chain_of_thought",
        "ensemble": f"{_JUDGES}ensemble:ensemble",
    },
    "judge_prompts": {"plain": f"{_JUDGES}prompts:PLAIN", "paper": f"{_JUDGES}prompts:PAPER"},
    "generators": {
        "sl-cai": "nemo_aligner_cai.commands.generate.generate_sl",
        "rl-cai": "nemo_aligner_cai.commands.generate.generate_rl",
    },
    "processors": {
        "anthropic-hh": "nemo_aligner_cai.commands.data.process_hh",
        "blend": "nemo_aligner_cai.commands.data.process_blend",
    },
    # In the order in which detection tries them: the more telling keys first.
    "formats": {
        "sharegpt-preference": f"{_FORMATS}published:ShareGptPreference",
        "unpaired-conversations": f"{_FORMATS}published:UnpairedConversations",
        "sharegpt": f"{_FORMATS}published:ShareGpt",
        "sft-chat": f"{_FORMATS}nemo:SftChat",
        "preference-texts": f"{_FORMATS}published:PreferenceTexts",
        "dpo": f"{_FORMATS}nemo:Dpo",
        "kto": f"{_FORMATS}nemo:Kto",
        "oasst": f"{_FORMATS}rankings:Oasst",
        "cai-revisions": f"{_FORMATS}cai:CaiRevisions",
        "cai-comparisons": f"{_FORMATS}cai:CaiComparisons",
        "inverse-cai": f"{_FORMATS}tabular:InverseCai",
        "verl": f"{_FORMATS}tabular:Verl",
        "helpsteer": f"{_FORMATS}other_trainers:HelpSteer",
        "ranked-answers": f"{_FORMATS}rankings:RankedAnswers",
        "pku-saferlhf": f"{_FORMATS}rankings:PkuSafeRlhf",
        "shp": f"{_FORMATS}rankings:Shp",
        "unpaired-texts": f"{_FORMATS}published:UnpairedTexts",
        "alpaca": f"{_FORMATS}published:Alpaca",
        "nemo-rl-preference": f"{_FORMATS}other_trainers:NemoRlPreference",
        "nemo-rl-binary-preference": f"{_FORMATS}other_trainers:NemoRlBinary",
        "openrlhf": f"{_FORMATS}other_trainers:OpenRlhf",
        "trl-preference": f"{_FORMATS}other_trainers:TrlPreference",
        "trl-preference-implicit": f"{_FORMATS}other_trainers:TrlImplicit",
        "trl-unpaired": f"{_FORMATS}other_trainers:TrlUnpaired",
        "trl-prompt-completion": f"{_FORMATS}published:PromptCompletion",
        "messages": f"{_FORMATS}other_trainers:Messages",
        "input-output": f"{_FORMATS}other_trainers:InputOutput",
        "anthropic-hh": f"{_FORMATS}other_trainers:AnthropicHh",
        "red-team": f"{_FORMATS}other_trainers:RedTeam",
        "question-answer": f"{_FORMATS}published:QuestionAnswer",
        "trl-prompts": f"{_FORMATS}other_trainers:TrlPrompts",
        "plain-prompts": f"{_FORMATS}other_trainers:PlainPrompts",
        "prompt-columns": f"{_FORMATS}rankings:PromptColumns",
        # Rows of many kinds have a "text" too, a rendered copy: Alpaca's, for one.
        "rm-regression": f"{_FORMATS}nemo:RegressionRm",
        "ppo-prompts": f"{_FORMATS}nemo:PpoPrompts",
        "rm-comparisons": f"{_FORMATS}nemo:RmComparisons",
    },
}
"""Kind -> name -> ``module`` or ``module:attribute``."""


@dataclass(frozen=True)
class Component:
    """Something with a name. `origin` is the distribution that it comes from, with its version.

    `conflict` is another distribution that gives the same name.
    """

    kind: str
    name: str
    target: str
    origin: str
    conflict: str = ""

    @property
    def label(self) -> str:
        """Its kind, name and origin, for a message."""
        return f"{self.kind}: {self.name!r} of {self.origin}"

    def load(self) -> Any:
        """Import it; raises UsageError where that fails, or another package gives the name: the fix is to install."""
        if self.conflict:
            raise UsageError(
                f"{self.kind}: {self.name!r} is given by {self.origin} and by {self.conflict}; remove one of them"
            )
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        # An import runs another package's code, which can raise anything.
        except Exception as error:
            raise UsageError(
                f"{self.label} cannot be loaded from {self.target}: {type(error).__name__}: {error}"
            ) from error
        return found

    def describe(self) -> str:
        """One line about it: its ``description`` (an attribute, or a key of a mapping), else its documentation's."""
        found: Any = self.load()
        if isinstance(found, Mapping):
            return str(cast(Mapping[str, Any], found).get("description", "")).strip().split("\n")[0]
        return str(getattr(found, "description", None) or inspect.getdoc(found) or "").strip().split("\n")[0]


def components(kind: str) -> dict[str, Component]:
    """All components of a kind by name, ours first; one whose name two packages give cannot be loaded."""
    found = {name: Component(kind, name, target, _OWN) for name, target in OURS[kind].items()}
    for point in sorted(metadata.entry_points(group=_GROUP + kind), key=lambda point: point.name):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
        other = found.get(point.name)
        if other is not None and other.target != point.value:
            found[point.name] = replace(other, conflict=origin)
        found.setdefault(point.name, Component(kind, point.name, point.value, origin))
    return found


def load(kind: str, name: str) -> Any:
    """What a name stands for.

    Raises:
        UsageError: no package gives that name, two do, or it cannot be imported.
    """
    found = components(kind)
    if name not in found:
        raise UsageError(f"{kind}: there is no {name!r}; there are {', '.join(found)}")
    return found[name].load()
