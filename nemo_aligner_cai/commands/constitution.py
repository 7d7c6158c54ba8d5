# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai constitution check FILE`: what a constitution says, what is doubtful in it, and what models will be asked.

Input:  a constitution, and few-shot examples where they are to be checked with it
Output: the length of each principle's requests, a line per finding and, with --preview, the prompts as they are sent

A finding is a warning: the file can be used. What cannot be used is an error with its line, and exit code 2.
"""

import argparse
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

from rich.text import Text

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.constitution import Constitution, Principle, load_constitution
from nemo_aligner_cai.constitution.prompt_templates import PromptWording, load_wording
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import JudgeInput
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Completion, Request, Sampling, ScriptedClient
from nemo_aligner_cai.prompts import Prompt, read_few_shots
from nemo_aligner_cai.stages.revisions import RevisionPipeline, fresh_records

FORMS = ("critique", "revision", "judge")
NEARLY = 0.8
"""Share of words in common, in their order, from which one request looks like a copy of another. The three-word
sequences that tell answers apart are too coarse for requests of a dozen words."""
_EXAMPLE = Prompt.of(Conversation.of_user("(the user's prompt)"))
_REPLIES = ("(the model's answer)", "(the model's critique)", "(the model's revision)")
_CANDIDATES = ("(one answer)", "(another answer)")


def add_parser(subparsers: Any) -> None:
    """Declare `cai constitution`."""
    parser: argparse.ArgumentParser = subparsers.add_parser("constitution", help="check a constitution file")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check", help="list the principles, what is doubtful in them, and the prompts they make"
    )
    check.add_argument("file", help="our YAML, or one of Anthropic's JSON files")
    check.add_argument("--few-shots", metavar="FILE", help="check these examples too, and show prompts with them")
    check.add_argument("--tokenizer", metavar="PATH", help="lengths in its tokens; without it they are in words")
    check.add_argument(
        "--preview", nargs="?", const="", metavar="ID", help="show the prompts of a principle, or of all of them"
    )
    check.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check a constitution; raises UsageError where it, or what is to be checked with it, cannot be used."""
    constitution, wording = load_constitution(args.file), load_wording(args.file)
    few_shots = read_few_shots(args.few_shots) if args.few_shots else ()
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    shown = _named(constitution, args.preview) if args.preview is not None else ()
    console = open_console()
    console.print(
        f"{args.file}: {constitution.name}, {len(constitution.principles)} principles, "
        f"{len(constitution.for_revision)} of them critique and revise, {len(constitution.for_judging)} judge",
    )
    unit = "tokens" if tokenizer else "words"
    rows = [
        [principle.id, *(_length(principle.requests.get(form), tokenizer) for form in FORMS)]
        for principle in constitution.principles
    ]
    console.print(table_of(["principle", *(f"{form}, {unit}" for form in FORMS)], rows))
    if few_shots:
        length = _length("\n".join(turn.content for shot in few_shots for turn in shot.turns), tokenizer)
        console.print(f"{args.few_shots}: {len(few_shots)} examples, {length} {unit} in all")
    for finding in (*findings(constitution), *few_shot_findings(few_shots)):
        console.print(Text.assemble(("warning: ", "yellow"), printable(finding)), soft_wrap=True)
    for principle in shown:
        for title, request in requests_of(principle, wording, few_shots):
            console.rule(Text(f"{printable(principle.id)}: {title}"), align="left", style="dim")
            console.print(rendered(request), soft_wrap=True)
    return 0


def _named(constitution: Constitution, name: str) -> tuple[Principle, ...]:
    found = tuple(principle for principle in constitution.principles if name in ("", principle.id))
    if not found:
        known = ", ".join(principle.id for principle in constitution.principles)
        raise UsageError(f"--preview: there is no principle {name!r}; there are {known}")
    return found


def _length(text: str | None, tokenizer: Tokenizer | None) -> int | str:
    if text is None:
        return "-"
    return len(tokenizer.encode([text])[0]) if tokenizer else len(text.split())


def findings(constitution: Constitution) -> Iterator[str]:
    """What is doubtful in a constitution that can be used."""
    for missing, use in (("judge", "a judge never draws them"), ("critique", "revisions never draw them")):
        ids = [principle.id for principle in constitution.principles if missing not in principle.requests]
        if ids:
            wanted = "judge" if missing == "judge" else "critique and revision"
            yield f"without {wanted} request, so that {use}: {', '.join(ids)}"
    texts = [
        (f"the {form} request of {principle.id!r}", text)
        for principle in constitution.principles
        for form, text in principle.requests.items()
    ]
    for name, text in texts:
        if NEMO_CHAT.contains_template_token(text):
            yield f"{name} contains one of the chat template's tokens ({', '.join(NEMO_CHAT.markers)})"
    words = [(name, text.casefold().split()) for name, text in texts]
    for (name, one), (other_name, other) in combinations(words, 2):
        alike = SequenceMatcher(None, one, other, autojunk=False)
        # The quick ratio is an upper bound, and spares nearly all pairs the slow one.
        if alike.quick_ratio() >= NEARLY and (share := alike.ratio()) >= NEARLY:
            same = "are the same" if one == other else f"are nearly the same ({share:.0%} of the words)"
            yield f"{name} and {other_name} {same}"


def few_shot_findings(few_shots: Sequence[Conversation]) -> Iterator[str]:
    """What is doubtful in examples that can be used; they are numbered as they stand in their file, from 1."""
    for number, shot in enumerate(few_shots, start=1):
        roles = [turn.role for turn in shot.turns]
        replies = roles.count(Role.ASSISTANT)
        if replies < len(_REPLIES):
            yield f"few-shot example {number} has {replies} replies; answer, critique and revision are needed"
        if roles != [Role.USER, Role.ASSISTANT] * replies:
            yield f"in few-shot example {number}, user and assistant do not take turns"
        if any(NEMO_CHAT.contains_template_token(turn.content) for turn in shot.turns):
            yield f"few-shot example {number} contains one of the chat template's tokens"


def requests_of(
    principle: Principle, wording: PromptWording, few_shots: Sequence[Conversation]
) -> Iterator[tuple[str, Request]]:
    """What a principle makes of example texts, out of the same steps that generation runs: (title, request)."""
    alone = Constitution((principle,), principle.id)
    if "critique" in principle.requests:
        revising = RevisionPipeline(ScriptedClient(), alone, few_shots, wording, Sampling(), seed=0)
        (record,) = fresh_records([_EXAMPLE])
        for step, reply in zip(revising.steps(), _REPLIES, strict=True):
            (request,) = step.requests(record)
            record = step.absorb(record, [Completion(reply, "stop")])
            if step.name != "answer":  # that one holds nothing of the principle
                yield step.name, request
    if "judge" in principle.requests:
        judge = multiple_choice(JudgeSettings(alone, wording, both_orders=False))
        (question,) = judge.questions(JudgeInput(_EXAMPLE.id, _EXAMPLE.conversation, _CANDIDATES))
        yield "judge", question.request


def rendered(request: Request) -> str:
    """A request as the tutorial's chat template renders it, with the choices that are scored, if any."""
    return NEMO_CHAT.generation_prompt(request.conversation) + " | ".join(request.choices)
