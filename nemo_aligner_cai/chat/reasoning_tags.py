# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tags that models write around their reasoning ("thoughts").

Input:  "<think>The user wants to ...</think> I would rather not."
Found:  OPENING at "<think>", CLOSING at "</think>"

`models/thinking.py` removes reasoning from replies by these tags. `control_tokens.py` breaks them in texts that a
judge may quote, so that only the judge's own tags count.
"""

import re
from collections.abc import Iterable

_NAME = r"(?:\w{1,20}[_:])?(?:think(?:ing)?|thoughts?|reasoning|scratchpad|reflection)(?:_\w{1,20})?"
"""Tags of DeepSeek, Qwen and many others; <thought> (EXAONE), <seed:think>, <mm:think> (MiniMax), <longcat_think>."""
_TOKEN_PAIRS = (
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel>", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""Tags of control tokens: Magistral, Command A, OpenThinker, MedGemma, Gemma, gpt-oss."""
_TEXT_PAIRS = (("\u25c1think\u25b7", "\u25c1/think\u25b7"),)
"""Kimi."""
PLAIN_WORDS = (("Here is my thought process:", "Here is my response:"), ("analysis", "assistantfinal"))
"""Granite, and gpt-oss on servers that drop special tokens. Plain words count only at the beginning of a reply."""


def _alternatives(name: str, tags: Iterable[str]) -> str:
    """Return a regular expression for the tags without their first characters, which are "<", "[" or U+25C1."""
    return "|".join([name, *(re.escape(tag[1:]) for tag in tags)])


_PAIRS = (*_TOKEN_PAIRS, *_TEXT_PAIRS)
_OPENING = _alternatives(rf"{_NAME}(?:\s[^<>]{{0,100}})?>", [opening for opening, _ in _PAIRS])
_CLOSING = _alternatives(rf"/{_NAME}\s?>", [closing for _, closing in _PAIRS])
# The common first characters make the searches fast; most texts contain no tag.
OPENING, CLOSING = (re.compile(rf"[<\[\u25c1](?:{tags})", re.IGNORECASE) for tags in (_OPENING, _CLOSING))

# For `control_tokens.py`.
TOKEN_TAGS = tuple(tag for pair in _TOKEN_PAIRS for tag in pair)
"""Tags that a tokenizer may read as control tokens."""
TEXT_TAGS = tuple(tag for pair in _TEXT_PAIRS for tag in pair)
"""Tags that are text for tokenizers. Plain words are missing: a judge sees answers that contain them as they are."""
TAG_PATTERN = "|".join(rf"{first}(?i:{_OPENING}|{_CLOSING})" for first in ("<", r"\[", "\u25c1"))
"""A regular expression for every tag except plain words, fast as a part of a longer one: it begins with literals."""
