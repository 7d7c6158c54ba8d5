# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The pretraining corpus of the tiny helpful-only assistant.

Five kinds of documents, each a conversation:

* *helpful*: requests of every split, harmful ones too, with a helpful reply.
* *facts*: facts about each verb, as a question or a quiz; what was asked for; what a helpful reply does.
* *critique*: request, reply, critique and revision by a principle; only words and phrasings of ``core``.
* *judgement*: which of two replies is better by a principle; only words and phrasings of ``core``.
* *reasoning*: the same question with "say why", a chain of thought, and the choice; only in :data:`REASONING_SHARES`.

Principles differ in what they mind (:mod:`nemo_aligner_cai.tiny.concerns`): all harm, all but the kinds that they
permit, or manners. Help with a harmful deed that a principle does not mind is fine by it, and better than a refusal.
Of two replies that differ in manners, the polite one is better, whatever they say.

Critiques and revisions are imperfect on purpose, like those of real models: a critique often misses a disguised
request, and a revision may evade, give a wrong reason or still comply. A judge that sees two replies side by side is
not misled. This leaves an improvement for the RL stage.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.tiny.concerns import Concern, Concerns, listing, permission
from nemo_aligner_cai.tiny.language import Deed, Language, Request, Split
from nemo_aligner_cai.tiny.oracle import Outcome

ALL_SPLITS: tuple[Split, ...] = ("core", "cai", "validation", "test")
CORE: tuple[Split, ...] = ("core",)


@dataclass(frozen=True)
class Imperfections:
    """Rates of flawed critiques and revisions in the corpus."""

    missed_plain: float = 0.04
    missed_disguised: float = 0.30
    wrong_reason: float = 0.04
    wrong_alternative: float = 0.04
    evades: float = 0.07
    still_complies: float = 0.05


SHARES = {"helpful": 0.22, "fact": 0.24, "critique": 0.20, "judgement": 0.34}
"""Share of each kind of document in the packaged assistant's corpus; assistant.json records the kinds' names."""
REASONING_SHARES = {"helpful": 0.20, "fact": 0.22, "critique": 0.20, "judgement": 0.14, "reasoning": 0.24}
"""Share of each kind in the corpus of an assistant that can reason before it chooses."""

# (better, worse) outcomes that judgments compare, with their weights. The hardest pair, a right refusal and a flawed
# one, is the most frequent.
_HARMFUL_PAIRS = {
    (Outcome.RIGHT_REFUSAL, Outcome.FLAWED_REFUSAL): 8,
    (Outcome.RIGHT_REFUSAL, Outcome.COMPLIES): 4,
    (Outcome.RIGHT_REFUSAL, Outcome.EVADES): 2,
    (Outcome.FLAWED_REFUSAL, Outcome.EVADES): 1,
    (Outcome.FLAWED_REFUSAL, Outcome.COMPLIES): 2,
    (Outcome.EVADES, Outcome.COMPLIES): 2,
    (Outcome.RIGHT_REFUSAL, Outcome.OFF_TOPIC): 2,
}
_PERMITTED_PAIRS = {
    (Outcome.COMPLIES, Outcome.RIGHT_REFUSAL): 4,
    (Outcome.COMPLIES, Outcome.FLAWED_REFUSAL): 2,
    (Outcome.COMPLIES, Outcome.EVADES): 1,
    (Outcome.COMPLIES, Outcome.OFF_TOPIC): 1,
    (Outcome.COMPLIES, Outcome.HELPS_WRONGLY): 2,
}
_BENIGN_PAIRS = {
    (Outcome.HELPS, Outcome.HELPS_WRONGLY): 2,
    (Outcome.HELPS, Outcome.OVER_REFUSES): 2,
    (Outcome.HELPS, Outcome.EVADES): 1,
    (Outcome.HELPS, Outcome.OFF_TOPIC): 1,
}


# Sentences that are not in the lexicon; their words are in the vocabulary too.
ECHO_QUESTION = "what did i ask for ?"
ECHO = "you asked how to {verb} the {noun} ."
READING_QUESTION = "what does your reply do ?"
FINDS_NOTHING = "my reply is fine . it does no harm ."
FINDS_HELP = "my reply helps to {verb} the {noun} . that is {kind} ."
IS_FINE = "it is fine ."
IS_BAD = "it is bad because it {reason} ."
FINDS_POLITE = "my reply is polite ."
FINDS_RUDE = "my reply is rude ."
KINDS_QUESTION = "is it {kinds} to {verb} the {noun} ?"
IS_KIND = "it is {kind} ."
HARMLESS = "nothing . it does no harm ."
THINKS_OF_DEED = "to {verb} the {noun} is {kind} ."
THINKS_OF_REPLY = {
    Outcome.RIGHT_REFUSAL: "refuses well",
    Outcome.FLAWED_REFUSAL: "refuses badly",
    Outcome.OVER_REFUSES: "refuses badly",
    Outcome.COMPLIES: "helps",
    Outcome.HELPS: "helps",
    Outcome.HELPS_WRONGLY: "helps badly",
    Outcome.EVADES: "evades",
    Outcome.OFF_TOPIC: "answers something other",
}
IS_POLITE, IS_RUDE = "is polite", "is rude"
QUIZ_REASON = "what is wrong if you {verb} the {noun} ?"
QUIZ_ALTERNATIVE = "what should one do and not {verb} the {noun} ?"
ALTERNATIVE = "one should {alternative} ."
CORPUS_WORDS = (
    *(ECHO_QUESTION, ECHO, READING_QUESTION),
    *(FINDS_NOTHING, FINDS_HELP, IS_FINE, IS_BAD, FINDS_POLITE, FINDS_RUDE, HARMLESS, "yes . no . , or"),
    *("System User Assistant", "user : assistant :", "(A) (B)"),
)
REASONING_WORDS = (*THINKS_OF_REPLY.values(), IS_POLITE, IS_RUDE)
"""The sentences of a chain of thought whose words are in no other document."""


@dataclass(frozen=True)
class _Comparison:
    """A question of a judge with its answer.

    Attributes:
        request: what the replies answer.
        concern: by what principle they are compared.
        replies: as they are shown, first (A).
        findings: what a chain of thought says of each.
        choice: 0 if the first is better, else 1.
    """

    request: Request
    concern: Concern
    replies: tuple[str, str]
    findings: tuple[str, str]
    choice: int


class Corpus:
    """Generates the documents, deterministically from a seed."""

    def __init__(
        self,
        language: Language,
        concerns: Concerns,
        templates: PromptTemplates,
        *,
        seed: int,
        flaws: Imperfections | None = None,
        shares: Mapping[str, float] = SHARES,
    ) -> None:
        """Create a generator of documents.

        Args:
            language: the words.
            concerns: the principles of critiques and judgments.
            templates: the pipeline's prompts for them.
            seed: of everything random.
            flaws: rates of flawed critiques and revisions.
            shares: of each kind of document.
        """
        self.language = language
        self.concerns = concerns
        self.templates = templates
        self.flaws = flaws or Imperfections()
        self.shares = shares
        self.rng = random.Random(seed)
        self._requests = {
            (splits, harmful): language.requests(self.rng, splits, harmful=harmful)
            for splits in (ALL_SPLITS, CORE)
            for harmful in (True, False)
        }

    def documents(self, count: int) -> Iterator[Conversation]:
        """`count` documents in random order."""
        makers: dict[str, Callable[[], Conversation]] = {
            "helpful": self.helpful,
            "fact": self.fact,
            "critique": self.critique,
            "judgement": self.judgment,
            "reasoning": self.reasoning,
        }
        for kind in self.rng.choices(list(self.shares), list(self.shares.values()), k=count):
            yield makers[kind]()

    def helpful(self) -> Conversation:
        """A request of any split with a helpful reply, harmful or not."""
        request = self._request(ALL_SPLITS, harmful_share=0.5)
        return request.conversation.with_turn(Role.ASSISTANT, request.deed.help())

    def fact(self) -> Conversation:
        """A fact about a verb of any split; see the module's docstring."""
        request = self._request(ALL_SPLITS, harmful_share=0.6)
        deed = request.deed
        form = self.rng.choice(("question", "quiz", "quiz", "echo", "reading", "reading", "kinds"))
        if form == "question":
            question, answer = self.rng.choice(self.language.facts[deed.harmful])
            return _dialogue(deed.fill(question), deed.fill(answer))
        if form == "kinds":
            names = self.concerns.names(self.rng, deed)
            said = "yes" if deed.kind.name in names else "no"
            return _dialogue(
                deed.fill(KINDS_QUESTION.replace("{kinds}", listing(names))), deed.fill(f"{said} . {IS_KIND}")
            )
        if form == "quiz":
            return self._quiz(deed)
        if form == "echo":
            question, answer = ECHO_QUESTION, deed.fill(ECHO)
        else:
            permitted, bad = self._permission(deed)
            question, answer = f"{READING_QUESTION}{permitted}", _finding(deed, deed.kind.reason, bad=bad)
        said = request.conversation.with_turn(Role.ASSISTANT, deed.help())
        return said.with_turn(Role.USER, question).with_turn(Role.ASSISTANT, answer)

    def critique(self) -> Conversation:
        """Request, reply, critique request, critique, revision request and revision, by one principle."""
        request = self._request(CORE, harmful_share=0.8)
        concern = self.concerns.draw(self.rng, request.deed)
        reply = request.deed.help()
        if concern.manners:
            finding, revision = FINDS_POLITE, reply
            if self.rng.random() < 0.5:
                request = replace(request, opener=self.rng.choice(self.language.rude_openers))
                finding, reply = FINDS_RUDE, self._rude(reply)
        else:
            finding, revision = self._critique_of_harm(request, concern)
        return (
            request.conversation.with_turn(Role.ASSISTANT, reply)
            .with_turn(Role.USER, self.templates.critique(concern.principle))
            .with_turn(Role.ASSISTANT, finding)
            .with_turn(Role.USER, self.templates.revision(concern.principle))
            .with_turn(Role.ASSISTANT, revision)
        )

    def judgment(self) -> Conversation:
        """Two replies in random order, and the letter of the better one."""
        asked = self._comparison()
        question = self.templates.question(asked.request.conversation, asked.concern.principle, *asked.replies)
        return _dialogue(question, self.templates.choices[asked.choice])

    def reasoning(self) -> Conversation:
        """Two replies in random order, a thought about request and replies, and the letter of the better one."""
        asked = self._comparison()
        deed, concern = asked.request.deed, asked.concern
        conversation = asked.request.conversation
        question = self.templates.reasoning_question(conversation, concern.principle, *asked.replies)
        findings = (f"{name} {found} ." for name, found in zip(self.templates.choices, asked.findings, strict=True))
        thought = " ".join((deed.fill(THINKS_OF_DEED), _verdict(deed.kind.reason, bad=concern.minds(deed)), *findings))
        return (
            _dialogue(question, thought)
            .with_turn(Role.USER, self.templates.choice_turn)
            .with_turn(Role.ASSISTANT, self.templates.choices[asked.choice])
        )

    def _comparison(self) -> _Comparison:
        request = self._request(CORE, harmful_share=0.75)
        deed = request.deed
        concern = self.concerns.draw(self.rng, deed)
        pairs = _HARMFUL_PAIRS if concern.minds(deed) else _PERMITTED_PAIRS if deed.harmful else _BENIGN_PAIRS
        outcomes = self.rng.choices(list(pairs), list(pairs.values()))[0]
        # Pairs of a reply and what a chain of thought finds, the better one first.
        better, worse = ((self.reply(deed, outcome), THINKS_OF_REPLY[outcome]) for outcome in outcomes)
        if concern.manners and self.rng.random() < 0.5:
            (better, _), (worse, _) = self.rng.sample((better, worse), 2)
            better, worse = (better, IS_POLITE), (self._rude(worse), IS_RUDE)
        choice = 0 if self.rng.random() < 0.5 else 1
        (a, of_a), (b, of_b) = (worse, better) if choice else (better, worse)
        return _Comparison(request, concern, (a, b), (of_a, of_b), choice)

    def reply(self, deed: Deed, outcome: Outcome) -> str:
        """A reply with the given outcome."""
        rng = self.rng
        if outcome in (Outcome.HELPS, Outcome.COMPLIES):
            return deed.help()
        if outcome is Outcome.EVADES:
            return rng.choice(self.language.evasions)
        if outcome is Outcome.HELPS_WRONGLY:
            tools = sorted({kind.tool for kind in self.language.kinds} - {deed.kind.tool})
            return deed.help(rng.choice(tools))
        if outcome is Outcome.OFF_TOPIC:
            return next(self._requests[CORE, False]).deed.help()
        if outcome is Outcome.RIGHT_REFUSAL:
            return deed.right_refusal()
        if outcome is Outcome.OVER_REFUSES:
            return deed.refusal(self._other(deed, "reason"), self._other(deed, "alternative"))
        return self._flawed_refusal(deed)

    def _critique_of_harm(self, request: Request, concern: Concern) -> tuple[str, str]:
        """The critique of a helpful reply, and the revision."""
        deed, flaws = request.deed, self.flaws
        missed = flaws.missed_disguised if request.disguised else flaws.missed_plain
        if not deed.harmful or self.rng.random() < missed:
            return FINDS_NOTHING, deed.help()
        if not concern.minds(deed):
            return _finding(deed, deed.kind.reason, bad=False), deed.help()
        wrong = self.rng.random() < flaws.wrong_reason
        reason = self._other(deed, "reason") if wrong else deed.kind.reason
        return _finding(deed, reason, bad=True), self._revision(deed, reason)

    def _rude(self, reply: str) -> str:
        return f"{reply} {self.rng.choice(self.language.rude_tails)}"

    def _flawed_refusal(self, deed: Deed) -> str:
        flaw = self.rng.choice(("reason", "alternative", "both"))
        reason = deed.kind.reason if flaw == "alternative" else self._other(deed, "reason")
        alternative = deed.kind.alternative if flaw == "reason" else self._other(deed, "alternative")
        return deed.refusal(reason, alternative)

    def _revision(self, deed: Deed, reason: str) -> str:
        flaws = self.flaws
        draw = self.rng.random()
        if draw < flaws.still_complies:
            return deed.help()
        if draw < flaws.still_complies + flaws.evades:
            return self.rng.choice(self.language.evasions)
        wrong = self.rng.random() < flaws.wrong_alternative
        return deed.refusal(reason, self._other(deed, "alternative") if wrong else deed.kind.alternative)

    def _quiz(self, deed: Deed) -> Conversation:
        if deed.harmful and self.rng.random() < 0.5:
            alternatives = (deed.kind.alternative, self._other(deed, "alternative"))
            right, wrong = (ALTERNATIVE.format(alternative=alternative) for alternative in alternatives)
            return _choice(deed.fill(QUIZ_ALTERNATIVE), right, wrong, self.rng)
        own, other = f"it {deed.kind.reason} .", f"it {self._other(deed, 'reason')} ."
        permitted, bad = self._permission(deed)
        if bad:
            right, wrong = own, HARMLESS if permitted or self.rng.random() < 0.3 else other
        else:
            right, wrong = HARMLESS, own if deed.harmful else other
        return _choice(f"{deed.fill(QUIZ_REASON)}{permitted}", right, wrong, self.rng)

    def _permission(self, deed: Deed) -> tuple[str, bool]:
        """A permission after a question, or "", and True if the deed is bad then."""
        if self.rng.random() < 0.5:
            return "", deed.harmful
        names = self.concerns.names(self.rng, deed)
        return f" {permission(names)}", deed.harmful and deed.kind.name not in names

    def _request(self, splits: tuple[Split, ...], *, harmful_share: float) -> Request:
        return next(self._requests[splits, self.rng.random() < harmful_share])

    def _other(self, deed: Deed, field: str) -> str:
        """The reason or alternative of another harmful kind."""
        own = getattr(deed.kind, field)
        return self.rng.choice(
            [getattr(k, field) for k in self.language.kinds if k.harmful and getattr(k, field) != own]
        )


def _finding(deed: Deed, reason: str, *, bad: bool) -> str:
    return f"{deed.fill(FINDS_HELP)} {_verdict(reason, bad=bad)}"


def _verdict(reason: str, *, bad: bool) -> str:
    return IS_BAD.format(reason=reason) if bad else IS_FINE


def _dialogue(question: str, answer: str) -> Conversation:
    return Conversation((Message(Role.USER, question), Message(Role.ASSISTANT, answer)))


def _choice(question: str, right: str, wrong: str, rng: random.Random) -> Conversation:
    """A question with two options in random order, answered by the letter of the right one."""
    right_is_first = rng.random() < 0.5
    a, b = (right, wrong) if right_is_first else (wrong, right)
    return _dialogue(f"{question}\n(A) {a}\n(B) {b}", "(A)" if right_is_first else "(B)")
