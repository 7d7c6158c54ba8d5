# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Separates a model's reasoning ("thoughts") from the answer that follows it.

Input:  "<think>The user wants to ...</think>\n\nI would rather not."
Output: "I would rather not."

Many chat templates open the reasoning themselves, so that the reply contains only the closing tag.
"""

from nemo_aligner_cai.chat.reasoning_tags import CLOSING, OPENING, PLAIN_WORDS

_ANSWER_TAGS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<output>", "</output>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
)
"""Tags that some models put around the answer after their reasoning."""

ADVICE = (
    "replies contain reasoning, which is removed; better start the model's server with a reasoning parser (vLLM, "
    'SGLang: --reasoning-parser NAME), or disable reasoning: chat_template_kwargs {"enable_thinking": false}'
)


def strip_reasoning(text: str) -> str | None:
    """Return the answer in a reply, possibly empty; None if the reply ends within its reasoning."""
    reply = text.lstrip()
    ends = [match.end() for match in CLOSING.finditer(reply)]
    for opening, closing in PLAIN_WORDS:
        if reply.startswith(opening) and closing in reply:
            ends.append(reply.index(closing) + len(closing))
    if ends:
        answer = reply[max(ends) :].strip()
        for opening, closing in _ANSWER_TAGS:
            if answer.startswith(opening):
                answer = answer.removeprefix(opening).removesuffix(closing).strip()
        # A further opening tag starts reasoning again, at any place in the reply.
        return None if OPENING.search(answer) else answer
    return None if OPENING.match(reply) or reply.startswith(PLAIN_WORDS[0][0]) else text


def format_reasoning(reasoning: str, *, is_cut: bool) -> str:
    """Format reasoning that a server with a reasoning parser returned separately like that of other servers."""
    return f"<think>{reasoning}" if is_cut else f"<think>{reasoning}</think>"
