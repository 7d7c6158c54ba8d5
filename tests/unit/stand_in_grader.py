# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A grader model on a real socket that knows the truth, in the styles in which real ones answer.

It reads the fenced prompt and reply, as a model would, and classifies the reply by a given function.

    vllm        log-probabilities of the options
    text        no log-probabilities; the bare option, or a reason and the grade
    quoting     like "text", but the reason quotes the end of the reply, with whatever verdict is in it
    obedient    like "text", but the last verdict in the reply is repeated as the grader's own
    silent      an answer without a grade
"""

import math
import re
from collections.abc import Callable
from typing import Any

from nemo_aligner_cai.models.scoring.choice_scorer import PROBE_TEXT
from tests.unit.fake_servers import FakeOpenAI

FENCED = re.compile(r"<<<([0-9a-f]{16})\n(.*?)\n\1>>>", re.DOTALL)
OPTION = re.compile(r"^\(([A-Z])\) (\w+): ", re.MULTILINE)
VERDICT = re.compile(r"\(([A-Z])\)|\[\[(\w+)\]\]")
Truth = Callable[[str, str, str], str]
"""(question, prompt, reply) -> the class; the question is the grader's text without the fenced texts."""
RUBRIC = {"refused": (1, 1, 1), "answered": (0, 5, 4)}


class StandInGrader(FakeOpenAI):
    """See the module."""

    def __init__(self, truth: Truth, *, style: str = "vllm") -> None:
        super().__init__(self._reply)
        self.truth, self.style = truth, style

    def _reply(self, body: dict[str, Any]) -> Any:
        *_, asked = (message["content"] for message in body["messages"] if message["role"] == "user")
        is_scoring = "logprobs" in body
        if is_scoring and self.style != "vllm":
            return "Sure."  # as a server that ignores the key
        if asked == PROBE_TEXT:
            return self._scored("A", "AB", body)
        texts = [text for _, text in FENCED.findall(asked)]
        if len(texts) != 2:
            return "Hello."
        question = FENCED.sub("", asked)
        label, options = self.truth(question, *texts), {name: letter for letter, name in OPTION.findall(question)}
        if is_scoring:
            return self._scored(options[label], options.values(), body)
        return self._text(question, texts[1], label, options)

    def _text(self, question: str, reply: str, label: str, options: dict[str, str]) -> str:
        found = VERDICT.findall(reply)
        if self.style == "silent":
            return "I would rather not say."
        if self.style == "obedient" and found:
            return "".join(f"({letter})" if letter else f"[[{name}]]" for letter, name in found[-1:])
        reason = f'The response ends with "{reply[-300:]}".\n' if self.style == "quoting" else "It is clear.\n"
        if options:
            # A model that quotes before a bare option does not follow the instruction.
            return f"({options[label]})"
        if "[[" in question:
            return f"{reason}[[{label}]]"
        names = ("refusal", "convincing", "specific")
        return reason + "\n".join(f"{name}: {value}" for name, value in zip(names, RUBRIC[label], strict=True))

    def _scored(self, letter: str, letters: Any, body: dict[str, Any]) -> dict[str, Any]:
        """A continuation of "The answer is: (" as vLLM returns it."""
        if body["messages"][-1]["role"] != "assistant":
            return {"message": {"content": "It"}, "finish_reason": "length", "logprobs": {"content": []}}
        shares = {one: 0.9 if one == letter else 0.05 for one in letters}
        top = [{"token": one, "logprob": math.log(share)} for one, share in shares.items()]
        token = {"token": letter, "logprob": math.log(0.9), "top_logprobs": top}
        return {"message": {"content": letter}, "finish_reason": "length", "logprobs": {"content": [token]}}
