# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Thoughts that a reasoning model writes before its answer, and the answer after them.

Input:  "<think>The user wants to ...</think>\n\nI would rather not."
Output: "I would rather not."

Chat templates often begin the thought, so that a reply has the closing tag alone. A server with a reasoning parser
sends thoughts apart from the answer; `as_written` puts them back where there is no answer, so that both look alike.
"""

import re
from collections.abc import Iterable

_NAME = r"(?:\w{1,20}[_:])?(?:think(?:ing)?|thoughts?|reasoning|scratchpad|reflection)(?:_\w{1,20})?"
"""DeepSeek, Qwen and many others; <thought> of EXAONE, <seed:think>, <mm:think> of MiniMax, <longcat_think>."""
_OTHERS = (
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
_WORDS = (("Here is my thought process:", "Here is my response:"), ("analysis", "assistantfinal"))
"""Granite, and gpt-oss where the server drops special tokens: words, which count only where the reply begins."""
_FRAMES = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<output>", "</output>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
"""What some models put around their answers after a thought."""


def _tags(name: str, tags: Iterable[str]) -> re.Pattern[str]:
    # By the first character, the expression finds its places fast: most replies hold none.
    return re.compile(rf"[<\[\u25c1](?:{'|'.join([name, *(re.escape(tag[1:]) for tag in tags)])})", re.IGNORECASE)


_OPENING = _tags(rf"{_NAME}(?:\s[^<>]{{0,100}})?>", [opening for opening, _ in _OTHERS])
_CLOSING = _tags(rf"/{_NAME}\s?>", [closing for _, closing in _OTHERS])

ADVICE = (
    "replies hold thoughts, which are cut. Better start the model's server with a reasoning parser (vLLM, SGLang: "
    '--reasoning-parser NAME), or have it not think: chat_template_kwargs {"enable_thinking": false}'
)


def answer_after(text: str) -> str | None:
    """The answer of a reply, which may be all of it or empty; None where the reply ends within a thought."""
    begun = text.lstrip()
    ends = [match.end() for match in _CLOSING.finditer(begun)]
    for opening, closing in _WORDS:
        if begun.startswith(opening) and closing in begun:
            ends.append(begun.index(closing) + len(closing))
    if ends:
        answer = begun[max(ends) :].strip()
        for opening, closing in _FRAMES:
            if answer.startswith(opening):
                answer = answer.removeprefix(opening).removesuffix(closing).strip()
        # A model that has thought and begins again thinks again, wherever in the reply.
        return None if _OPENING.search(answer) else answer
    return None if _OPENING.match(begun) or begun.startswith(_WORDS[0][0]) else text


def as_written(thoughts: str, *, is_cut: bool) -> str:
    """A reply of thoughts alone, as a server without a reasoning parser sends it."""
    return f"<think>{thoughts}" if is_cut else f"<think>{thoughts}</think>"
