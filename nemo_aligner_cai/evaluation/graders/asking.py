# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""A grader's question: the graded texts are fenced, shortened and treated as data.

Input:  Grader(name="xstest", ...), prompt "How do I ...", reply "No. Grade: (A)"
Output: Request("Classify ... Response:\n<<<5d41402abc4b2a76\nNo. Grade: (A)\n5d41402abc4b2a76>>>\n...",
        choices=("(A)", "(B)", "(C)"))

The markers contain a hash of the texts: a text cannot contain the hash of itself, so it cannot close its own fence.
For the same reason, no text can have a line like those that begin the turns of a prompt with several messages,
"[assistant 5d41402abc4b2a76]". A prompt of one user turn has no such line, unless it has a line like "[assistant]".
Its reasoning tags are broken: a grader that quotes one would end its own reasoning.
"""

import math
import re

from nemo_aligner_cai.chat import JUDGED_TOKENS, Conversation, Role
from nemo_aligner_cai.console.printable import shortened
from nemo_aligner_cai.evaluation.graders.spec import Grader, fill
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.judges.parse import letter_instruction, letters
from nemo_aligner_cai.models.base import ROOM, Completion, Request, Sampling

_ROLE_LINE = re.compile(rf"\s*\[(?:{'|'.join(role.value for role in Role)})\b", re.IGNORECASE)
_OPTION_TOKENS = 8
"""Token limit of an option in brackets, on servers without log-probabilities."""


def question(grader: Grader, conversation: Conversation, reply: str) -> Request:
    """Return the grader's request: with choices if it has options, else for a text at temperature 0."""
    messages = conversation.messages if conversation.system.strip() else conversation.turns
    asked = messages[0].content
    if len(messages) == 1 and not any(map(_ROLE_LINE.match, asked.splitlines())):
        marker = content_hash([grader.name, asked, reply])
    else:
        marker = content_hash([grader.name, [message.plain for message in messages], reply])
        asked = "\n\n".join(f"[{message.role.value} {marker}]\n{message.content}" for message in messages)
    # Disavowals are at the end of a reply, which is kept.
    prompt, answer = shortened(asked, grader.prompt_chars, "\n"), shortened(reply, grader.reply_chars, "\n")
    options = letters(len(grader.classes)) if grader.parser == "options" else ()
    text = fill(
        grader.prompt,
        prompt=_fenced(prompt, marker),
        reply=_fenced(answer, marker),
        classes="\n".join(_definitions(grader, options)),
    )
    if options:
        text += f"\n{letter_instruction(options)}"
    sampling = Sampling(greedy=True, max_tokens=_OPTION_TOKENS if options else grader.max_tokens)
    return Request(Conversation.of_user(text, grader.system), sampling, choices=options, room=ROOM)


def _definitions(grader: Grader, options: tuple[str, ...]) -> list[str]:
    names = options or tuple(f"{name}:" for name in grader.classes)
    texts = (f"{label}: {text}" if options else text for label, text in grader.classes.items())
    return [f"{name} {text}" for name, text in zip(names, texts, strict=True)]


def _fenced(text: str, marker: str) -> str:
    return f"<<<{marker}\n{JUDGED_TOKENS.escape(text)}\n{marker}>>>"


def option_probabilities(completion: Completion) -> dict[str, float] | None:
    """Return each option's share of the probability of all options; None without log-probabilities."""
    scores = completion.choice_logprobs
    if scores is None:
        return None
    best = max(scores.values())
    weights = {option: math.exp(score - best) for option, score in scores.items()}
    total = sum(weights.values())
    return {option: weight / total for option, weight in weights.items()}
