# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Models as the command line names them.

Input:  http://HOST:PORT/v1#MODEL      an OpenAI-compatible server, and the model's name on it
        nemo://HOST:PORT               NeMo's text-generation server, or `cai serve`
        FILE.nemo                      served for the duration of its run
        FILE                           saved completions
Output: EvaluatedModel(name="sl_cai", kind="nemo_file", source="sl_cai.nemo", serve=...)
"""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nemo_aligner_cai import extras
from nemo_aligner_cai.chat import NEMO_CHAT, template_named
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.settings import EvaluatedModel
from nemo_aligner_cai.models import ModelClient, NemoServerClient, OpenAIClient, RetryPolicy
from nemo_aligner_cai.models.openai import chat_url
from nemo_aligner_cai.pipeline.serving.servers import served_chat
from nemo_aligner_cai.training.checks import model_file, model_kind

_NEMO = "nemo://"
_EXAMPLES = "http://HOST:PORT/v1#MODEL, nemo://HOST:PORT, a .nemo file, or a file of completions"


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the servers that a group of flags describes.

    Attributes:
        key: the API key.
        concurrency: concurrent requests to an OpenAI-compatible server.
        timeout: seconds for one request.
        template: name of the chat template for NeMo's servers and .nemo files; None for their defaults.
        logs: the folder for the logs of servers that are started.
    """

    key: str | None
    concurrency: int
    timeout: float
    template: str | None
    logs: Path


def model_of(name: str, spec: str, settings: ServerSettings) -> EvaluatedModel:
    """Return a model; raises UsageError if the specification is invalid."""
    if spec.startswith(_NEMO):
        return _nemo_server(name, spec, settings)
    if "://" in spec and not spec.startswith("hf://"):
        return _endpoint(name, spec, settings)
    if spec.endswith(".nemo"):
        return _nemo_file(name, Path(spec), settings)
    return EvaluatedModel(name, "completions", spec)


def served_model_of(spec: str, settings: ServerSettings) -> EvaluatedModel:
    """Return the model that grades; raises UsageError for saved completions, which cannot."""
    model = model_of("grader", spec, settings)
    if model.serve is None:
        raise UsageError(f"--grader-model {spec}: a grader needs a model: http://HOST:PORT/v1#MODEL, or a .nemo file")
    return model


def _endpoint(name: str, spec: str, settings: ServerSettings) -> EvaluatedModel:
    url, _, model = spec.partition("#")
    if not model:
        raise UsageError(f"{name}={spec}: needs the model's name on the server; write {url}#MODEL")
    chat_url(url)

    def client() -> OpenAIClient:
        retry_policy = RetryPolicy(timeout=settings.timeout)
        return OpenAIClient(url, model, key=settings.key, concurrency=settings.concurrency, retry_policy=retry_policy)

    return EvaluatedModel(name, "endpoint", spec, lambda: nullcontext(client()), client().identity)


def _nemo_server(name: str, spec: str, settings: ServerSettings) -> EvaluatedModel:
    try:
        address = urlsplit(spec)
        host, port = address.hostname, address.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UsageError(f"{name}={spec}: write nemo://HOST:PORT")
    template = template_named(settings.template) if settings.template else NEMO_CHAT

    def client() -> NemoServerClient:
        retry_policy = RetryPolicy(timeout=settings.timeout)
        return NemoServerClient(host, port, model=name, template=template, retry_policy=retry_policy)

    return EvaluatedModel(name, "nemo_server", spec, lambda: nullcontext(client()), client().identity)


def _nemo_file(name: str, path: Path, settings: ServerSettings) -> EvaluatedModel:
    extras.require("cai evaluate")
    model_kind.check(model_file.nemo_file(path, name), name)

    @contextmanager
    def serve() -> Generator[ModelClient]:
        with served_chat(path, settings.logs / f"{name}.server.log", settings.template) as client:
            yield client

    identity = OpenAIClient("http://127.0.0.1", path.name.removesuffix(".nemo")).identity
    return EvaluatedModel(name, "nemo_file", str(path), serve, identity)


def named(text: str, flag: str) -> tuple[str, str]:
    """Split NAME=VALUE; raises UsageError without a name."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{flag} {text}: write {flag} NAME=..., with {_EXAMPLES if flag == '--model' else 'a value'}")
    return name, value
