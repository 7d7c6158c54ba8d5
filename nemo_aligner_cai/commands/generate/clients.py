# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The clients of the sampled model and of the judge, their API keys, and a probe of the judge."""

import argparse
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, template_named
from nemo_aligner_cai.commands.generate.flags import CONCURRENCY, on_nemo_server
from nemo_aligner_cai.commands.generate.shard_flags import makes_calls
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import Judge, JudgeInput
from nemo_aligner_cai.models import (
    BodyChanges,
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
from nemo_aligner_cai.models.api_keys import checked_key, named_key
from nemo_aligner_cai.models.nemo_server import MAX_SENTENCES
from nemo_aligner_cai.models.openai import chat_url

_log = logging.getLogger(__name__)
_KEYS = ("NGC_API_KEY", "NVIDIA_API_KEY")
_KEYS_TEXT = " or ".join(_KEYS)
_HOSTED = "api.nvidia.com"
_NVIDIA = "nvidia.com"
HOSTED_MODEL = "mistralai/mixtral-8x7b-instruct-v0.1"
HOSTED_REQUESTS_PER_MINUTE = 40.0
"""The default rate limit of a key for NVIDIA's hosted API."""
_SCRIPTED = re.compile(r"scripted reply \(([0-9a-f]{12})\)")
_PROBE = RetryPolicy(timeout=60.0, attempts=2, max_outage=10.0)
"""Finds a judge that does not answer within seconds, before the first paid request."""
_WRONG_SETTINGS = (400, 422)
_EXAMPLE = JudgeInput("probe", Conversation.of_user("Hello"), ("Hello.", "Good day."))


def model_client(
    args: argparse.Namespace,
    template: ChatTemplate,
    *,
    batch_size: int,
    server_template: bool = False,
    completions_template: ChatTemplate | None = None,
    needs_key: bool = True,
) -> ModelClient:
    """Build the client of the sampled model, with a key unless it only names the model in journal keys."""
    if args.dry_run:
        return ScriptedClient(remember=False)
    retry_policy = RetryPolicy(timeout=args.request_timeout)
    if not on_nemo_server(args):
        if not args.model:
            flag = "--model-url" if args.model_url else "--endpoints-dir"
            raise UsageError(f"{flag} needs --model, the model's name on that server")
        return OpenAIClient(
            args.model_url or Path(args.endpoints_dir),
            args.model,
            key=named_key(args.api_key_env) if needs_key else None,
            concurrency=args.concurrency or CONCURRENCY,
            retry_policy=retry_policy,
            requests_per_minute=args.requests_per_minute,
            tokens_per_minute=args.tokens_per_minute,
            changes=_body_changes(args.extra_body, args.omit),
            template=completions_template,
        )
    if batch_size > MAX_SENTENCES:
        _log.warning("NeMo's server accepts at most %d sentences per request, not %d", MAX_SENTENCES, batch_size)
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


def judge_client(args: argparse.Namespace, key: str | None, retry_policy: RetryPolicy) -> ModelClient:
    """Build the client of the judge model; raises UsageError for flags that contradict each other."""
    template = judge_template(args)
    if args.dry_run:
        return ScriptedClient(_dry_judge, name="judge", remember=False)
    if args.judge_port:
        if args.judge_structured:
            raise UsageError("--judge-structured is not supported by NeMo's server (--judge-port)")
        model = "judge" if args.ngc_model == HOSTED_MODEL else args.ngc_model
        return NemoServerClient(
            args.judge_host, args.judge_port, model=model, template=template or NEMO_CHAT, retry_policy=retry_policy
        )
    limit = args.judge_requests_per_minute
    return OpenAIClient(
        Path(args.judge_endpoints_dir) if args.judge_endpoints_dir else args.ngc_url,
        args.ngc_model,
        key=key,
        concurrency=args.judge_concurrency,
        requests_per_minute=limit or (HOSTED_REQUESTS_PER_MINUTE if _is_judge_at(args, _HOSTED) else None),
        tokens_per_minute=args.judge_tokens_per_minute,
        retry_policy=retry_policy,
        changes=_body_changes(args.judge_extra_body, args.judge_omit),
        template=template,
    )


def judge_template(args: argparse.Namespace) -> ChatTemplate | None:
    """Load the template of ``--judge-chat-template``, if any."""
    return template_named(args.judge_chat_template) if args.judge_chat_template else None


def judge_key(args: argparse.Namespace) -> str | None:
    """Return the judge's API key; None if it needs no key.

    Raises:
        UsageError: the key is missing or malformed.
    """
    chat_url(args.ngc_url)
    if args.judge_port or not makes_calls(args):
        return None
    if args.ngc_api_key:
        _log.warning("--ngc-api-key remains in shell histories and was in process lists; set NGC_API_KEY instead")
        return checked_key(args.ngc_api_key, "--ngc-api-key")
    if args.judge_api_key_env:
        return named_key(args.judge_api_key_env)
    key = key_from_environment(*_KEYS)
    if not _is_judge_at(args, _NVIDIA):
        if key is not None:
            _log.info("%s is only sent to NVIDIA's servers; --judge-api-key-env names another key", _KEYS_TEXT)
        return None
    if key is not None:
        return checked_key(key, _KEYS_TEXT)
    if _is_judge_at(args, _HOSTED):
        raise UsageError(
            f"NVIDIA's hosted judge needs an API key: set {_KEYS_TEXT}, or name a variable with --judge-api-key-env; "
            "to use your own server, give --judge-url and --judge-model"
        )
    return None


def _body_changes(extra: Mapping[str, Any] | None, omitted: Sequence[tuple[str, str | None]] | None) -> BodyChanges:
    try:
        return BodyChanges(extra or {}, dict(omitted or ()))
    except UsageError as error:
        raise UsageError(f"--extra-body or --omit: {error}") from error


def _is_judge_at(args: argparse.Namespace, domain: str) -> bool:
    if args.judge_endpoints_dir:
        return False
    host = urlsplit(chat_url(args.ngc_url)).hostname or ""
    return host == domain or host.endswith(f".{domain}")


def _dry_judge(request: Request) -> Completion:
    """Prefer the scripted candidate with the higher number, in any order of the candidates."""
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
    """Send the judge's first question about two greetings, to find a wrong key, name or setting before paid work.

    Raises:
        ServerRefused: the judge does not answer, or refuses JSON schemas.
    """
    # The folder of a judge's servers may be empty at first.
    policy = replace(_PROBE, max_outage=RetryPolicy().max_outage) if args.judge_endpoints_dir else _PROBE
    client = judge_client(args, key, policy)
    request = judge.questions(_EXAMPLE)[0].request
    try:
        # The client that scores choices finds out once how to score them. A server of /v1/completions may have no
        # chat endpoint.
        choices = request.choices if args.judge_chat_template else ()
        await client.complete(replace(request, choices=choices, sampling=replace(request.sampling, max_tokens=1)))
    except (CallFailed, ServerRefused) as failure:
        fix = ""
        if getattr(failure, "status", None) in _WRONG_SETTINGS and request.schema:
            fix = "; if the server does not support JSON schemas, remove --judge-structured"
        raise ServerRefused(f"the judge does not answer: {failure}{fix}") from None
    finally:
        await client.close()
