# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Flags of the generation scripts that do not concern the judge, and the settings that they describe."""

import argparse
from collections.abc import Mapping
from typing import Any

from nemo_aligner_cai.chat import TEMPLATE_FLAGS, ChatTemplate, template_from_flags, template_named
from nemo_aligner_cai.chat.strings import unescape
from nemo_aligner_cai.commands.common.flag_types import (
    COUNT,
    NOT_NEGATIVE,
    PORT,
    POSITIVE,
    SHARE,
    TEMPERATURE,
    Number,
    host,
    json_object,
    omitted_key,
    variable,
)
from nemo_aligner_cai.commands.common.parser import FlagGroup, Parser, never
from nemo_aligner_cai.commands.common.shared_flags import (
    add_chat_template_flag,
    add_system_message_flag,
    add_template_format_flags,
)
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import Sampling
from nemo_aligner_cai.stages.settings import PromptSource

_BOOLEAN = ("True", "False")
CONCURRENCY = 64
WITH_MODEL_URL = "with --model-url or --endpoints-dir: it applies to NeMo's server"


def add_inference_flags(parser: Parser, defaults: Mapping[str, Any]) -> None:
    """Add upstream's flags for NeMo's server, with the defaults of the script."""
    group = parser.add_group("inference", "NeMo's text-generation server and its sampling")
    group.add_argument(
        "--add_bos", choices=_BOOLEAN, default="False", help="put the tokenizer's BOS token before prompts"
    )
    group.add_argument(
        "--top_k", type=Number(int, 0), default=defaults["top_k"], help="sample from K tokens; 0 for all of them"
    )
    group.add_argument(
        "--top_p", type=SHARE, default=defaults["top_p"], help="sample from this share of the probability"
    )
    group.add_argument("--all_probs", choices=_BOOLEAN, default="False", help="accepted for compatibility")
    group.add_argument(
        "--repetition_penalty",
        type=Number(float, 1.0),
        default=defaults["repetition_penalty"],
        help="above 1, tokens become less probable when they repeat",
    )
    group.add_argument("--min_tokens_to_generate", type=Number(int, 0), default=1, help="least length of a reply")
    group.add_argument("--temperature", type=TEMPERATURE, default=1.0, help="temperature of sampling")
    group.add_argument(
        "--greedy", choices=_BOOLEAN, default=defaults["greedy"], help="True: the most probable tokens; False: sample"
    )
    group.add_argument("--tokens_to_generate", type=COUNT, default=1024, help="limit of a reply, in tokens")
    group.add_argument("--end_strings", nargs="*", default=defaults["end_strings"], help="texts that end a reply")
    group.add_argument("--port", type=PORT, default=5656, help="port of NeMo's server")
    group.add_argument("--host", type=host, default="localhost", help="host of NeMo's server")
    parser.effect("all_probs", when=never, otherwise="here: generation does not use the probabilities", accepted=True)
    parser.effect("add_bos", "port", "host", when=on_nemo_server, otherwise=WITH_MODEL_URL, accepted=True)
    parser.effect(
        "temperature",
        "top_p",
        when=lambda args: args.greedy == "False" and args.top_k != 1,
        otherwise="on greedy decoding (--greedy True or --top_k 1); to sample, give --greedy False --top_k 0",
    )
    parser.effect("top_k", when=lambda args: args.greedy == "False" or args.top_k == 1, otherwise="with --greedy True")
    parser.effect(
        "repetition_penalty",
        when=lambda args: args.greedy == "False" or not on_nemo_server(args),
        otherwise="on NeMo's server with --greedy True",
    )


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Build the sampling settings; raises UsageError for values that no server accepts."""
    return Sampling(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        max_tokens=args.tokens_to_generate,
        min_tokens=min(args.min_tokens_to_generate, args.tokens_to_generate),
        repetition_penalty=args.repetition_penalty,
        greedy=args.greedy == "True",
        stop=tuple(unescape(text) for text in args.end_strings or ()),
    )


def add_template_flags(parser: Parser, defaults: Mapping[str, str | None]) -> FlagGroup:
    """Add upstream's seven flags for the chat template and return their group."""
    group = parser.add_group("prompt_template", "the chat template; {MESSAGE} is replaced by a message")
    add_chat_template_flag(group, otherwise="instead of the other flags of this group")
    add_template_format_flags(group, defaults)
    parser.effect(*defaults, when=lambda args: not args.chat_template, otherwise="with --chat-template")
    return group


def template_of(args: argparse.Namespace) -> ChatTemplate:
    """Build the chat template; raises UsageError if it is invalid or cannot be loaded."""
    if args.chat_template:
        return template_named(args.chat_template)
    return template_from_flags({name: getattr(args, name) for name in TEMPLATE_FLAGS})


def add_run_flags(parser: Parser) -> None:
    """Add the flags that upstream's scripts do not have."""
    _add_server_flags(parser)
    group = parser.add_group("run")
    group.add_argument("--resume", action="store_true", help="resume from the journal; no finished call is repeated")
    group.add_argument("--overwrite", action="store_true", help="start again and replace existing outputs")
    group.add_argument(
        "--request-timeout", type=POSITIVE, default=600.0, metavar="SECONDS", help="limit of one request"
    )
    group.add_argument(
        "--max-dropped",
        type=SHARE,
        default=0.01,
        metavar="SHARE",
        help="share of the prompts that faults may drop; exit code 1 if more are dropped",
    )
    group.add_argument("--turns", choices=["first", "all"], default="first", help="turns to use of red-team dialogues")
    add_system_message_flag(group, "prompts, in requests and outputs,")
    group.add_argument("--dry-run", action="store_true", help="run all steps with a scripted model and keep no files")
    group.add_argument("--plan", action="store_true", help="count the new calls and those in the journal, and exit")
    group.add_argument(
        "--preview", type=COUNT, metavar="N", help="show the requests of the first N prompts with scripted replies"
    )
    group.add_argument("--price-read", type=NOT_NEGATIVE, metavar="PRICE", help="price of a million prompt tokens")
    group.add_argument(
        "--price-written", type=NOT_NEGATIVE, metavar="PRICE", help="price of a million completion tokens"
    )


def _add_server_flags(parser: Parser) -> None:
    group = parser.add_group("server", "an OpenAI-compatible server instead of --host and --port")
    group.add_argument(
        "--model-url", action="append", metavar="URL", help="its address; repeat for several servers of one model"
    )
    group.add_argument(
        "--endpoints-dir",
        metavar="DIR",
        help="folder with a file for each healthy server that holds its address; servers may join and leave",
    )
    group.add_argument("--model", help="the model's name on that server; on NeMo's server, any name for the journal")
    group.add_argument(
        "--api-key-env", type=variable, metavar="NAME", help="environment variable with the API key of --model-url"
    )
    group.add_argument(
        "--concurrency",
        type=COUNT,
        help=f"concurrent requests to --model-url, or to each server of --endpoints-dir (default: {CONCURRENCY})",
    )
    group.add_argument("--requests-per-minute", type=POSITIVE, metavar="N", help="rate limit of --model-url")
    group.add_argument(
        "--tokens-per-minute", type=POSITIVE, metavar="N", help="limit of prompt and completion tokens of --model-url"
    )
    add_body_flags(group, "--", "--model-url")
    parser.effect("endpoints_dir", when=lambda args: not args.model_url, otherwise="with --model-url")
    parser.effect(
        "api_key_env",
        "concurrency",
        "extra_body",
        "omit",
        "requests_per_minute",
        "tokens_per_minute",
        when=lambda args: not on_nemo_server(args),
        otherwise="without --model-url or --endpoints-dir: NeMo's server accepts one batch at a time, and no key",
    )


def add_body_flags(group: FlagGroup, prefix: str, server: str) -> None:
    """Add the flags that adapt request bodies to what a service accepts."""
    group.add_argument(
        f"{prefix}extra-body",
        type=json_object,
        metavar="JSON",
        help=f"keys to add to requests to {server}, or to replace in them: '{{\"top_logprobs\": 5}}'",
    )
    group.add_argument(
        f"{prefix}omit",
        type=omitted_key,
        nargs="+",
        metavar="KEY[=OTHER]",
        help=f"keys to omit from requests to {server}, or to rename: seed max_tokens=max_completion_tokens",
    )


def on_nemo_server(args: argparse.Namespace) -> bool:
    """Tell whether the model is on NeMo's server."""
    return not args.model_url and not args.endpoints_dir


def add_prompt_flags(parser: Parser) -> None:
    """Add the flags that select prompts of the red-team file."""
    parser.add_argument("--num-examples", type=int, default=-1, help="number of prompts; -1 uses all")
    parser.add_argument(
        "--prompt-column",
        metavar="NAME",
        help="the column of the red-team file with the prompts (default: detected by the column names)",
    )


def prompt_source(args: argparse.Namespace, path: str) -> PromptSource:
    """Build the source of the prompts in a file."""
    if args.num_examples == 0 or args.num_examples < -1:
        raise UsageError(f"--num-examples must be positive, or -1 for all, got {args.num_examples}")
    return PromptSource(
        path=path,
        turns=args.turns,
        limit=None if args.num_examples == -1 else args.num_examples,
        column=args.prompt_column,
        system_message=args.system_message,
    )


def run_settings(args: argparse.Namespace, **more: Any) -> RunSettings:
    """Build the run settings, with `more` of them; raises UsageError for --resume with --overwrite."""
    return RunSettings(
        **more,
        seed=args.seed,
        resume=args.resume,
        overwrite=args.overwrite,
        max_dropped=args.max_dropped,
        price_read=args.price_read or 0.0,
        price_written=args.price_written or 0.0,
        progress=True,
    )
