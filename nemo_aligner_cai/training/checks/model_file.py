# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a stage's inputs, found in a second instead of after minutes of loading."""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checkpoints import nemo_archive
from nemo_aligner_cai.training.checkpoints.nemo_archive import Archive
from nemo_aligner_cai.training.config import one_line, select

if TYPE_CHECKING:
    from omegaconf import DictConfig


_log = logging.getLogger(__name__)
MODEL_CONFIG = "model_config.yaml"


def whole(value: object, key: str, least: int = 1) -> int:
    """The value at `key`, which must be a whole number.

    Raises:
        UsageError: it is something else, or less than `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{key}={value}: a whole number is needed, at least {least}")
    return value


def number(cfg: DictConfig, key: str) -> int | None:
    """The positive whole number at `key`; None where it has no value."""
    value = select(cfg, key)
    return None if value is None else whole(value, key)


def nemo_model(cfg: DictConfig, key: str) -> Path:
    """`nemo_file` of the path at `key`."""
    value = select(cfg, key)
    if value is None:
        raise UsageError(f"{key}: no model given; name a .nemo file")
    return nemo_file(path_of(value, key), key)


def nemo_file(path: Path, key: str) -> Path:
    """The path of a .nemo file (a tar) or extracted folder, given at `key`.

    Raises:
        UsageError: it is not there, cannot be read, is cut short, or is neither of the two.
    """
    try:
        folder, there = path.is_dir(), path.exists()
        has = {name for name in (MODEL_CONFIG, "config.json") if folder and (path / name).is_file()}
    except OSError as error:
        raise UsageError(f"{key}: {path} cannot be read: {one_line(error)}") from error
    if not there:
        raise UsageError(f"{key}: there is no file {path}")
    if has == {"config.json"}:
        raise UsageError(
            f"{key}: {path} is a Hugging Face folder; `cai checkpoint to-nemo {path} MODEL.nemo` makes a .nemo model "
            "of it"
        )
    if folder and not has:
        raise UsageError(f"{key}: {path} is a folder without {MODEL_CONFIG}, so no extracted .nemo model")
    if not folder:
        try:
            nemo_archive.read(path)
        except UsageError as error:
            raise UsageError(f"{key}: {error}") from error
    return path


def path_of(value: object, key: str) -> Path:
    """The path that a value is; raises UsageError for one that is none."""
    if not isinstance(value, str):
        raise UsageError(f"{key}: {value!r} is no path of a file")
    return Path(value)


def contents(path: Path) -> Archive:
    """The names and small files of a .nemo file or extracted folder; raises UsageError as `nemo_archive.read`."""
    try:
        if not path.is_dir():
            return nemo_archive.read(path)
        files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
        small = {MODEL_CONFIG: files[MODEL_CONFIG].read_bytes()} if MODEL_CONFIG in files else {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return Archive(frozenset(files), small)


def model_config(path: Path) -> dict[str, Any]:
    """The configuration inside a .nemo model.

    Raises:
        UsageError: it has no configuration, or one that is no YAML mapping.
    """
    import yaml

    text = contents(path).small.get(MODEL_CONFIG)
    if text is None:
        raise UsageError(f"{path} has no {MODEL_CONFIG}, so it is no .nemo model")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path}: its {MODEL_CONFIG} is no YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: its {MODEL_CONFIG} holds no settings, so it is no .nemo model")
    return content


def model_window(cfg: DictConfig, key: str) -> int | None:
    """The longest sequence in tokens that the model at `key` will take; None where its file does not say.

    `model.encoder_seq_length` is filled in from the checkpoint where the user gave none, so that other keys may
    refer to it.

    Raises:
        UsageError: another length than the checkpoint's, where that has an embedding for each position: it could not
            be loaded.
    """
    from omegaconf import open_dict

    configured = select(cfg, "model.encoder_seq_length")
    settings = model_config(nemo_model(cfg, key))
    stored = settings.get("encoder_seq_length")
    if settings.get("position_embedding_type") == "learned_absolute" and configured not in (None, stored):
        raise UsageError(
            f"model.encoder_seq_length={configured}: the model has learnt embeddings of {stored} positions; "
            "leave the key out"
        )
    trained = settings.get("max_position_embeddings")
    if isinstance(configured, int) and isinstance(trained, int) and configured > trained:
        _log.warning("model.encoder_seq_length=%s: the model was made for %s positions", configured, trained)
    if configured is None and stored is not None:
        with open_dict(cfg):
            cfg.model.encoder_seq_length = stored
    return number(cfg, "model.encoder_seq_length")


def sequence_length(cfg: DictConfig, key: str, window: int | None) -> None:
    """Raise UsageError where the sequences asked for at `key` are none or longer than the model's window."""
    length = number(cfg, key)
    if window is not None and length is not None and length > window:
        raise UsageError(
            f"{key}={length} is longer than the model, which takes {window} tokens (model.encoder_seq_length); "
            f"give {key}={window} or less"
        )


def plus(tokens: int | None, more: int) -> int | None:
    """`tokens + more`, where the number of tokens is known."""
    return None if tokens is None else tokens + more


def adapters(cfg: DictConfig, *, known: bool = True) -> None:
    """Raise UsageError for a kind of adapters that the stage's model does not take; upstream would ignore it, or stop.

    Args:
        cfg: the stage's configuration.
        known: whether the model takes any: those of the reward model and the critic do not.
    """
    scheme = select(cfg, "model.peft.peft_scheme")
    schemes = (None, "none", "lora", "sdlora") if known else (None, "none")
    if scheme not in schemes:
        mend = "use lora, or none" if known else "upstream's reward model and critic take no adapters; leave it out"
        raise UsageError(f"model.peft.peft_scheme={scheme}: {mend}")


def first_rank() -> bool:
    """Whether this process is the first of its job, by the variables of torchrun, Slurm, Lightning and Open MPI."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def free_port(host: str, port: object, key: str) -> None:
    """Raise UsageError where nothing can listen on the port."""
    number = whole(port, key)
    if number > 65535:
        raise UsageError(f"{key}={port}: a port is between 1 and 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port that a server left a minute ago may be taken again at once.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except (OSError, UnicodeError, TypeError) as error:
            # UnicodeError: a name with an empty part; TypeError: a host that is no text.
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise UsageError(f"{key}: port {port} on {host} is taken; choose another") from error
            raise UsageError(
                f"{key}: nothing can listen on port {port} of host {host!r}: {one_line(error)}"
            ) from error
