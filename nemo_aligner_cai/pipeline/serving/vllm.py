# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM servers that run for the duration of a step.

Input:  a Hugging Face folder with config.json, weights, tokenizer and chat template, and a `VllmServer`
Output: a chat client of ``vllm serve FOLDER --served-model-name IDENTITY --port PORT ...``, one process per replica
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nemo_aligner_cai.data.tokenizer import TOKENIZER_FILES
from nemo_aligner_cai.errors import CaiError, NotHere, UsageError
from nemo_aligner_cai.models import BodyChanges, OpenAIClient
from nemo_aligner_cai.models.served import fetch_served_model
from nemo_aligner_cai.pipeline.sections.serve import VllmServer
from nemo_aligner_cai.pipeline.serving.servers import HOST, NO_PORT, ServedChatClient
from nemo_aligner_cai.training.checkpoints.architectures import context_length
from nemo_aligner_cai.training.checkpoints.json_object import read_json_object
from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.launch.quiet import tail

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""vLLM applies the sampling values of generation_config.json to every request that does not set them. These replace
them, so that only a request's own values count; the folder's stop tokens stay in effect."""
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


def check_folder(model: Path, settings: VllmServer) -> None:
    """Check that vLLM can serve a folder.

    Raises:
        UsageError: the folder has no configuration, tokenizer or chat template, or `max_model_len` is beyond the
            model's context.
    """
    _require(model, ("config.json",), "a Hugging Face model", "vLLM serves Hugging Face folders")
    _require(model, TOKENIZER_FILES, "a tokenizer", "copy it from the original model")
    if not has_chat_template(model):
        raise UsageError(
            f"{model}: no chat template: neither {' nor '.join(_TEMPLATES)}, nor chat_template in "
            "tokenizer_config.json; serve an instruction-tuned model, or add the template that it was trained with"
        )
    context = context_length(model)
    if settings.max_model_len and context and settings.max_model_len > context:
        raise UsageError(
            f"max_model_len={settings.max_model_len} is longer than the context of {model}, {context} tokens"
        )


def check_executable(settings: VllmServer) -> None:
    """Check that the program is on this machine; raises UsageError otherwise. A container has its own."""
    if shutil.which(settings.executable) is None:
        raise NotHere(
            f"vLLM: no executable {settings.executable!r}; install vLLM, in an environment of its own if its versions "
            "conflict with NeMo's, and give the path of its program as `executable`",
            f"the program {settings.executable}",
        )


@contextmanager
def served_vllm(
    model: Path, log: Path, settings: VllmServer, *, identity: str
) -> Generator[ServedChatClient, None, None]:
    """Serve a Hugging Face folder while the block runs; see `serving.served`.

    The model's own chat template applies. Stop strings of its generation_config.json, which vLLM does not read, are
    part of each request.

    Args:
        model: the folder.
        log: the log file; further replicas append their number to its name.
        settings: of the servers.
        identity: the model's identity, which is part of journal keys.

    Raises:
        UsageError: as `check_folder` does.
        CaiError: a server did not become ready; with the last lines of its log.
    """
    check_folder(model, settings)
    name, servers = identity[:16], dict[int, jobs.Job]()
    with ExitStack() as stack:
        for replica in range(settings.replicas):
            port = jobs.free_port()
            words, env = command(model, settings, name, port), _environment(settings, replica)
            servers[port] = stack.enter_context(
                jobs.stopping(jobs.start_command("vllm", words, _log_of(log, replica), env, tasks=1))
            )
        for port, job in servers.items():
            _wait_ready(port, job, name, settings.ready_timeout_s)
        yield ServedChatClient(servers, model=name, concurrency=settings.concurrency, changes=_stop_changes(model))


def without_server(model: Path, *, identity: str) -> OpenAIClient:
    """The client of a server that is not started, with the identity of `served_vllm`'s, for a run without calls."""
    return OpenAIClient([f"http://{HOST}:{NO_PORT}/v1"], identity[:16], changes=_stop_changes(model))


def command(model: Path, settings: VllmServer, name: str, port: int) -> list[str]:
    """The command line of one server; its program need not be on this machine."""
    length = ["--max-model-len", str(settings.max_model_len)] if settings.max_model_len else []
    return [
        settings.executable,
        *("serve", str(model), "--served-model-name", name, "--host", HOST, "--port", str(port)),
        *("--dtype", settings.dtype, "--tensor-parallel-size", str(settings.tensor_parallel), *length),
        *("--override-generation-config", json.dumps(_NEUTRAL), *settings.arguments),
    ]


def _wait_ready(port: int, job: jobs.Job, name: str, timeout_s: float) -> None:
    url = f"http://{HOST}:{port}"
    jobs.wait_ready(job, [f"{url}/health", f"{url}/v1/models"], timeout_s)
    # Loading takes a minute, in which another process may have taken the port, and may answer in place of this server.
    if asyncio.run(fetch_served_model([f"{url}/v1/models"], name)) is None:
        raise CaiError(f"vllm: another process's server answers at port {port}\n{tail(job.log)}")


def _environment(settings: VllmServer, replica: int) -> dict[str, str]:
    size = settings.tensor_parallel
    own = settings.gpus[replica * size : (replica + 1) * size]
    return _OFFLINE | jobs.visible_gpus(own) | settings.environment


def _log_of(log: Path, replica: int) -> Path:
    return log if replica == 0 else log.with_name(f"{log.stem}.{replica}{log.suffix}")


def _stop_changes(model: Path) -> BodyChanges:
    """Adds the stop strings of a folder's generation_config.json, as `checkpoints.hf_chat` writes them."""
    file = model / "generation_config.json"
    stop = read_json_object(file).get("stop_strings") if file.is_file() else None
    return BodyChanges(extra={"stop": stop}) if stop else BodyChanges()


def has_chat_template(model: Path) -> bool:
    """True if a folder has a chat template in one of the places that vLLM reads."""
    if any((model / name).is_file() for name in _TEMPLATES):
        return True
    file = model / "tokenizer_config.json"
    return file.is_file() and bool(read_json_object(file).get("chat_template"))


def _require(model: Path, names: tuple[str, ...], what: str, fix: str) -> None:
    if not any((model / name).is_file() for name in names):
        raise UsageError(f"{model}: not {what}: it has no {' or '.join(names)}; {fix}")
