# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What the two generation scripts have in common: upstream's inference and template flags, and how a run is driven."""

import argparse
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nemo_aligner_cai.chat import TEMPLATE_FLAGS, TEMPLATES, ChatTemplate, template_from_flags, template_named
from nemo_aligner_cai.chat.strings import unescape
from nemo_aligner_cai.commands.common.exit_codes import exit_code, log_to_stderr
from nemo_aligner_cai.commands.common.flag_types import (
    COUNT,
    NOT_NEGATIVE,
    PORT,
    POSITIVE,
    SHARE,
    TEMPERATURE,
    Number,
    Parser,
    host,
    json_object,
    never,
    not_empty,
    omitted_key,
    system_message,
    variable,
)
from nemo_aligner_cai.console import program
from nemo_aligner_cai.console.printable import hide_secret
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import (
    BodyChanges,
    ModelClient,
    NemoServerClient,
    OpenAIClient,
    RetryPolicy,
    Sampling,
    ScriptedClient,
    key_from_environment,
)
from nemo_aligner_cai.models.nemo_server import MAX_SENTENCES
from nemo_aligner_cai.stages.settings import PromptSource, RunSettings

_log = logging.getLogger(__name__)
_TRUTH = ("True", "False")
_CONCURRENCY = 64
WITH_MODEL_URL = "with --model-url: it is about NeMo's server"


def add_inference_flags(parser: Parser, defaults: Mapping[str, Any]) -> None:
    """Upstream's flags for NeMo's server, with the script's own defaults."""
    group = parser.add_argument_group("inference", "NeMo's text-generation server and how it samples")
    group.add_argument("--add_bos", choices=_TRUTH, default="False")
    group.add_argument("--top_k", type=Number(int, 0), default=defaults["top_k"])
    group.add_argument("--top_p", type=SHARE, default=defaults["top_p"])
    group.add_argument(
        "--all_probs", choices=_TRUTH, default="False", help="accepted as upstream has it; nothing here needs them"
    )
    group.add_argument("--repetition_penalty", type=Number(float, 1.0), default=defaults["repetition_penalty"])
    group.add_argument("--min_tokens_to_generate", type=Number(int, 0), default=1)
    group.add_argument("--temperature", type=TEMPERATURE, default=1.0)
    group.add_argument("--greedy", choices=_TRUTH, default=defaults["greedy"])
    group.add_argument("--tokens_to_generate", type=COUNT, default=1024)
    group.add_argument("--end_strings", nargs="*", type=not_empty, default=defaults["end_strings"])
    group.add_argument("--port", type=PORT, default=5656)
    group.add_argument("--host", type=host, default="localhost")
    parser.effect("all_probs", when=never, otherwise="here: nothing needs them", accepted=True)
    parser.effect("add_bos", "port", "host", when=_nemo_server, otherwise=WITH_MODEL_URL, accepted=True)
    parser.effect(
        "temperature",
        "top_p",
        when=lambda args: args.greedy == "False" and args.top_k != 1,
        otherwise="where the likeliest token is taken; to sample, give --greedy False --top_k 0",
    )
    parser.effect("top_k", when=lambda args: args.greedy == "False" or args.top_k == 1, otherwise="with --greedy True")
    parser.effect(
        "repetition_penalty",
        when=lambda args: args.greedy == "False" or not _nemo_server(args),
        otherwise="on NeMo's server with --greedy True",
    )


def add_template_flags(parser: Parser, defaults: Mapping[str, str | None]) -> Any:
    """Upstream's seven flags for the chat template; returns their group."""
    group = parser.add_argument_group("prompt_template", "the chat template; {MESSAGE} stands for a message")
    group.add_argument(
        "--chat-template",
        metavar="NAME",
        help=f"{', '.join(TEMPLATES)}, or the folder of a Hugging Face tokenizer, in place of the other flags",
    )
    for name, default in defaults.items():
        group.add_argument(f"--{name}", default=default)
    parser.effect(*defaults, when=lambda args: not args.chat_template, otherwise="with --chat-template")
    return group


def template_of(args: argparse.Namespace) -> ChatTemplate:
    """The template that the flags describe; raises UsageError where it cannot be had."""
    if args.chat_template:
        return template_named(args.chat_template)
    return template_from_flags({name: getattr(args, name) for name in TEMPLATE_FLAGS})


def add_run_flags(parser: Parser) -> None:
    """What upstream does not have: other servers, resuming, limits, and looking before paying."""
    group = parser.add_argument_group("server", "an OpenAI-compatible server in place of --host and --port")
    group.add_argument(
        "--model-url", action="append", metavar="URL", help="its address; give several for equal servers of one model"
    )
    group.add_argument("--model", help="the model's name there; for NeMo's server, a name that tells models apart")
    group.add_argument(
        "--api-key-env", type=variable, metavar="NAME", help="environment variable with the API key of --model-url"
    )
    group.add_argument("--concurrency", type=COUNT, help=f"requests in flight there (default: {_CONCURRENCY})")
    group.add_argument("--requests-per-minute", type=POSITIVE, metavar="N", help="the quota of --model-url")
    group.add_argument("--tokens-per-minute", type=POSITIVE, metavar="N", help="likewise, read and written together")
    add_body_flags(group, "--", "the requests to --model-url")
    parser.effect(
        "api_key_env",
        "concurrency",
        "extra_body",
        "omit",
        "requests_per_minute",
        "tokens_per_minute",
        when=lambda args: not _nemo_server(args),
        otherwise="without --model-url: NeMo's server takes one batch at a time, and no key",
    )
    group = parser.add_argument_group("run")
    group.add_argument("--resume", action="store_true", help="go on from the journal; no finished call is repeated")
    group.add_argument("--overwrite", action="store_true", help="start anew and replace existing outputs")
    group.add_argument("--request-timeout", type=POSITIVE, default=600.0, metavar="SECONDS", help="default: 600")
    group.add_argument(
        "--max-dropped",
        type=SHARE,
        default=0.01,
        metavar="SHARE",
        help="share of the prompts that may be left out by faults (default: 0.01); more ends with exit code 1",
    )
    group.add_argument("--turns", choices=["first", "all"], default="first", help="of multi-turn red-team dialogues")
    group.add_argument(
        "--system-message",
        type=system_message,
        metavar="TEXT",
        default="",
        help="system message of the prompts that have none, in requests and outputs; some tokenizers (GPT-2's rule, "
        "such as SmolLM2's) need one for SFT",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="go through everything with a scripted model, keep nothing"
    )
    group.add_argument(
        "--plan",
        action="store_true",
        help="say how many calls are to be made and how many are in the journal, and stop",
    )
    group.add_argument(
        "--preview", type=COUNT, metavar="N", help="show the first N prompts' chains with scripted replies, and stop"
    )
    group.add_argument(
        "--price-read", type=NOT_NEGATIVE, metavar="PRICE", help="of a million prompt tokens, for the cost"
    )
    group.add_argument("--price-written", type=NOT_NEGATIVE, metavar="PRICE", help="of a million completion tokens")


def _nemo_server(args: argparse.Namespace) -> bool:
    return not args.model_url


def add_prompt_column_flag(parser: argparse.ArgumentParser) -> None:
    """The flag that names the column of the prompts."""
    parser.add_argument(
        "--prompt-column",
        metavar="NAME",
        help="the column of the red-team file that holds the prompts; default: told by the names of the columns",
    )


def sampling_of(args: argparse.Namespace) -> Sampling:
    """The sampling that the inference flags describe; raises UsageError for values that no server takes."""
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


def run_settings(args: argparse.Namespace) -> RunSettings:
    """How the flags drive a run; raises UsageError where they contradict each other."""
    return RunSettings(
        seed=args.seed,
        resume=args.resume,
        overwrite=args.overwrite,
        max_dropped=args.max_dropped,
        price_read=args.price_read or 0.0,
        price_written=args.price_written or 0.0,
        progress=True,
    )


def prompt_source(args: argparse.Namespace, path: str) -> PromptSource:
    """The prompts of a file as the flags ask for them."""
    if args.num_examples == 0 or args.num_examples < -1:
        raise UsageError(f"--num-examples must be positive, or -1 for all, it is {args.num_examples}")
    return PromptSource(
        path=path,
        turns=args.turns,
        limit=None if args.num_examples == -1 else args.num_examples,
        column=args.prompt_column,
        system_message=args.system_message,
    )


def model_client(
    args: argparse.Namespace,
    template: ChatTemplate,
    *,
    batch_size: int,
    server_template: bool = False,
    completions_template: ChatTemplate | None = None,
) -> ModelClient:
    """The client of the model that is sampled from; see the two clients for the templates."""
    if args.dry_run:
        return ScriptedClient(remember=False)
    retry_policy = RetryPolicy(timeout=args.request_timeout)
    if args.model_url:
        if not args.model:
            raise UsageError("--model-url needs --model, the model's name on that server")
        return OpenAIClient(
            args.model_url,
            args.model,
            key=named_key(args.api_key_env),
            concurrency=args.concurrency or _CONCURRENCY,
            retry_policy=retry_policy,
            requests_per_minute=args.requests_per_minute,
            tokens_per_minute=args.tokens_per_minute,
            changes=body_changes(args.extra_body, args.omit),
            template=completions_template,
        )
    if batch_size > MAX_SENTENCES:
        _log.warning("NeMo's server takes at most %d sentences at a time, not %d", MAX_SENTENCES, batch_size)
    return NemoServerClient(
        args.host,
        args.port,
        model=args.model or "nemo",
        template=template,
        batch_size=min(batch_size, MAX_SENTENCES),
        add_bos=args.add_bos == "True",
        server_template=server_template,
        retry_policy=retry_policy,
    )


def add_body_flags(group: Any, prefix: str, which: str) -> None:
    """How requests differ from what this program sends; services differ in what they accept."""
    group.add_argument(
        f"{prefix}extra-body",
        type=json_object,
        metavar="JSON",
        help=f"keys that {which} have too, or in place of the program's: '{{\"top_logprobs\": 5}}'",
    )
    group.add_argument(
        f"{prefix}omit",
        type=omitted_key,
        nargs="+",
        metavar="KEY[=OTHER]",
        help=f"keys that {which} lack, or have under another name: seed max_tokens=max_completion_tokens",
    )


def body_changes(extra: Mapping[str, Any] | None, omitted: Sequence[tuple[str, str | None]] | None) -> BodyChanges:
    """The changes that the flags describe; raises UsageError for keys that cannot be changed."""
    try:
        return BodyChanges(extra or {}, dict(omitted or ()))
    except UsageError as error:
        raise UsageError(f"--extra-body or --omit: {error}") from error


def named_key(variable: str | None) -> str | None:
    """The API key in an environment variable, None where none is named; raises UsageError where it is not set."""
    if variable is None:
        return None
    key = key_from_environment(variable)
    if key is None:
        # In lower case it may be a key, given by mistake.
        name = variable if variable.isupper() else "that --...-api-key-env names"
        raise UsageError(f"the environment variable {name} with the API key is not set")
    return checked_key(key, variable)


def checked_key(key: str, source: str) -> str:
    """The key; raises UsageError, without the key in it, where no HTTP header can hold it."""
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{source}: the API key has a line end, or another character that no key has, in it")
    hide_secret(key)
    return key


@contextmanager
def resumable(args: argparse.Namespace) -> Generator[None]:
    """Do a run's work; a KeyboardInterrupt is given the words that say how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        if args.dry_run or args.plan or args.preview is not None:
            raise
        resume = "--resume in place of --overwrite" if args.overwrite else "--resume"
        raise KeyboardInterrupt(f"the same command with {resume} resumes from here") from None


def run_script(
    run: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Run a script's work; returns the exit code, and shows an error as one line."""
    program.begin(argv or ())
    log_to_stderr()

    def work() -> int:
        args = parser.parse_args(argv)
        with resumable(args):
            return run(args)

    return exit_code(work, "error")
