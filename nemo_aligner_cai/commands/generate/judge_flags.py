# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The flags that describe a judge and its server, and what is made of them."""

import argparse
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from nemo_aligner_cai import registry
from nemo_aligner_cai.chat import ChatTemplate, Conversation, template_named
from nemo_aligner_cai.commands.common.flag_types import COUNT, PORT, POSITIVE, SHARE, Number, Parser, host, variable
from nemo_aligner_cai.commands.generate import generate_flags as flags
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import Judge, JudgeInput
from nemo_aligner_cai.judges.ensemble import BALLOTS
from nemo_aligner_cai.judges.pairs import PAIRS
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    ModelClient,
    NemoServerClient,
    OpenAIClient,
    Request,
    RetryPolicy,
    ScriptedClient,
    ServerRefused,
    key_from_environment,
)
from nemo_aligner_cai.models.openai import chat_url
from nemo_aligner_cai.stages.judging import JudgeConfig

_log = logging.getLogger(__name__)
_KEYS = ("NGC_API_KEY", "NVIDIA_API_KEY")
_KEYS_TEXT = " or ".join(_KEYS)
_YAML_OR_JSON = (".yaml", ".yml", ".json")
_HOSTED = "api.nvidia.com"
_NVIDIA = "nvidia.com"
_HOSTED_MODEL = "mistralai/mixtral-8x7b-instruct-v0.1"
_HOSTED_REQUESTS_PER_MINUTE = 40.0
"""What NVIDIA's hosted API grants a key, unless it is told to grant more."""
_SCRIPTED = re.compile(r"scripted reply \(([0-9a-f]{12})\)")
_PROBE = RetryPolicy(timeout=60.0, attempts=2, max_outage=10.0)
"""A judge that does not answer at all is found within seconds, before anything is generated."""
_WRONG_SETTINGS = (400, 422)
_EXAMPLE = JudgeInput("probe", Conversation.of_user("Hello"), ("Hello.", "Good day."))


def add_server_flags(parser: Parser) -> None:
    """Upstream's flags for the judge's server, and ours."""
    group = parser.add_argument_group("NGC", "the judge: a hosted model, or any OpenAI-compatible server")
    group.add_argument("--ngc-api-key", help="visible to other users of the machine; better set NGC_API_KEY")
    group.add_argument(
        "--judge-api-key-env",
        type=variable,
        metavar="NAME",
        help="default: NGC_API_KEY, then NVIDIA_API_KEY, for NVIDIA's own servers alone",
    )
    group.add_argument(
        "--ngc-url", "--judge-url", default="https://integrate.api.nvidia.com/v1/chat/completions", metavar="URL"
    )
    group.add_argument("--ngc-model", "--judge-model", default=_HOSTED_MODEL, metavar="NAME")
    group.add_argument("--judge-concurrency", type=COUNT, default=32, help="judge requests in flight (default: 32)")
    group.add_argument(
        "--judge-requests-per-minute",
        type=POSITIVE,
        metavar="N",
        help=f"the judge's quota (default: {_HOSTED_REQUESTS_PER_MINUTE:g} for NVIDIA's hosted API, else none)",
    )
    group.add_argument(
        "--judge-tokens-per-minute", type=POSITIVE, metavar="N", help="likewise, read and written together"
    )
    flags.add_body_flags(group, "--judge-", "the requests to --judge-url")
    group.add_argument("--judge-port", type=PORT, help="the judge is a NeMo text-generation server on this port")
    group.add_argument("--judge-host", type=host, default="localhost", help="with --judge-port (default: localhost)")
    parser.effect(
        "ngc_url",
        "ngc_api_key",
        "judge_api_key_env",
        "judge_concurrency",
        "judge_requests_per_minute",
        "judge_tokens_per_minute",
        "judge_extra_body",
        "judge_omit",
        when=lambda args: not args.judge_port,
        otherwise="with --judge-port: it is about --judge-url",
    )
    parser.effect(
        "judge_chat_template",
        when=lambda args: not args.judge_port,
        otherwise="with --judge-port: NeMo's server scores any text as it is",
    )
    parser.effect("judge_host", when=lambda args: bool(args.judge_port), otherwise="without --judge-port")
    parser.effect("judge_api_key_env", when=lambda args: not args.ngc_api_key, otherwise="with --ngc-api-key")


def add_strategy_flags(parser: Parser) -> None:
    """How the judge is asked."""
    group = parser.add_argument_group("judging")
    group.add_argument(
        "--sys-prompt-constitution-file-path",
        "--constitution",
        metavar="FILE",
        default=str(packaged()),
        help="a constitution (default: packaged); for best-worst, a text file is the judge's system prompt",
    )
    group.add_argument(
        "--judge", default="best-worst", metavar="STRATEGY", help=f"{', '.join(registry.OURS['judges'])}, or another"
    )
    group.add_argument(
        "--judge-prompt",
        metavar="NAME",
        help="how it is asked: plain, paper, or another; default: by the constitution",
    )
    group.add_argument(
        "--both-orders",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask twice with the candidates in reverse order, and keep what both agree on",
    )
    group.add_argument("--pairs", choices=PAIRS, default="best-worst", help="which candidates a pair judge compares")
    group.add_argument("--margin", type=SHARE, default=0.0, help="least |2p - 1| of a kept pair (default: 0)")
    group.add_argument(
        "--judge-logprobs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="--no-judge-logprobs asks for votes at once, on a server that has no log-probabilities",
    )
    group.add_argument(
        "--judge-chat-template",
        metavar="NAME",
        help="the judge's chat template, as for --chat-template, by which /v1/completions gives log-probabilities; "
        "for a server whose chat goes on from no reply that is begun",
    )
    group.add_argument("--judge-votes", type=COUNT, default=5, metavar="V", help="in place of log-probabilities")
    group.add_argument(
        "--judge-structured",
        action="store_true",
        help="hold answers to a JSON schema (response_format). Off by default: servers differ, and some ignore it",
    )
    group.add_argument("--judge-few-shot-path", metavar="FILE", help="examples for the judge (default: none)")
    group.add_argument("--judge-max-tokens", type=COUNT, default=1024, help="of a reasoning or an explanation")
    group.add_argument(
        "--judge-clamp",
        type=SHARE,
        nargs=2,
        default=(0.4, 0.6),
        metavar=("LOW", "HIGH"),
        help="chain-of-thought: the interval for its probabilities (default: 0.4 0.6)",
    )
    group.add_argument(
        "--ensemble", type=Number(int, 2), default=4, metavar="K", help="ensemble: principles for each pair"
    )
    group.add_argument("--ensemble-of", choices=list(BALLOTS), default="multiple-choice", help="ensemble: asked how")
    choosing = ("multiple-choice", "chain-of-thought", "ensemble")
    for names, judges in (
        (("pairs", "judge_logprobs", "judge_votes"), choosing),
        (("judge_clamp",), ("chain-of-thought",)),
        (("judge_max_tokens",), ("best-worst", "chain-of-thought")),
        (("ensemble", "ensemble_of"), ("ensemble",)),
    ):
        parser.effect(*names, when=partial(_is_used, judges), otherwise=f"but with --judge {' or '.join(judges)}")
    parser.effect(
        "judge_chat_template",
        when=lambda args: args.judge_logprobs and _is_used(choosing, args),
        otherwise=f"but for log-probabilities, with --judge {' or '.join(choosing)}",
    )


def _is_used(judges: Sequence[str], args: argparse.Namespace) -> bool:
    """Whether the judge is one of these, or an ensemble of one; another package's takes any setting."""
    name = args.ensemble_of if args.judge == "ensemble" and "ensemble" not in judges else args.judge
    return name in judges or name not in registry.OURS["judges"]


def judge_config(args: argparse.Namespace) -> JudgeConfig:
    """How the flags describe the judge; without a constitution, the packaged one is named."""
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


def judge_key(args: argparse.Namespace) -> str | None:
    """The judge's API key, None where none is needed; raises UsageError where it is missing, or flags contradict."""
    chat_url(args.ngc_url)
    if args.dry_run or args.plan or args.judge_port:
        return None
    if args.ngc_api_key:
        _log.warning("--ngc-api-key stays in shell histories, and was in process lists; set NGC_API_KEY instead")
        return flags.checked_key(args.ngc_api_key, "--ngc-api-key")
    if args.judge_api_key_env:
        return flags.named_key(args.judge_api_key_env)
    key = key_from_environment(*_KEYS)
    if not _is_at(args.ngc_url, _NVIDIA):
        if key is not None:
            _log.info("%s is sent to NVIDIA's servers alone; --judge-api-key-env names another key", _KEYS_TEXT)
        return None
    if key is not None:
        return flags.checked_key(key, _KEYS_TEXT)
    if _is_at(args.ngc_url, _HOSTED):
        raise UsageError(
            f"NVIDIA's hosted judge needs an API key: set {_KEYS_TEXT}, or name a variable with --judge-api-key-env; "
            "a server of your own is named by --judge-url and --judge-model and needs none"
        )
    return None


def judge_template(args: argparse.Namespace) -> ChatTemplate | None:
    """The judge's chat template, None where its server knows it alone; raises UsageError where it cannot be had."""
    return template_named(args.judge_chat_template) if args.judge_chat_template else None


def judge_client(args: argparse.Namespace, key: str | None, retry_policy: RetryPolicy) -> ModelClient:
    """The client of the judge model; raises UsageError for flags that it cannot be made of."""
    template = judge_template(args)
    if args.dry_run:
        return ScriptedClient(_dry_judge, name="judge", remember=False)
    if args.judge_port:
        if args.judge_structured:
            raise UsageError("--judge-structured: NeMo's server, which --judge-port names, cannot do that")
        model = "judge" if args.ngc_model == _HOSTED_MODEL else args.ngc_model
        return NemoServerClient(args.judge_host, args.judge_port, model=model, retry_policy=retry_policy)
    quota = args.judge_requests_per_minute
    return OpenAIClient(
        args.ngc_url,
        args.ngc_model,
        key=key,
        concurrency=args.judge_concurrency,
        requests_per_minute=quota or (_HOSTED_REQUESTS_PER_MINUTE if _is_at(args.ngc_url, _HOSTED) else None),
        tokens_per_minute=args.judge_tokens_per_minute,
        retry_policy=retry_policy,
        changes=flags.body_changes(args.judge_extra_body, args.judge_omit),
        template=template,
    )


def _is_at(url: str, domain: str) -> bool:
    host = urlsplit(chat_url(url)).hostname or ""
    return host == domain or host.endswith(f".{domain}")


def _dry_judge(request: Request) -> Completion:
    """Prefers the scripted candidate with the higher number, in whatever order it is shown them."""
    found = (_SCRIPTED.findall(message.content) for message in reversed(request.conversation.messages))
    numbers = next((some for some in found if some), list[str]())
    if request.choices:
        scores = dict(zip(request.choices, (0.0, -3.0) if numbers[:1] > numbers[1:] else (-3.0, 0.0), strict=True))
        return Completion("", "choices", choice_logprobs=scores)
    if not numbers:
        return Completion("Hello.", "stop")
    best, worst = numbers.index(max(numbers)) + 1, numbers.index(min(numbers)) + 1
    return Completion(json.dumps({"chosen": best, "rejected": worst}), "stop")


async def probe_judge(args: argparse.Namespace, key: str | None, judge: Judge) -> None:
    """Ask the judge's first question about two greetings: a bad key or name is found before anything is paid for.

    So is a server that refuses JSON schemas.

    Raises:
        ServerRefused: it does not answer as it must.
    """
    client = judge_client(args, key, _PROBE)
    request = judge.questions(_EXAMPLE)[0].request
    try:
        # Without choices: how they can be scored is found out by the client that scores them, once. A server that is
        # asked by /v1/completions may have no chat.
        choices = request.choices if args.judge_chat_template else ()
        await client.complete(replace(request, choices=choices, sampling=replace(request.sampling, max_tokens=1)))
    except (CallFailed, ServerRefused) as failure:
        mend = ""
        if getattr(failure, "status", None) in _WRONG_SETTINGS and request.schema:
            mend = "; if it cannot do what it was asked, give no --judge-structured"
        raise ServerRefused(f"the judge does not answer: {failure}{mend}") from None
    finally:
        await client.close()
