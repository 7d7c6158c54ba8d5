# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Components that are selected by name: built-in ones and those of other packages.

    kind            selected by                component
    judges          --judge                    (JudgeSettings) -> Judge
    judge_prompts   --judge-prompt             a mapping of keys of `PromptTemplates`
    generators      cai data NAME              a module with main(argv) -> exit code; generates data with a model
    processors      cai data NAME              the same; converts a published data set
    graders         --grader                   () -> evaluation.graders.spec.Grader
    formats         cai convert --to, ...      a subclass of `data.formats.base.Format`

Another package adds one with an entry point of the group ``nemo_aligner_cai.KIND``:

    setup(..., entry_points={"nemo_aligner_cai.judges": ["mine = my_package.my_judge:my_judge"]})

To try one without a package, select it by ``module:attribute``: ``--judge my_judge:my_judge``.

The built-in components are listed here, so that they also work in a checkout that is not installed. A name that two
packages define is an error when it is used; like a package that cannot be imported, it does not hide other components.
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
_GRADERS = "nemo_aligner_cai.evaluation.graders.packaged:"

BUILTIN: Mapping[str, Mapping[str, str]] = {
    "judges": {
        "best-worst": f"{_JUDGES}best_worst:best_worst",
        "multiple-choice": f"{_JUDGES}multiple_choice:multiple_choice",
        "chain-of-thought": f"{_JUDGES}chain_of_thought:chain_of_thought",
        "ensemble": f"{_JUDGES}ensemble:ensemble",
    },
    "judge_prompts": {"plain": f"{_JUDGES}prompts:PLAIN", "paper": f"{_JUDGES}prompts:PAPER"},
    "generators": {
        "sl-cai": "nemo_aligner_cai.commands.generate.sl_cai",
        "rl-cai": "nemo_aligner_cai.commands.generate.rl_cai",
    },
    "processors": {
        "anthropic-hh": "nemo_aligner_cai.commands.data.anthropic_hh",
        "blend": "nemo_aligner_cai.commands.data.blend",
    },
    "graders": {
        "xstest": f"{_GRADERS}xstest",
        "xstest-strings": f"{_GRADERS}xstest_strings",
        "harmbench": f"{_GRADERS}harmbench",
        "strongreject": f"{_GRADERS}strongreject",
        "or-bench": f"{_GRADERS}or_bench",
        "engagement": f"{_GRADERS}engagement",
    },
    # In the order of detection: the most specific keys first.
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
        # Rows of other formats, such as Alpaca, may also have a "text", a rendered copy.
        "rm-regression": f"{_FORMATS}nemo:RegressionRm",
        "ppo-prompts": f"{_FORMATS}nemo:PpoPrompts",
        "rm-comparisons": f"{_FORMATS}nemo:RmComparisons",
    },
}
"""Kind -> name -> ``module`` or ``module:attribute``."""


@dataclass(frozen=True)
class Component:
    """A named component. `origin` is its distribution with the version, `conflict` another one with the same name."""

    kind: str
    name: str
    target: str
    origin: str
    conflict: str = ""

    @property
    def label(self) -> str:
        """The kind, name and origin, for messages."""
        return f"{self.kind}: {self.name!r} of {self.origin}"

    def load(self) -> Any:
        """Import the component; raises UsageError if that fails, or if two packages define the name."""
        if self.conflict:
            raise UsageError(
                f"{self.kind}: {self.name!r} is defined by {self.origin} and by {self.conflict}; uninstall one of them"
            )
        module, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in filter(None, attribute.split(".")):
                found = getattr(found, part)
        # Importing runs another package's code, which can raise any exception.
        except Exception as error:
            raise UsageError(
                f"{self.label} cannot be loaded from {self.target}: {type(error).__name__}: {error}"
            ) from error
        return found

    def describe(self) -> str:
        """A one-line description: its ``description`` (an attribute, or a key of a mapping) or its docstring."""
        found: Any = self.load()
        if isinstance(found, Mapping):
            return str(cast(Mapping[str, Any], found).get("description", "")).strip().split("\n")[0]
        return str(getattr(found, "description", None) or inspect.getdoc(found) or "").strip().split("\n")[0]


def components(kind: str) -> dict[str, Component]:
    """All components of a kind by name, built-in ones first."""
    found = {name: Component(kind, name, target, _OWN) for name, target in BUILTIN[kind].items()}
    for point in sorted(metadata.entry_points(group=_GROUP + kind), key=lambda point: point.name):
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
        other = found.get(point.name)
        if other is not None and other.target != point.value:
            found[point.name] = replace(other, conflict=origin)
        found.setdefault(point.name, Component(kind, point.name, point.value, origin))
    return found


def load(kind: str, name: str) -> Any:
    """Import a component by name, or by ``module:attribute``.

    Raises:
        UsageError: no package defines the name, two do, or it cannot be imported.
    """
    if ":" in name:
        return Component(kind, name, name, "no package").load()
    found = components(kind)
    if name not in found:
        raise UsageError(f"{kind}: unknown name {name!r}; known: {', '.join(found)}")
    return found[name].load()
