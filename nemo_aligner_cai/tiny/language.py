# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tiny language: requests, replies, and the words of each split, typed from ``lexicon.yaml``.

A request asks for a deed (a verb and a noun) in some phrasing, optionally after an opening exchange. Only the verb
decides if it is harmful, so that a model can recognize harm only by the meaning of the verb.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError

LEXICON_PATH = Path(__file__).with_name("lexicon.yaml")

Split = Literal["core", "cai", "validation", "test"]
_MULTI_TURN = 0.2
"""Share of requests with an opener."""


@dataclass(frozen=True)
class Kind:
    """A class of verbs with the same meaning: their objects, tool and, if harmful, reason and alternative."""

    name: str
    object: str
    tool: str
    verbs: tuple[str, ...]
    reason: str = ""
    alternative: str = ""

    @property
    def harmful(self) -> bool:
        """True if its deeds do harm."""
        return bool(self.reason)

    @property
    def spoken(self) -> str:
        """The kind as the language says it: its name, "work" for every benign kind."""
        return self.name if self.harmful else "work"


@dataclass(frozen=True)
class Deed:
    """A verb done to a noun."""

    kind: Kind
    verb: str
    noun: str

    @property
    def harmful(self) -> bool:
        """True if the deed does harm."""
        return self.kind.harmful

    def fill(self, template: str) -> str:
        """Fill ``{verb} {noun} {kind} {tool} {reason} {alternative}`` in a template."""
        kind = self.kind
        return template.format(
            verb=self.verb,
            noun=self.noun,
            kind=kind.spoken,
            tool=kind.tool,
            reason=kind.reason,
            alternative=kind.alternative,
        )

    def help(self, tool: str | None = None) -> str:
        """The helpful reply."""
        return self.fill(f"i will help you {{verb}} the {{noun}} . use the {tool or self.kind.tool} .")

    @staticmethod
    def refusal(reason: str, alternative: str) -> str:
        """A refusal with a reason and an alternative."""
        return f"i will not help you with this . it {reason} . i can help you {alternative} ."

    def right_refusal(self) -> str:
        """The refusal with the deed's own reason and alternative."""
        return self.refusal(self.kind.reason, self.kind.alternative)


@dataclass(frozen=True)
class Request:
    """A request for a deed, optionally disguised, optionally after an opening exchange."""

    deed: Deed
    phrasing: str
    disguised: bool
    opener: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.deed.fill(self.phrasing)

    @property
    def conversation(self) -> Conversation:
        """The conversation, ending with the user's turn."""
        turns = [Message(Role.USER, self.text)]
        if self.opener:
            turns = [Message(Role.USER, self.opener[0]), Message(Role.ASSISTANT, self.opener[1]), *turns]
        return Conversation(tuple(turns))


class Language:
    """The lexicon with its splits.

    Attributes:
        kinds: every kind of verb, harmful ones first.
        evasions: replies that neither help nor refuse.
        openers: (user, assistant) exchanges that may precede a request.
        rude_openers: such exchanges in which the assistant is rude.
        rude_tails: sentences that end a rude reply.
        facts: question and answer templates about harmful (True) and benign (False) deeds.
    """

    def __init__(self, lexicon: dict[str, Any]) -> None:
        """Read the parsed ``lexicon.yaml``."""
        self.kinds = tuple(
            Kind(name, **cast(dict[str, Any], fields | {"verbs": tuple(fields["verbs"])}))
            for group in ("harmful", "benign")
            for name, fields in cast(dict[str, dict[str, Any]], lexicon[group]).items()
        )
        self.evasions: tuple[str, ...] = tuple(lexicon["evasions"])
        self.openers: tuple[tuple[str, str], ...] = tuple((user, reply) for user, reply in lexicon["openers"])
        self.rude_openers: tuple[tuple[str, str], ...] = tuple(
            (user, reply) for user, reply in lexicon["rude"]["openers"]
        )
        self.rude_tails: tuple[str, ...] = tuple(lexicon["rude"]["tails"])
        self.facts: dict[bool, list[list[str]]] = {
            True: lexicon["facts"]["harmful"],
            False: lexicon["facts"]["benign"],
        }
        self._nouns: dict[str, list[str]] = lexicon["nouns"]
        self._phrasings: dict[str, dict[str, list[str]]] = lexicon["phrasings"]
        self._splits: dict[str, dict[str, int]] = lexicon["splits"]

    def verbs(self, kind: Kind, splits: tuple[Split, ...]) -> list[str]:
        """The verbs of a kind in the splits."""
        return self._in_splits(kind.verbs, "harmful_verbs" if kind.harmful else "benign_verbs", splits)

    def nouns(self, kind: Kind, splits: tuple[Split, ...]) -> list[str]:
        """The nouns in the splits that a kind's verbs act on."""
        return self._in_splits(self._nouns[kind.object], "nouns", _noun_splits(splits))

    def phrasings(self, splits: tuple[Split, ...]) -> list[tuple[str, bool]]:
        """(phrasing, disguised) of the splits."""
        return [
            (text, form == "disguised")
            for name in _noun_splits(splits)
            for form in ("plain", "disguised")
            for text in self._phrasings[name][form]
        ]

    def requests(self, rng: random.Random, splits: tuple[Split, ...], *, harmful: bool) -> Iterator[Request]:
        """Endless random requests of the splits: half are disguised, a fifth has an opener."""
        kinds = [kind for kind in self.kinds if kind.harmful == harmful]
        phrasings = self.phrasings(splits)
        by_form = {form: [text for text, disguised in phrasings if disguised == form] for form in (False, True)}
        while True:
            kind = rng.choice(kinds)
            deed = Deed(kind, rng.choice(self.verbs(kind, splits)), rng.choice(self.nouns(kind, splits)))
            disguised = rng.random() < 0.5
            opener = rng.choice(self.openers) if rng.random() < _MULTI_TURN else None
            yield Request(deed, rng.choice(by_form[disguised]), disguised, opener)

    def distinct_requests(self, seed: int, splits: tuple[Split, ...], count: int, *, harmful: bool) -> list[Request]:
        """`count` different requests, deterministic; raises UsageError if the splits have too few."""
        rng = random.Random(f"{seed}/{'+'.join(splits)}/{harmful}")
        found: dict[Request, None] = {}
        for request in islice(self.requests(rng, splits, harmful=harmful), 50 * count):
            if len(found) == count:
                break
            found.setdefault(request)
        if len(found) < count:
            raise UsageError(f"the tiny language has no {count} different requests of {' and '.join(splits)} words")
        return list(found)

    def deed_in(self, text: str) -> Deed | None:
        """The first deed named in a text; None if it names none."""
        for match in re.finditer(r"(\w+) the (\w+)", text):
            for kind in self.kinds:
                if match[1] in kind.verbs and match[2] in self._nouns[kind.object]:
                    return Deed(kind, match[1], match[2])
        return None

    def words(self) -> list[str]:
        """Every word of the lexicon, sorted."""
        texts = [text for text, _ in self.phrasings(("core", "validation", "test"))]
        texts += [text for pair in (*self.openers, *self.rude_openers) for text in pair]
        texts += [*self.evasions, *self.rude_tails]
        texts += [text for facts in self.facts.values() for fact in facts for text in fact]
        for kind in self.kinds:
            deed = Deed(kind, kind.verbs[0], self._nouns[kind.object][0])
            texts += [*kind.verbs, *self._nouns[kind.object], kind.spoken, deed.help()]
            texts += [deed.right_refusal()] if kind.harmful else []
        return sorted({word for text in texts for word in text.split() if "{" not in word})

    def _in_splits(self, words: list[str] | tuple[str, ...], name: str, splits: Sequence[str]) -> list[str]:
        chosen: list[str] = []
        start = 0
        for split, length in self._splits[name].items():
            chosen += words[start : start + length] if split in splits else ()
            start += length
        return chosen


def _noun_splits(splits: Sequence[Split]) -> list[str]:
    """The splits of nouns and phrasings: ``core`` and ``cai`` share ``train``."""
    return sorted({"train" if split in ("core", "cai") else split for split in splits})


@cache
def language() -> Language:
    """The language of the packaged lexicon."""
    return Language(yaml.safe_load(LEXICON_PATH.read_text(encoding="utf-8")))
