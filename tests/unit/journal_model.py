# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""A chain of three steps, and a reference that runs it one call after the other, without engine and journal."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    ModelClient,
    Request,
    Sampling,
    ScriptedClient,
    ServerRefused,
)

_SHOTS = (Message(Role.USER, "example"), Message(Role.ASSISTANT, "reply"))
START = b'{"kind":"'
"""The beginning of every journal."""
Stored = frozenset[tuple[str, int, str]]
"""(step, sample, content) of the calls in journals."""


@dataclass(frozen=True)
class Note:
    """A prompt, which is its own id, with the texts of its steps so far."""

    id: str
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """Everything that determines the rows of a run. `fails` has the (prompt, step number) pairs whose calls fail."""

    prompts: tuple[str, ...]
    seed: int = 1
    principle: str = "a"
    greedy: bool = False
    fails: frozenset[tuple[str, int]] = frozenset()


def chain(client: ModelClient, settings: Settings) -> list[Step[Note]]:
    """An answer, two critiques and a revision; the principle is in the last two."""

    later = (f"critique {settings.principle}", f"revise {settings.principle}")

    def make(name: str, samples: int) -> Step[Note]:
        def requests(note: Note) -> list[Request]:
            asked = [Message(Role.USER, note.id)]
            for text, request in zip(note.texts, later, strict=False):
                asked += [Message(Role.ASSISTANT, text), Message(Role.USER, request)]
            sampling = Sampling(greedy=settings.greedy, max_tokens=32)
            return [Request(Conversation((*_SHOTS, *asked)), sampling, shared=len(_SHOTS))] * samples

        def absorb(note: Note, completions: Sequence[Completion]) -> Note:
            if any(completion.text.startswith("leave") for completion in completions):
                raise SkipRecord("told to")
            return replace(note, texts=(*note.texts, " | ".join(completion.text for completion in completions)))

        return Step(name, client, requests, absorb)

    return [make("answer", 1), make("critique", 2), make("revise", 1)]


def content(messages: Sequence[Any], sampling: Any) -> str:
    """A hash of what a server is asked, without the examples."""
    return hashlib.sha256(json.dumps([messages, sampling], sort_keys=True).encode()).hexdigest()[:16]


def _content_of(request: Request) -> str:
    return content(request.messages[request.shared :], request.sampling.to_dict())


def answer(request: Request, settings: Settings) -> str | CallFailed:
    """The model: its reply names the request, one of twelve asks to leave the prompt out, and some calls fail."""
    asked = request.conversation.messages[len(_SHOTS) :]
    step = len(asked) // 2
    if (asked[0].content, step) in settings.fails:
        return CallFailed("timeout" if step % 2 else "HTTP 500", "told to")
    name = _content_of(request)
    return f"leave {name}" if int(name, 16) % 12 == 0 else f"reply {name}"


class Model(ScriptedClient):
    """A client of the model that counts what it is asked, and refuses everything after so many calls."""

    def __init__(self, settings: Settings, calls: int | None = None) -> None:
        super().__init__(lambda request: answer(request, settings))
        self._calls = calls

    async def complete(self, request: Request) -> Completion:
        if self._calls is not None and len(self.requests) >= self._calls:
            raise ServerRefused("the process ends here")
        return await super().complete(request)

    @property
    def asked(self) -> Counter[str]:
        return Counter(map(_content_of, self.requests))


Row = tuple[str, tuple[str, ...], str | None]
"""A prompt, its texts, and the reason to leave it out."""


def reference(settings: Settings, stored: Stored) -> tuple[list[Row], Counter[str]]:
    """Return the rows of a run, and the contents of the calls that it has to make."""
    rows, calls = list[Row](), Counter[str]()
    steps = chain(ScriptedClient(), settings)
    for prompt in settings.prompts:
        note, reason = Note(prompt), None
        for step in steps:
            replies: list[str | CallFailed] = []
            for sample, request in enumerate(step.requests(note)):
                seed = derive_seed(settings.seed, note.id, step.name, sample)
                request = request if settings.greedy else request.scheduled(seed=seed, priority=0)
                name = _content_of(request)
                if (step.name, sample, name) in stored:
                    replies.append(f"leave {name}" if int(name, 16) % 12 == 0 else f"reply {name}")
                else:
                    calls[name] += 1
                    replies.append(answer(request, settings))
            failure = next((reply for reply in replies if isinstance(reply, CallFailed)), None)
            if failure is not None:
                reason = f"{step.name} call failed: {failure.reason}"
            elif any(str(reply).startswith("leave") for reply in replies):
                reason = "told to"
            if reason is not None:
                break
            note = replace(note, texts=(*note.texts, " | ".join(map(str, replies))))
        rows.append((note.id, note.texts, reason))
    return rows, calls


def stored_in(*paths: Path) -> Stored:
    """The calls in the complete lines of journals; lines that are not JSON are lost."""
    found = set[tuple[str, int, str]]()
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["kind"] == "call":
                request = entry["request"]
                found.add((entry["step"], entry["sample"], content(request["messages"], request["sampling"])))
    return frozenset(found)
