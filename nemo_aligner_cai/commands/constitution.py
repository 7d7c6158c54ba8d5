# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai constitution check FILE`: check a constitution and preview its prompts.

Input:  a constitution, and optionally few-shot examples
Output: the length of each principle's requests, one warning per line and, with --preview, the rendered prompts

A warning does not prevent the use of the file. An error names its line and ends with exit code 2.
"""

import argparse
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import combinations

from rich.text import Text

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.constitution import Constitution, Principle, load_constitution
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates, load_prompt_templates
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import JudgeInput
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Completion, Request, Sampling, ScriptedClient
from nemo_aligner_cai.prompts import Prompt, read_few_shots
from nemo_aligner_cai.stages.revisions import RevisionPipeline, RevisionSample

FORMS = ("critique", "revision", "judge")
SIMILAR = 0.8
"""Share of common words, in order, above which two requests are reported as similar. Three-word sequences, which
distinguish answers, are too coarse for requests of a dozen words."""
_EXAMPLE = Prompt.of(Conversation.of_user("(the user's prompt)"))
_REPLIES = ("(the model's answer)", "(the model's critique)", "(the model's revision)")
_CANDIDATES = ("(one answer)", "(another answer)")


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai constitution`."""
    parser.examples = ("cai constitution check principles.yaml",)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="list the principles, warnings about them, and their prompts")
    check.examples = (
        "cai constitution check principles.yaml",
        "cai constitution check principles.yaml --few-shots few_shots.json --preview",
    )
    check.add_argument("file", help="a constitution in YAML, or one of Anthropic's JSON files")
    check.add_argument("--few-shots", metavar="FILE", help="also check these examples, and show prompts with them")
    check.add_argument("--tokenizer", metavar="PATH", help="tokenizer for lengths in tokens (default: in words)")
    check.add_argument(
        "--preview",
        nargs="?",
        const="",
        metavar="ID",
        help="show the prompts of a principle; without ID, of all",
    )


def run(args: argparse.Namespace) -> int:
    """Check a constitution and show the warnings; raises UsageError if it is invalid."""
    constitution, templates = load_constitution(args.file), load_prompt_templates(args.file)
    few_shots = read_few_shots(args.few_shots) if args.few_shots else ()
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    previewed = _named(constitution, args.preview) if args.preview is not None else ()
    console = open_console()
    console.print(
        f"{args.file}: {constitution.name}, {len(constitution.principles)} principles, "
        f"{len(constitution.for_revision)} of them for revision, {len(constitution.for_judging)} for judging",
    )
    unit = "tokens" if tokenizer else "words"
    rows = [
        [principle.id, *(_length(principle.requests.get(form), tokenizer) for form in FORMS)]
        for principle in constitution.principles
    ]
    console.print(table_of(["principle", *(f"{form}, {unit}" for form in FORMS)], rows))
    if few_shots:
        length = _length("\n".join(turn.content for example in few_shots for turn in example.turns), tokenizer)
        console.print(f"{args.few_shots}: {len(few_shots)} examples, {length} {unit}")
    for finding in (*findings(constitution), *few_shot_findings(few_shots)):
        console.print(Text.assemble(("warning: ", "yellow"), printable(finding)), soft_wrap=True)
    for principle in previewed:
        for title, request in requests_of(principle, templates, few_shots):
            console.rule(Text(f"{printable(principle.id)}: {title}"), align="left", style="dim")
            console.print(rendered(request), soft_wrap=True)
    return 0


def _named(constitution: Constitution, name: str) -> tuple[Principle, ...]:
    found = tuple(principle for principle in constitution.principles if name in ("", principle.id))
    if not found:
        known = ", ".join(principle.id for principle in constitution.principles)
        raise UsageError(f"--preview: no principle is named {name!r}; known: {known}")
    return found


def _length(text: str | None, tokenizer: Tokenizer | None) -> int | str:
    if text is None:
        return "-"
    return len(tokenizer.encode([text])[0]) if tokenizer else len(text.split())


def findings(constitution: Constitution) -> Iterator[str]:
    """Yield warnings about a valid constitution."""
    for missing, wanted, use in (
        ("judge", "judge", "the judge never samples them"),
        ("critique", "critique and revision", "revisions never sample them"),
    ):
        ids = [principle.id for principle in constitution.principles if missing not in principle.requests]
        if ids:
            yield f"no {wanted} request, so that {use}: {', '.join(ids)}"
    texts = [
        (f"the {form} request of {principle.id!r}", text)
        for principle in constitution.principles
        for form, text in principle.requests.items()
    ]
    for name, text in texts:
        if NEMO_CHAT.contains_template_token(text):
            yield f"{name} contains one of the chat template's tokens ({', '.join(NEMO_CHAT.template_tokens)})"
    words = [(name, text.casefold().split()) for name, text in texts]
    for (name, one), (other_name, other) in combinations(words, 2):
        matcher = SequenceMatcher(None, one, other, autojunk=False)
        # The quick ratio is an upper bound; it rules out nearly all pairs.
        if matcher.quick_ratio() >= SIMILAR and (share := matcher.ratio()) >= SIMILAR:
            same = "are identical" if one == other else f"are similar ({share:.0%} of the words)"
            yield f"{name} and {other_name} {same}"


def few_shot_findings(few_shots: Sequence[Conversation]) -> Iterator[str]:
    """Yield warnings about valid few-shot examples, numbered from 1 in file order."""
    for number, example in enumerate(few_shots, start=1):
        roles = [turn.role for turn in example.turns]
        replies = roles.count(Role.ASSISTANT)
        if replies < len(_REPLIES):
            yield f"few-shot example {number} has {replies} replies; it needs an answer, a critique and a revision"
        if roles != [Role.USER, Role.ASSISTANT] * replies:
            yield f"few-shot example {number} does not alternate between user and assistant"
        if any(NEMO_CHAT.contains_template_token(turn.content) for turn in example.turns):
            yield f"few-shot example {number} contains one of the chat template's tokens"


def requests_of(
    principle: Principle, templates: PromptTemplates, few_shots: Sequence[Conversation]
) -> Iterator[tuple[str, Request]]:
    """Yield (title, request) for a principle and example texts, from the same steps as generation."""
    alone = Constitution((principle,), principle.id)
    if "critique" in principle.requests:
        pipeline = RevisionPipeline(ScriptedClient(), alone, few_shots, templates, Sampling(), seed=0)
        record = RevisionSample(_EXAMPLE)
        for step, reply in zip(pipeline.steps(), _REPLIES, strict=True):
            (request,) = step.requests(record)
            record = step.absorb(record, [Completion(reply, "stop")])
            if step.name != "answer":  # the answer does not depend on the principle
                yield step.name, request
    if "judge" in principle.requests:
        judge = multiple_choice(JudgeSettings(constitution=alone, templates=templates, both_orders=False))
        (question,) = judge.questions(JudgeInput(_EXAMPLE.id, _EXAMPLE.conversation, _CANDIDATES))
        yield "judge", question.request


def rendered(request: Request) -> str:
    """Render a request in the tutorial's chat template, with the scored choices, if any."""
    return NEMO_CHAT.generation_prompt(request.conversation) + " | ".join(request.choices)
