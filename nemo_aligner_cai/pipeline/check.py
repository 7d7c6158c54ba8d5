# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a run's configuration before its first step, hours before a later step would fail."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from nemo_aligner_cai import extras
from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, NemoChatTemplate, template_named
from nemo_aligner_cai.chat.huggingface import load_template
from nemo_aligner_cai.data.anthropic_hh import SPLITS
from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.files.sources import data_files
from nemo_aligner_cai.pipeline.config import RunConfig, TrainerSettings
from nemo_aligner_cai.pipeline.executors.settings import Executor, LocalExecutor
from nemo_aligner_cai.pipeline.layout import DATA, MEASURED, SFT
from nemo_aligner_cai.pipeline.sections.data import HH, DataSource, HelpfulPreferences
from nemo_aligner_cai.pipeline.sections.evaluate import Evaluate
from nemo_aligner_cai.pipeline.sections.models import EndpointModel, HuggingFaceModel, NemoModel, Role
from nemo_aligner_cai.pipeline.sections.serve import NemoServer, Server
from nemo_aligner_cai.pipeline.serving import vllm
from nemo_aligner_cai.pipeline.serving.clients import Clients, endpoint_client
from nemo_aligner_cai.pipeline.serving.model_files import ROLES, ModelFiles
from nemo_aligner_cai.pipeline.steps.data import hh_files
from nemo_aligner_cai.training.checkpoints.architectures import context_length, read_settings
from nemo_aligner_cai.training.checkpoints.hf_config import model_settings
from nemo_aligner_cai.training.checks import chat_tokens, constraints, model_file, model_kind
from nemo_aligner_cai.training.checks.parallelism import sizes_above_one
from nemo_aligner_cai.training.config import adds_adapters, compose, select

_log = logging.getLogger(__name__)


class Checks:
    """The checks of a run; in a dry run, those that need what this machine does not have are collected.

    Attributes:
        dry_run: collect.
        not_made: what is not here -> the names of the checks that need it.
    """

    def __init__(self, *, dry_run: bool = False) -> None:
        self.dry_run = dry_run
        self.not_made: dict[str, list[str]] = {}

    @contextmanager
    def of(self, name: str) -> Generator[None]:
        """Make a check in the block; a dry run notes its name instead of raising NotHere."""
        try:
            yield
        except NotHere as error:
            if not self.dry_run:
                raise
            self.not_made.setdefault(error.what, []).append(name)


def check(config: RunConfig, files: ModelFiles, clients: Clients, checks: Checks) -> None:
    """Validate models, servers, data, the sequence lengths and the trainers' overrides, without a request.

    Raises:
        NotHere: a file, a package, a program or an API key is missing on this machine; not in a dry run.
        UsageError: an invalid file; a model that cannot be trained or served by what was chosen; a sequence length
            beyond the model's; or an unknown setting.
    """
    with checks.of("models.constitution"):
        require_file(config.models.constitution)
    for role in ROLES:
        with checks.of(f"models.{role}"):
            _check_model(config, role)
    _check_uses(config, files, clients, checks)
    _check_data(config, checks)
    if config.evaluate is not None:
        with checks.of("evaluate"):
            config.evaluate.check(files.layout.file(DATA, MEASURED))
        with checks.of("evaluate.grader_model"):
            if isinstance(config.evaluate.grader_model, EndpointModel):
                endpoint_client(config.evaluate.grader_model, "evaluate.grader_model", None)
            _check_grader(config, config.evaluate, clients)
    for trainer in config.trainers.values():
        _check_trainer(trainer)


def _check_grader(config: RunConfig, section: Evaluate, clients: Clients) -> None:
    """Refuse a grader that is the helpful-only model; the other two are not trained yet."""
    models = config.models
    grader = section.grader_model
    if grader == "judge":
        grader = clients.path("judge") or models.judge
    same = _address(grader) == _address(clients.path("helpful_only") or models.helpful_only)
    if grader is not None and same and not section.allow_self_grading:
        raise UsageError(
            "evaluate.grader_model: it is the evaluated model helpful_only, and models rate their own replies too "
            "well; give another model, or evaluate.allow_self_grading: true, which the results will say"
        )


def _address(model: object) -> object:
    """The server and name of a model, or its path: equal for two settings of the same model."""
    return (model.endpoints_dir, model.endpoint, model.model) if isinstance(model, EndpointModel) else model


def _check_model(config: RunConfig, role: Role) -> None:
    source, key = getattr(config.models, role), f"models.{role}"
    if isinstance(source, EndpointModel):
        endpoint_client(source, key, None)
    elif isinstance(source, NemoModel):
        model_kind.check(model_file.nemo_file(source.nemo, key), key)
        if role == "base":
            _check_lengths(config, model_file.model_config(source.nemo).get("encoder_seq_length"), str(source.nemo))
    elif source.folder is not None:
        _check_folder(config, source, role)


def _check_folder(config: RunConfig, source: HuggingFaceModel, role: Role) -> None:
    assert source.folder is not None, "checked by the caller"
    if not source.folder.is_dir():
        raise NotHere(
            f"models.{role}.hf: there is no folder {source.hf}; a model on the hub is OWNER/NAME", source.folder
        )
    window = context_length(source.folder)
    if role == "base":
        _check_lengths(config, window, str(source.folder))


def _check_lengths(config: RunConfig, window: int | None, model: str) -> None:
    lengths = {"data.max_prompt_tokens": config.data.max_prompt_tokens}
    lengths |= {f"{one.key.split('.')[0]}.seq_length": one.seq_length for one in config.trainers.values()}
    for key, length in lengths.items():
        if window is not None and length > window:
            raise UsageError(f"{key}={length} is longer than the context of {model}, which is {window} tokens")


def _check_uses(config: RunConfig, files: ModelFiles, clients: Clients, checks: Checks) -> None:
    """Find the files of every use, so that one that is impossible is refused; load the tokenizer."""
    base = files.nemo("base")
    with checks.of("the conversion of models.base"):
        _check_conversion(config.executor, config.models.base, base)
    with checks.of("the tokenizer and the lengths"):
        if files.tokenizer.exists() or not files.tokenizer.is_relative_to(files.layout.folder):
            load_tokenizer(files.tokenizer)
    for role in ("helpful_only", "judge"):
        if (path := clients.path(role)) is not None:
            with checks.of(f"serve.{role}"):
                source = getattr(config.models, role)
                _check_server(config, getattr(config.serve, role), path, source, f"serve.{role}", _trained_with(path))
    for step in (SFT, config.policy_step):
        path = clients.trained_path(step)
        with checks.of(f"serve.policy after {step}"):
            # `_check_trainer` refuses other tokens.
            _check_server(config, config.serve.policy, path, None, "serve.policy", NEMO_CHAT)


def _trained_with(path: Path) -> NemoChatTemplate | None:
    """The chat template of a .nemo model; None if it has none or is still to be made."""
    if path.suffix != ".nemo" or not path.exists():
        return None
    return NemoChatTemplate.of_model(model_file.model_config(path).get("data"), str(path))


def _check_server(
    config: RunConfig, server: Server, path: Path, source: object, key: str, trained: NemoChatTemplate | None
) -> None:
    """Check that a server can read a model's file or folder, which may be still to be made, and asks in its template.

    Args:
        config: the run's.
        server: the server's settings.
        path: the file or folder.
        source: the model that it is converted from.
        key: the place of the settings in the configuration.
        trained: the template that the model was trained with, if that is known.
    """
    if isinstance(server, NemoServer):
        asked = template_named(server.chat_template)
        if isinstance(source, HuggingFaceModel) and source.folder is not None:
            _check_template(asked, server.chat_template, source.folder, key)
        question = Conversation.of_user("?")
        if trained is not None and asked.generation_prompt(question) != trained.generation_prompt(question):
            raise UsageError(
                f"{key}.chat_template={server.chat_template}: {path} was trained with another template, with "
                f"{trained.tokens.turn_start!r} before each turn; give its Hugging Face folder, which `cai checkpoint "
                "to-hf` writes, or nemo for the template of the tutorial"
            )
        compose("cai_inference", server.overrides)
        _check_conversion(config.executor, source, path)
    else:
        if config.executor.container is None:
            vllm.check_executable(server)
        if path.exists():
            vllm.check_folder(path, server)


def _check_template(asked: ChatTemplate, name: str, folder: Path, key: str) -> None:
    """Raise UsageError if a template has another text between a question and the reply than a folder's own one.

    Spaces may differ, and the system turn: a folder's template may have one by default, and the named ones have none.
    """
    if not vllm.has_chat_template(folder):
        return
    try:
        own = _after_question(load_template(folder))
    except UsageError as error:
        _log.warning("%s.chat_template=%s: not compared with that of the folder: %s", key, name, error)
        return
    if (given := _after_question(asked)) != own:
        raise UsageError(
            f"{key}.chat_template={name}: a question is followed by {given!r}, and by {own!r} in the chat template of "
            f"{folder}; give {key}.chat_template={folder}"
        )


def _after_question(template: ChatTemplate) -> str:
    """The text of a template between a question and the reply to it, without the spaces around it."""
    question = "How many stars are there?"
    return template.generation_prompt(Conversation.of_user(question)).rpartition(question)[2].strip()


def _check_conversion(executor: Executor, source: object, target: Path) -> None:
    """Raise UsageError for a folder that cannot be converted; imports torch to check more than config.json."""
    if isinstance(source, HuggingFaceModel) and source.folder is not None and not target.exists():
        model_settings(read_settings(source.folder), str(source.folder / "config.json"))
        if executor.container is not None and find_spec("torch") is None:
            return  # the job that converts it checks the weights in its image
        extras.require(f"the conversion of {source.folder}", ("torch",))
        from nemo_aligner_cai.training.convert_checkpoint import CONVERTERS, check_folder, check_layers, nemo_converter

        settings, _ = check_folder(source.folder, target)
        kind = settings["model_type"]
        if isinstance(executor, LocalExecutor):
            by_nemo = nemo_converter(kind) is not None
        else:
            # A job has the GPU and the variables that the submitting machine may lack.
            by_nemo = kind in CONVERTERS and executor.gpus is not None
        # A container has its own packages.
        if not by_nemo and executor.container is None:
            check_layers(source.folder, kind)


def _check_data(config: RunConfig, checks: Checks) -> None:
    for name, source in config.data.sources.items():
        with checks.of(f"data.{name}"):
            # Step 1 copies objects, before any expensive one.
            if source.path is not None and not source.is_object and not Path(source.path).exists():
                raise NotHere(f"data.{name}: there is no file or folder {source.path}", source.path)
            if not source.is_object:
                _check_files(source)
    conversations, preferences = config.data.helpful_sft, config.data.helpful_preferences
    if conversations is not None and conversations.format is not None:
        format_named(conversations.format)
    if preferences is not None and preferences.format != HH:
        format_named(preferences.format)


def _check_files(source: DataSource) -> None:
    if not isinstance(source, HelpfulPreferences):
        data_files(source.source)
        return
    for split in SPLITS:
        if source.format == HH:
            hh_files(source, split)
        else:
            data_files(source.source, split)


def _check_trainer(trainer: TrainerSettings) -> None:
    """Check the overrides, the chat template, the number of GPUs, and that adapters can be merged."""
    name, gpus, composed = trainer.key, trainer.gpus, compose(trainer.config, trainer.overrides)
    if chat_tokens.chat_template(composed) != NEMO_CHAT:
        raise UsageError(
            f"{name}: {chat_tokens.KEY}: the other steps of a run render the tutorial's tokens; remove the overrides. "
            "For other tokens, run the stages one by one (cai train)"
        )
    if name == "ppo.actor":
        constraints.check(composed, [constraints.END_STRINGS])
    devices = select(composed, "trainer.devices")
    if gpus and devices != len(gpus):
        raise UsageError(f"{name}: trainer.devices={devices}, but it is given the GPUs {list(gpus)}; they must agree")
    parallel = sizes_above_one(composed)
    if parallel and adds_adapters(composed):
        raise UsageError(f"{name}: adapters are merged only if {parallel[0]} is 1")
