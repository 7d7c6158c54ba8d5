# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The data files of a training stage, checked before anything is loaded: their rows, and the tokens of their texts."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.chat import NemoChatTemplate
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.checks import tokenizer as model_tokenizer
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
_SYSTEM_FIX = "; here, \"data_processor.system_message='You are a helpful assistant.'\""


def data_file(cfg: DictConfig, key: str, use: Use) -> int | None:
    """Check the data file whose path is at `key`; see `checked_file`."""
    return checked_file(cfg, model_file.path_of(select(cfg, key), key), key, use)


def data_prefix(cfg: DictConfig, use: Use, validation_batch_key: str | None) -> int | None:
    """Check `model.data.data_prefix`: {train: [...], validation: [...], test: [...]}, as the RM and PPO take it.

    Args:
        cfg: the stage's configuration.
        use: of the training data.
        validation_batch_key: where the size of a batch of the validation data is; None where any number will do.

    Returns:
        The samples of the training data, as `checked_file`.
    """
    samples: list[int | None] = []
    # The test split is loaded and never used: it may be smaller than a batch.
    batches = (use.batch_key, validation_batch_key, None)
    for key, batch_key in zip(split_keys(cfg), batches, strict=True):
        value = select(cfg, key)
        if isinstance(value, str):
            # Upstream would take its letters for files.
            raise UsageError(f"{key}={value}: a list is needed, [{value}]")
        paths = split_paths(value, key)
        if len(value) > 1:
            # NeMo-Aligner's scripts ask for minus a batch of samples, for "all", and its blends take that at its word.
            output = f"blend_{key.rpartition('.')[2]}.jsonl"
            words = ["--files", *paths, "--weights", *value[::2], "--output", output]
            raise UsageError(
                f"{key}: upstream fails at a blend of whole files; write one with the same shares, by "
                f"`cai data blend {shlex.join(map(str, words))}`, and give [{output}]"
            )
        for path in paths:
            samples.append(checked_file(cfg, path, key, replace(use, batch_key=batch_key)))
    return samples[0]


def split_keys(cfg: DictConfig) -> tuple[str, ...]:
    """The keys of the training, validation and test files in `model.data.data_prefix`.

    Raises:
        UsageError: it is something else, or lacks one of them.
    """
    names = ("train", "validation", "test")
    prefix = select(cfg, "model.data.data_prefix")
    if not isinstance(prefix, Mapping) or any(name not in prefix for name in names):
        raise UsageError(
            "model.data.data_prefix: give the three splits, "
            '"++model.data.data_prefix={train: [a.jsonl], validation: [b.jsonl], test: [b.jsonl]}"'
        )
    return tuple(f"model.data.data_prefix.{name}" for name in names)


def split_paths(value: object, key: str) -> list[Path]:
    """The files of one split: a path, a list of one path, or a blend, which alternates weights and paths."""
    if isinstance(value, str):
        return [Path(value)]
    items: list[object] = list(value) if isinstance(value, Sequence) else []
    weights, paths = (items[::2], items[1::2]) if len(items) > 1 else ([], items)
    numbers = all(isinstance(weight, int | float) for weight in weights)
    if not paths or not numbers or (weights and len(weights) != len(paths)):
        raise UsageError(f"{key}={value}: give [file], or a blend of weights and files, [0.3, a, 0.7, b]")
    return [model_file.path_of(item, key) for item in paths]


def chat_template(cfg: DictConfig) -> NemoChatTemplate:
    """The template with the tokens of `model.data.chat_prompt_tokens`, or with the tutorial's where none are given.

    Raises:
        UsageError: an unknown token, or one that is no text.
    """
    from nemo_aligner_cai.chat import NEMO_CHAT, ChatTokens, NemoChatTemplate

    key = "model.data.chat_prompt_tokens"
    tokens = select(cfg, key)
    if tokens is None:
        return NEMO_CHAT
    if not isinstance(tokens, Mapping):
        raise UsageError(f"{key}={tokens}: a mapping is needed, such as {{turn_start: <extra_id_1>}}")
    for name, token in tokens.items():
        if not isinstance(token, str) or not token:
            raise UsageError(f"{key}.{name}={token}: must be a text, and not empty")
    return NemoChatTemplate(ChatTokens.from_config({str(name): token for name, token in tokens.items()}))


def existing_file(path: Path, key: str) -> Path:
    """The path, given at `key`; raises UsageError where there is no such file."""
    if not path.is_file():
        raise UsageError(f"{key}: there is no file {path}")
    return path


@dataclass(frozen=True)
class Use:
    """How a stage uses a data file.

    Attributes:
        format: its format in `nemo_aligner_cai.data.formats`.
        model_key: where the model is whose tokenizer counts.
        tokens: the most tokens that a text may have; None does not count them.
        batch_key: where the batch size is that must be filled, incomplete batches being dropped by upstream's
            loaders; None where any number will do.
        rows_per_sample: 2 for comparisons, whose chosen and rejected texts are on a line each.
        too_long_is_error: whether a longer text stops the trainer, rather than being cut or replaced.
    """

    format: str
    model_key: str
    tokens: int | None
    batch_key: str | None
    rows_per_sample: int = 1
    too_long_is_error: bool = False


def checked_file(cfg: DictConfig, path: Path, key: str, use: Use) -> int | None:
    """Check that the trainer will read every row of a data file as it is meant.

    Returns:
        How many samples it has; None in a process that is not the first of its job, which checks nothing.

    Raises:
        UsageError: missing or empty file, less than a batch, or texts on which the trainer would stop.
        FormatError: a row that the trainer would fail on, with path and line.
    """
    from nemo_aligner_cai.data.formats.files import validate_file

    existing_file(path, key)
    batch = model_file.number(cfg, use.batch_key) if use.batch_key else None
    template = chat_template(cfg)
    if not model_file.first_rank():
        return None
    samples = validate_file(path, use.format, template=template).rows_in // use.rows_per_sample
    if batch is not None and samples < batch:
        raise UsageError(f"{key}: {path} has {samples} samples, less than one batch of {use.batch_key}={batch}")
    _check_lengths(cfg, path, key, use)
    return samples


def _check_lengths(cfg: DictConfig, path: Path, key: str, use: Use) -> None:
    """Count the tokens of every text, and look for rows at which the trainer stops."""
    from nemo_aligner_cai.data.length import EMPTY_SYSTEM_MERGED, LIMITS, predict_use

    if use.tokens is None:
        return
    tokenizer = model_tokenizer.load(cfg, use.model_key)
    if tokenizer is None:
        return
    # LIMITS knows the limit at upstream's configurations; what is wanted here is the limit at this one.
    length = next(n for n in range(use.tokens - 1, 2 * use.tokens + 2) if LIMITS[use.format](n) >= use.tokens)
    found = predict_use(path, use.format, tokenizer=tokenizer, seq_length=length, template=chat_template(cfg))
    if found.merged:
        number, why = next(iter(found.merged.items()))
        raise UsageError(
            f"{path}:{_line(number, use)}: {key}: the trainer stops at {len(found.merged)} of {found.records} rows: "
            f"{why}{_SYSTEM_FIX if why == EMPTY_SYSTEM_MERGED else ''}"
        )
    if not found.too_long:
        return
    message = (
        f"{path}:{_line(found.too_long[0], use)}: {key}: {len(found.too_long)} of {found.records} texts are longer "
        f"than {use.tokens} tokens"
    )
    # Where none fits, upstream trains on nothing and succeeds.
    if use.too_long_is_error or not found.used:
        mend = f"leave them out (cai convert --tokenizer TOKENIZER --seq-length {length}), or allow more tokens"
        raise UsageError(f"{message} (the longest has {found.longest}); {mend}")
    _log.warning("%s; they will be cut, replaced or ignored", message)


def _line(record: int, use: Use) -> int:
    return (record - 1) * use.rows_per_sample + 1
