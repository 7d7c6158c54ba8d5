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

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_tokenizer
from nemo_aligner_cai.training.checks.chat_tokens import chat_template
from nemo_aligner_cai.training.checks.ranks import is_first_rank
from nemo_aligner_cai.training.checks.values import parse_path, positive_int
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nemo_aligner_cai.chat import NemoChatTemplate

_log = logging.getLogger(__name__)
_SYSTEM_FIX = "; here, \"data_processor.system_message='You are a helpful assistant.'\""


@dataclass(frozen=True)
class DatasetSpec:
    """The requirements of a stage on a data file.

    Attributes:
        format: its format in `nemo_aligner_cai.data.formats`.
        model_key: the key of the model whose tokenizer counts the tokens.
        seq_length: the model's sequence length in tokens; None to count none.
        batch_key: the key of the batch size that the file must fill, since upstream's loaders drop incomplete batches;
            None if any number of rows will do.
        rows_per_sample: 2 for comparisons, whose chosen and rejected texts are on a line each.
        too_long_is_error: the trainer fails on a longer text, instead of truncating or replacing it.
        response_length: the part of PPO's sequence that is reserved for the reply.
    """

    format: str
    model_key: str
    seq_length: int | None
    batch_key: str | None
    rows_per_sample: int = 1
    too_long_is_error: bool = False
    response_length: int | None = None


def check_splits(cfg: DictConfig, spec: DatasetSpec, validation_batch_key: str | None) -> int | None:
    """Check `model.data.data_prefix`, the files of the reward model, DPO and PPO.

    Args:
        cfg: the stage's configuration.
        spec: of the training data.
        validation_batch_key: the key of the batch size that the validation data must fill; None if any number of rows
            will do.

    Returns:
        The number of training samples, from `check_file`.
    """
    samples: list[int | None] = []
    # The test split is loaded and never used: it may be smaller than a batch.
    batch_keys = (spec.batch_key, validation_batch_key, None)
    for key, batch_key in zip(split_keys(cfg), batch_keys, strict=True):
        value = select(cfg, key)
        if isinstance(value, str):
            # Upstream would iterate over its characters.
            raise UsageError(f"{key}={value}: a list is needed, [{value}]")
        paths = split_paths(value, key)
        if len(value) > 1:
            # For "all samples", NeMo-Aligner's scripts pass a negative number, on which its blends fail.
            output = f"blend_{key.rpartition('.')[2]}.jsonl"
            words = ["--files", *paths, "--weights", *value[::2], "--output", output]
            raise UsageError(
                f"{key}: upstream fails on a blend of whole files; write one file with the same shares, with "
                f"`cai data blend {shlex.join(map(str, words))}`, and give [{output}]"
            )
        samples.append(check_file(cfg, paths[0], key, replace(spec, batch_key=batch_key)))
    return samples[0]


def split_keys(cfg: DictConfig) -> tuple[str, ...]:
    """The keys of the training, validation and test files in `model.data.data_prefix`.

    Raises:
        UsageError: a split is missing.
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
    return [parse_path(item, key) for item in paths]


def existing_file(path: Path, key: str) -> Path:
    """The path, given at `key`; raises UsageError if there is no such file."""
    if not path.is_file():
        raise UsageError(f"{key}: there is no file {path}")
    return path


def check_file(cfg: DictConfig, path: Path, key: str, spec: DatasetSpec) -> int | None:
    """Check that the trainer can use every row of a data file.

    Returns:
        The number of samples; None in any process but the first of its job, which alone reads the file.

    Raises:
        UsageError: the file is missing, empty or smaller than a batch, or the trainer would fail on a text.
        FormatError: a row is invalid; the message has path and line.
    """
    from nemo_aligner_cai.data.formats.files import validate_file

    existing_file(path, key)
    batch_size = positive_int(cfg, spec.batch_key) if spec.batch_key else None
    template = chat_template(cfg)
    if not is_first_rank():
        return None
    samples = validate_file(path, spec.format, template=template).rows_in // spec.rows_per_sample
    if batch_size is not None and samples < batch_size:
        raise UsageError(f"{key}: {path} has {samples} samples, less than one batch of {spec.batch_key}={batch_size}")
    if spec.seq_length is not None:
        _check_lengths(cfg, path, key, spec, spec.seq_length, template)
    return samples


def _check_lengths(
    cfg: DictConfig, path: Path, key: str, spec: DatasetSpec, seq_length: int, template: NemoChatTemplate
) -> None:
    """Count the tokens of every text, and find the rows on which the trainer fails."""
    from nemo_aligner_cai.data.length import EMPTY_SYSTEM_MERGED, predict_use

    tokenizer = model_tokenizer.load_model_tokenizer(cfg, spec.model_key)
    if tokenizer is None:
        return
    found = predict_use(
        path,
        spec.format,
        tokenizer=tokenizer,
        seq_length=seq_length,
        response_length=spec.response_length,
        template=template,
    )
    if found.merged:
        number, reason = next(iter(found.merged.items()))
        raise UsageError(
            f"{path}:{_line(number, spec)}: {key}: the trainer fails on {len(found.merged)} of {found.records} rows: "
            f"{reason}{_SYSTEM_FIX if reason == EMPTY_SYSTEM_MERGED else ''}"
        )
    if not found.too_long:
        return
    message = (
        f"{path}:{_line(found.too_long[0], spec)}: {key}: {len(found.too_long)} of {found.records} texts are longer "
        f"than {found.limit} tokens"
    )
    # If no text fits, upstream trains on nothing and succeeds.
    if spec.too_long_is_error or not found.used:
        reply = "" if spec.response_length is None else f" --response-length {spec.response_length}"
        fix = f"drop them (cai convert --tokenizer TOKENIZER --seq-length {seq_length}{reply}), or allow more tokens"
        raise UsageError(f"{message} (the longest has {found.longest}); {fix}")
    _log.warning("%s; they will be truncated, replaced or ignored", message)


def _line(record: int, spec: DatasetSpec) -> int:
    return (record - 1) * spec.rows_per_sample + 1
