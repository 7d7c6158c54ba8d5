# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai evaluate`: harm, over-refusal and evasion of models on prompt sets, with intervals.

Input:  models (servers, .nemo files or saved completions), prompt sets, graders
Output: in --output: evaluation.json, completions.jsonl, grades.jsonl, comparisons.jsonl with --judge, a log for
        inspect_ai of each model in logs/, and in models/ the graded replies of each model with its journal
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nemo_aligner_cai import registry
from nemo_aligner_cai.commands.common.flag_types import COUNT, POSITIVE, SEED, SHARE, TEMPERATURE, variable
from nemo_aligner_cai.commands.common.parser import Parser, recorded_flags
from nemo_aligner_cai.commands.common.shared_flags import add_chat_template_flag
from nemo_aligner_cai.commands.evaluate import evaluation_display
from nemo_aligner_cai.commands.evaluate.model_specs import ServerSettings, model_of, named, served_model_of
from nemo_aligner_cai.commands.generate.script import resumable
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.inputs import EvaluationInputs
from nemo_aligner_cai.evaluation.results import Side
from nemo_aligner_cai.evaluation.run import EvaluationRun
from nemo_aligner_cai.evaluation.settings import EvaluateConfig, EvaluatedModel, EvaluationFiles, SetSource
from nemo_aligner_cai.judges.settings import JudgeConfig
from nemo_aligner_cai.models import Sampling
from nemo_aligner_cai.models.api_keys import named_key
from nemo_aligner_cai.pipeline.serving.servers import ask

_CONCURRENCY = 64


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai evaluate`."""
    parser.epilog = "SPEC: http://HOST:PORT/v1#MODEL, nemo://HOST:PORT, a .nemo file, or a file of completions."
    parser.examples = (
        "cai evaluate --model rl-cai=http://localhost:8000/v1#rl-cai --set xstest=xstest_prompts.csv "
        "--grader xstest-strings --output evaluation",
        "cai evaluate --model before=before.csv --model after=after.csv --baseline before "
        "--set xstest=xstest_prompts.csv --grader xstest-strings --output evaluation",
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="NAME=SPEC", help="a model; repeat for more"
    )
    parser.add_argument("--set", action="append", required=True, metavar="NAME=FILE", help="a prompt set; repeat")
    parser.add_argument(
        "--side", action="append", default=[], metavar="NAME=SIDE", help="harmful or benign, for a set that needs it"
    )
    graders = ", ".join(registry.BUILTIN["graders"])
    parser.add_argument(
        "--grader", action="append", required=True, metavar="NAME", help=f"{graders}, or a YAML file; repeat for more"
    )
    parser.add_argument("--grader-model", metavar="SPEC", help="the model that grades and judges")
    parser.add_argument("--baseline", metavar="NAME", help="the model with which the others are compared")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder of all files")
    parser.add_argument(
        "--gold", action="append", default=[], metavar="FILE", help="human labels that measure the graders; repeat"
    )
    _add_pairwise_flags(parser)
    _add_generation_flags(parser)
    _add_run_flags(parser)


def _add_pairwise_flags(parser: Parser) -> None:
    group = parser.add_group("pairwise", "comparisons of the models in pairs, in both orders")
    group.add_argument(
        "--judge", metavar="STRATEGY", help="compare with this judge: multiple-choice, chain-of-thought or ensemble"
    )
    group.add_argument(
        "--constitution", metavar="FILE", default=str(packaged()), help="its principles (default: packaged)"
    )
    group.add_argument("--judge-prompt", metavar="NAME", help="its prompt templates, as in `cai data rl-cai`")
    parser.effect(
        "constitution", "judge_prompt", when=lambda args: args.judge is not None, otherwise="without --judge"
    )


def _add_generation_flags(parser: Parser) -> None:
    group = parser.add_group("generation", "the replies of the models, and their servers")
    group.add_argument("--temperature", type=TEMPERATURE, default=0.0, help="0 is greedy decoding")
    group.add_argument("--top-p", type=SHARE, default=1.0, help="sample from this share of the probability")
    group.add_argument("--max-tokens", type=COUNT, default=512, help="limit of a reply, in tokens")
    group.add_argument("--limit", type=COUNT, metavar="N", help="prompts of each side of each set (default: all)")
    group.add_argument("--seed", type=SEED, default=1234, help="seed of the replies and of the judge")
    group.add_argument("--api-key-env", type=variable, metavar="NAME", help="variable with the models' API key")
    group.add_argument("--grader-api-key-env", type=variable, metavar="NAME", help="the same for --grader-model")
    group.add_argument("--concurrency", type=COUNT, default=_CONCURRENCY, help="requests at once")
    group.add_argument("--grader-concurrency", type=COUNT, default=_CONCURRENCY, help="the same for --grader-model")
    group.add_argument(
        "--request-timeout", type=POSITIVE, default=600.0, metavar="SECONDS", help="limit of one request"
    )
    add_chat_template_flag(group, otherwise="of NeMo's servers and .nemo files (default: from the model)")
    group.add_argument("--allow-self-grading", action="store_true", help="accept a grader that is one of the models")
    parser.effect("top_p", when=lambda args: args.temperature > 0, otherwise="on greedy decoding")


def _add_run_flags(parser: Parser) -> None:
    group = parser.add_group("run")
    group.add_argument("--resume", action="store_true", help="resume from the journals; no finished call is repeated")
    group.add_argument("--overwrite", action="store_true", help="start again and replace existing outputs")
    group.add_argument(
        "--max-dropped",
        type=SHARE,
        default=0.01,
        metavar="SHARE",
        help="share of each model's prompts that failed calls may drop; exit code 1 for more",
    )
    group.add_argument("--plan", action="store_true", help="count the new calls and those in the journals, and exit")
    group.add_argument(
        "--preview", type=COUNT, metavar="N", help="show the requests of the first N prompts with scripted replies"
    )
    parser.set_defaults(dry_run=False)


def run(args: argparse.Namespace) -> int:
    """Check all inputs, run the models and graders, and show the figures."""
    inputs = EvaluationInputs(config_of(args), _models(args), _grader_model(args))
    if args.preview is not None:
        evaluation_display.show_preview(inputs, args.preview)
        return 0
    if args.plan:
        evaluation_display.show_plan(inputs)
        return 0
    evaluation_run = EvaluationRun(inputs, ask)
    evaluation_run.begin()
    with resumable(args):
        evaluation = evaluation_run.execute()
    evaluation_display.show(evaluation, evaluation_run.summaries, inputs.files.result)
    evaluation_run.check()
    return 0


def config_of(args: argparse.Namespace) -> EvaluateConfig:
    """Build the settings."""
    judge = None
    if args.judge is not None:
        judge = JudgeConfig(
            strategy=args.judge, constitution=Path(args.constitution), prompt=args.judge_prompt, pairs="all"
        )
    return EvaluateConfig(
        sets=_sets(args.set, args.side),
        graders=tuple(args.grader),
        output=Path(args.output),
        baseline=args.baseline,
        judge=judge,
        gold=tuple(map(Path, args.gold)),
        sampling=Sampling(
            temperature=args.temperature,
            top_p=args.top_p,
            max_tokens=args.max_tokens,
            greedy=args.temperature == 0.0,
        ),
        limit=args.limit,
        allow_self_grading=args.allow_self_grading,
        run=RunSettings(
            seed=args.seed,
            resume=args.resume,
            overwrite=args.overwrite,
            max_dropped=args.max_dropped,
            progress=True,
        ),
        record=recorded_flags(args),
    )


def _sets(sets: Sequence[str], sides: Sequence[str]) -> tuple[SetSource, ...]:
    chosen: dict[str, Side] = {}
    for text in sides:
        name, value = named(text, "--side")
        side: Side | None = "harmful" if value == "harmful" else "benign" if value == "benign" else None
        if side is None:
            raise UsageError(f"--side {text}: the side is harmful or benign")
        chosen[name] = side
    found = dict(named(text, "--set") for text in sets)
    if len(found) < len(sets):
        raise UsageError(f"--set: two sets have the same name: {' '.join(sets)}")
    if unknown := chosen.keys() - found.keys():
        raise UsageError(f"--side {min(unknown)}=...: there is no --set {min(unknown)}=FILE")
    return tuple(SetSource(name=name, file=file, side=chosen.get(name)) for name, file in found.items())


def _models(args: argparse.Namespace) -> list[EvaluatedModel]:
    settings = _server_settings(args, args.api_key_env, args.concurrency)
    return [model_of(*named(text, "--model"), settings) for text in args.model]


def _grader_model(args: argparse.Namespace) -> EvaluatedModel | None:
    if args.grader_model is None:
        return None
    return served_model_of(args.grader_model, _server_settings(args, args.grader_api_key_env, args.grader_concurrency))


def _server_settings(args: argparse.Namespace, key: str | None, concurrency: int) -> ServerSettings:
    return ServerSettings(
        key=None if args.plan or args.preview is not None else named_key(key),
        concurrency=concurrency,
        timeout=args.request_timeout,
        template=args.chat_template,
        logs=EvaluationFiles(Path(args.output)).folder / "models",
    )
