# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Named prompt templates for judges; by default, a judge uses the templates of the constitution's file.

Each is a mapping of keys of `PromptTemplates` and a description; a missing key gets the default of that class.
"""

from collections.abc import Mapping
from typing import Any

from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.sections import SectionError

_KEYS = frozenset(PromptTemplates.model_fields) - {"critique_turn", "revision_turn"}

PLAIN: Mapping[str, Any] = {"description": "Plain instructions for a chat model."}

PAPER: Mapping[str, Any] = {
    "description": "The layout of the published judge prompts of arXiv 2212.08073, for use with its few-shots.",
    "turn": "{name}: {text}",
    "judge_question": (
        "Consider the following conversation between a human and an assistant:\n\n{conversation}\n\n"
        "{principle} Options:\n (A) [[[{a}]]]\n (B) [[[{b}]]]\n\nThe answer is:"
    ),
    "judge_reasoning": (
        "Consider the following conversation between a human and an assistant:\n\n{conversation}\n\n"
        "{principle}\n (A) [[[{a}]]]\n (B) [[[{b}]]]\n\nLet's think step by step."
    ),
    "choice_turn": "So the answer is:",
    "choice_lead": "",
}


def with_judge_prompt(templates: PromptTemplates, prompt: Mapping[str, Any], name: str) -> PromptTemplates:
    """Return `templates` with the judge's questions replaced by those of `prompt`.

    Raises:
        UsageError: `prompt` has an unknown key or placeholder.
    """
    texts = {key: text for key, text in prompt.items() if key != "description"}
    if unknown := sorted(set(texts) - _KEYS):
        raise UsageError(f"judge prompt {name!r}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    defaults = PromptTemplates()
    try:
        return PromptTemplates(**dict(templates) | {key: getattr(defaults, key) for key in _KEYS} | texts)
    except SectionError as error:
        raise UsageError(f"judge prompt {name!r}: {error.key}: {error.problem}") from error
