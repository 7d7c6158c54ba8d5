# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The flags of the judge and its server."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from nemo_aligner_cai import registry
from nemo_aligner_cai.commands.common.flag_types import COUNT, PORT, POSITIVE, SHARE, Number, host, variable
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.generate.clients import HOSTED_MODEL, HOSTED_REQUESTS_PER_MINUTE
from nemo_aligner_cai.commands.generate.flags import add_body_flags
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.judges.ensemble import ENSEMBLE_STRATEGIES
from nemo_aligner_cai.judges.pairs import Pairs
from nemo_aligner_cai.judges.settings import JudgeConfig

_PAIR_JUDGES = ("multiple-choice", "chain-of-thought", "ensemble")
_USED_BY = {
    ("pairs", "judge_logprobs", "judge_votes"): _PAIR_JUDGES,
    ("judge_clamp",): ("chain-of-thought",),
    ("ensemble", "ensemble_of"): ("ensemble",),
}
"""Flags -> the judges that use them."""


def add_server_flags(parser: Parser) -> None:
    """Add the flags of the judge's server."""
    group = parser.add_group("NGC", "the judge: a hosted model, or any OpenAI-compatible server")
    group.add_argument("--ngc-api-key", help="visible to other users of the machine; prefer NGC_API_KEY")
    group.add_argument(
        "--judge-api-key-env",
        type=variable,
        metavar="NAME",
        help="environment variable with the API key (default: NGC_API_KEY, then NVIDIA_API_KEY, for NVIDIA's servers)",
    )
    group.add_argument(
        "--ngc-url",
        "--judge-url",
        default="https://integrate.api.nvidia.com/v1/chat/completions",
        metavar="URL",
        help="address of the judge's server",
    )
    group.add_argument(
        "--judge-endpoints-dir", metavar="DIR", help="folder with a file for each healthy server, instead of a URL"
    )
    group.add_argument(
        "--ngc-model", "--judge-model", default=HOSTED_MODEL, metavar="NAME", help="the judge's name on its server"
    )
    group.add_argument(
        "--judge-concurrency",
        type=COUNT,
        default=32,
        help="concurrent requests to --judge-url, or to each server of --judge-endpoints-dir",
    )
    group.add_argument(
        "--judge-requests-per-minute",
        type=POSITIVE,
        metavar="N",
        help=f"the judge's rate limit (default: {HOSTED_REQUESTS_PER_MINUTE:g} for NVIDIA's hosted API, else none)",
    )
    group.add_argument(
        "--judge-tokens-per-minute", type=POSITIVE, metavar="N", help="limit of the judge's prompt and reply tokens"
    )
    add_body_flags(group, "--judge-", "--judge-url")
    group.add_argument("--judge-port", type=PORT, help="port of a NeMo text-generation server that is the judge")
    group.add_argument("--judge-host", type=host, default="localhost", help="host of --judge-port")
    parser.effect(
        "ngc_url",
        "judge_endpoints_dir",
        "ngc_api_key",
        "judge_api_key_env",
        "judge_concurrency",
        "judge_requests_per_minute",
        "judge_tokens_per_minute",
        "judge_extra_body",
        "judge_omit",
        when=lambda args: not args.judge_port,
        otherwise="with --judge-port: it applies to --judge-url",
    )
    parser.effect("ngc_url", when=lambda args: not args.judge_endpoints_dir, otherwise="with --judge-endpoints-dir")
    parser.effect("judge_host", when=lambda args: bool(args.judge_port), otherwise="without --judge-port")
    parser.effect("judge_api_key_env", when=lambda args: not args.ngc_api_key, otherwise="with --ngc-api-key")


def add_strategy_flags(parser: Parser) -> None:
    """Add the flags of the judge's strategy and prompts."""
    group = parser.add_group("judging")
    group.add_argument(
        "--sys-prompt-constitution-file-path",
        "--constitution",
        metavar="FILE",
        default=str(packaged()),
        help="a constitution (default: packaged); best-worst also accepts a text file as the judge's system prompt",
    )
    strategies = ", ".join(registry.BUILTIN["judges"])
    group.add_argument(
        "--judge",
        default="best-worst",
        metavar="STRATEGY",
        help=f"{strategies}, or a registered one",
    )
    group.add_argument(
        "--judge-prompt",
        metavar="NAME",
        help="prompt templates: plain, paper, or registered ones (default: chosen by the constitution)",
    )
    group.add_argument(
        "--both-orders",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask a second time with the candidates in reverse order, and keep only pairs on which both agree",
    )
    group.add_argument(
        "--pairs", choices=get_args(Pairs), default="best-worst", help="the candidates that a pair judge compares"
    )
    group.add_argument("--margin", type=SHARE, default=0.0, help="minimum |2p - 1| of a kept pair")
    group.add_argument(
        "--judge-logprobs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="--no-judge-logprobs asks for votes at once, for a server without log-probabilities",
    )
    group.add_argument(
        "--judge-chat-template",
        metavar="NAME",
        help="the judge's chat template, as in --chat-template: of all that --judge-port is asked (default: NeMo's); "
        "on other servers, to get log-probabilities from /v1/completions where a chat cannot continue a reply",
    )
    group.add_argument(
        "--judge-votes", type=COUNT, default=5, metavar="V", help="votes if there are no log-probabilities"
    )
    group.add_argument(
        "--judge-structured",
        action="store_true",
        help="constrain answers by a JSON schema (response_format), which some servers ignore",
    )
    group.add_argument("--judge-few-shot-path", metavar="FILE", help="few-shot examples for the judge (default: none)")
    group.add_argument("--judge-max-tokens", type=COUNT, default=1024, help="limit of a reasoning or an explanation")
    group.add_argument(
        "--judge-clamp",
        type=SHARE,
        nargs=2,
        default=(0.4, 0.6),
        metavar=("LOW", "HIGH"),
        help="chain-of-thought: clamp its probabilities to this interval",
    )
    group.add_argument("--ensemble", type=Number(int, 2), default=4, metavar="K", help="ensemble: principles per pair")
    group.add_argument(
        "--ensemble-of",
        choices=list(ENSEMBLE_STRATEGIES),
        default="multiple-choice",
        help="ensemble: strategy for each principle",
    )
    for names, judges in _USED_BY.items():
        parser.effect(
            *names, when=partial(_is_used_by, judges), otherwise=f"except with --judge {' or '.join(judges)}"
        )
    parser.effect(
        "judge_chat_template",
        when=lambda args: (
            getattr(args, "judge_port", None) or (args.judge_logprobs and _is_used_by(_PAIR_JUDGES, args))
        ),
        otherwise=f"except with --judge-port, or for log-probabilities with --judge {' or '.join(_PAIR_JUDGES)}",
    )


def _is_used_by(judges: Sequence[str], args: argparse.Namespace) -> bool:
    """Tell whether the judge is one of these or an ensemble of one. Judges of other packages may use every flag."""
    name = args.ensemble_of if args.judge == "ensemble" and "ensemble" not in judges else args.judge
    return name in judges or name not in registry.BUILTIN["judges"]


def judge_config(args: argparse.Namespace) -> JudgeConfig:
    """Build the judge's configuration, by default with the packaged constitution."""
    return JudgeConfig(
        strategy=args.judge,
        constitution=Path(args.sys_prompt_constitution_file_path or packaged()),
        prompt=args.judge_prompt,
        pairs=args.pairs,
        both_orders=args.both_orders,
        margin=args.margin,
        logprobs=args.judge_logprobs,
        votes=args.judge_votes,
        structured=args.judge_structured,
        few_shots=Path(args.judge_few_shot_path) if args.judge_few_shot_path else None,
        clamp=(args.judge_clamp[0], args.judge_clamp[1]),
        max_tokens=args.judge_max_tokens,
        ensemble=args.ensemble,
        ensemble_of=args.ensemble_of,
    )
