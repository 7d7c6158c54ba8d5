# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Separates a model's reasoning ("thoughts") from the answer that follows it.

Input:  "<think>The user wants to ...</think>\n\nI would rather not."
Output: "I would rather not."

Many chat templates open the reasoning themselves, so that the reply contains only the closing tag.
"""

import re
from collections.abc import Iterable

_NAME = r"(?:\w{1,20}[_:])?(?:think(?:ing)?|thoughts?|reasoning|scratchpad|reflection)(?:_\w{1,20})?"
"""Tags of DeepSeek, Qwen and many others; <thought> (EXAONE), <seed:think>, <mm:think> (MiniMax), <longcat_think>."""
_OTHER_TAGS = (
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>thought", "<unused95>"),
    ("<|channel>", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""Magistral, Kimi, Command A, OpenThinker, MedGemma, Gemma, gpt-oss."""
_PLAIN_WORDS = (("Here is my thought process:", "Here is my response:"), ("analysis", "assistantfinal"))
"""Granite, and gpt-oss on servers that drop special tokens. Plain words count only at the beginning of a reply."""
_ANSWER_TAGS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<output>", "</output>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
"""Tags that some models put around the answer after their reasoning."""


def _tags(name: str, tags: Iterable[str]) -> re.Pattern[str]:
    # The common first characters make the search fast; most replies contain no tag.
    return re.compile(rf"[<\[\u25c1](?:{'|'.join([name, *(re.escape(tag[1:]) for tag in tags)])})", re.IGNORECASE)


_OPENING = _tags(rf"{_NAME}(?:\s[^<>]{{0,100}})?>", [opening for opening, _ in _OTHER_TAGS])
_CLOSING = _tags(rf"/{_NAME}\s?>", [closing for _, closing in _OTHER_TAGS])

ADVICE = (
    "replies contain reasoning, which is removed; better start the model's server with a reasoning parser (vLLM, "
    'SGLang: --reasoning-parser NAME), or disable reasoning: chat_template_kwargs {"enable_thinking": false}'
)


def strip_reasoning(text: str) -> str | None:
    """Return the answer in a reply, possibly empty; None if the reply ends within its reasoning."""
    reply = text.lstrip()
    ends = [match.end() for match in _CLOSING.finditer(reply)]
    for opening, closing in _PLAIN_WORDS:
        if reply.startswith(opening) and closing in reply:
            ends.append(reply.index(closing) + len(closing))
    if ends:
        answer = reply[max(ends) :].strip()
        for opening, closing in _ANSWER_TAGS:
            if answer.startswith(opening):
                answer = answer.removeprefix(opening).removesuffix(closing).strip()
        # A further opening tag starts reasoning again, at any place in the reply.
        return None if _OPENING.search(answer) else answer
    return None if _OPENING.match(reply) or reply.startswith(_PLAIN_WORDS[0][0]) else text


def format_reasoning(reasoning: str, *, is_cut: bool) -> str:
    """Format reasoning that a server with a reasoning parser returned separately like that of other servers."""
    return f"<think>{reasoning}" if is_cut else f"<think>{reasoning}</think>"
