# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The .nemo file of a stage: its path, its configuration and its context length."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import NotHere, UsageError, one_line
from nemo_aligner_cai.files.yaml_text import YamlError, parse_yaml
from nemo_aligner_cai.training.checkpoints import nemo_archive
from nemo_aligner_cai.training.checkpoints.nemo_archive import MODEL_CONFIG
from nemo_aligner_cai.training.checks.values import parse_path, positive_int
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def nemo_model(cfg: DictConfig, key: str) -> Path:
    """The path at `key`, checked by `nemo_file`."""
    value = select(cfg, key)
    if value is None:
        raise UsageError(f"{key}: no model given; name a .nemo file")
    return nemo_file(parse_path(value, key), key)


def nemo_file(path: Path, key: str) -> Path:
    """The path, given at `key`, of a .nemo archive or an extracted one.

    Raises:
        UsageError: the path is missing, unreadable, truncated, or not a .nemo model.
    """
    try:
        exists = path.exists()
        if path.is_dir() and not (path / MODEL_CONFIG).is_file():
            if (path / "config.json").is_file():
                command = f"cai checkpoint to-nemo {path} MODEL.nemo"
                raise UsageError(f"{key}: {path} is a Hugging Face folder; convert it with `{command}`")
            raise UsageError(f"{key}: {path} is a folder without {MODEL_CONFIG}, so not an extracted .nemo model")
    except OSError as error:
        raise UsageError(f"{key}: {path} cannot be read: {one_line(error)}") from error
    if not exists:
        raise NotHere(f"{key}: there is no file {path}", path)
    try:
        nemo_archive.read(path)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
    return path


def model_config(path: Path) -> dict[str, Any]:
    """The configuration inside a .nemo model; raises UsageError if it is missing or not a YAML mapping."""
    text = nemo_archive.read(path).small.get(MODEL_CONFIG)
    if text is None:
        raise UsageError(f"{path} has no {MODEL_CONFIG}, so it is not a .nemo model")
    try:
        content = parse_yaml(text.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: its {MODEL_CONFIG} is not UTF-8 text") from error
    except YamlError as error:
        raise UsageError(f"{path}: its {MODEL_CONFIG}, line {error.line}: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: its {MODEL_CONFIG} is not a mapping, so it is not a .nemo model")
    return content


def context_length(cfg: DictConfig, key: str) -> int | None:
    """The longest sequence, in tokens, of the model at `key`; None if neither file nor configuration has it.

    If unset, `model.encoder_seq_length` is set from the checkpoint, so that other keys can refer to it.

    Raises:
        UsageError: the configured length differs from the checkpoint's, which has an embedding for each position.
    """
    from omegaconf import open_dict

    configured = select(cfg, "model.encoder_seq_length")
    settings = model_config(nemo_model(cfg, key))
    stored = settings.get("encoder_seq_length")
    if settings.get("position_embedding_type") == "learned_absolute" and configured not in (None, stored):
        raise UsageError(
            f"model.encoder_seq_length={configured}: the model has learned embeddings of {stored} positions; "
            "remove the key"
        )
    trained = settings.get("max_position_embeddings")
    if isinstance(configured, int) and isinstance(trained, int) and configured > trained:
        _log.warning("model.encoder_seq_length=%s: the model was made for %s positions", configured, trained)
    if configured is None and stored is not None:
        with open_dict(cfg):
            cfg.model.encoder_seq_length = stored
    return positive_int(cfg, "model.encoder_seq_length")


def sequence_length(cfg: DictConfig, key: str, most: int | None) -> int | None:
    """The sequence length at `key`; raises UsageError if it is more than the model's context length `most`."""
    length = positive_int(cfg, key)
    if most is not None and length is not None and length > most:
        raise UsageError(
            f"{key}={length} is longer than the context length of the model, {most} tokens "
            f"(model.encoder_seq_length); give {key}={most} or less"
        )
    return length
