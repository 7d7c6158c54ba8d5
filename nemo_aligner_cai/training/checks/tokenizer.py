# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer that a trainer will use, loaded before the model is.

library          where the tokenizer is
sentencepiece    a file in the .nemo archive, or the file that model.tokenizer.model names
huggingface      the folder, or the model on the hub, that model.tokenizer.type names
tiktoken         a file in the .nemo archive, or the file that model.tokenizer.vocab_file names
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer, tokenizer_file
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.files.sources import hf_library
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.config import one_line, select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
_IN_ARCHIVE = "nemo:"
_MODEL, _VOCABULARY = "model", "vocab_file"
_ADDED = ("additional_special_tokens", "special_tokens")
"""Settings that add tokens to a tokenizer of Hugging Face."""


def settings(cfg: DictConfig, path: Path, section: str = "model.tokenizer") -> dict[str, Any]:
    """The tokenizer settings of a .nemo model, with those of the stage's configuration in their place.

    Args:
        cfg: the stage's configuration.
        path: of the model.
        section: where the configuration has such settings.
    """
    stored = model_file.model_config(path).get("tokenizer")
    given = select(cfg, section)
    merged = dict(stored) if isinstance(stored, dict) else {}
    if isinstance(given, Mapping):
        merged |= {str(key): value for key, value in given.items() if value is not None}
    return merged


def load(cfg: DictConfig, key: str) -> Tokenizer | None:
    """The tokenizer of the model at `key`; None if there is no light way to load it, which is logged.

    Raises:
        UsageError: the trainer could not load it either.
    """
    path = model_file.nemo_model(cfg, key)
    wanted = settings(cfg, path)
    library = wanted.get("library")
    if library == "huggingface":
        if added := [name for name in _ADDED if wanted.get(name)]:
            _log.warning(
                "%s: the tokens of the data are counted without model.tokenizer.%s, whose texts are one token each "
                "for the trainer if tokenizer.json lacks them",
                key,
                ", ".join(added),
            )
        return _of_hugging_face(str(wanted.get("type")), key)
    if library == "sentencepiece":
        return _of_file(path, str(wanted.get(_MODEL)), f"{key}: {path}: tokenizer.{_MODEL}", load_tokenizer)
    if library == "tiktoken":
        return _of_file(path, str(wanted.get(_VOCABULARY)), f"{key}: {path}: tokenizer.{_VOCABULARY}", _Tiktoken)
    not_counted(key, f"{path} has a tokenizer of the library {library!r}")
    return None


def not_counted(key: str, why: str) -> None:
    """Say that the data's lengths are not checked, and why."""
    _log.warning("%s: the tokens of the data are NOT counted, and longer texts not found: %s", key, why)


def _of_hugging_face(name: str, key: str) -> Tokenizer | None:
    folder = Path(name)
    if not folder.is_dir():
        hub = hf_library("huggingface_hub", f"{key}: the tokenizer {name} of the hub")
        try:
            folder = Path(hub.snapshot_download(name, allow_patterns=["tokenizer*", "special_tokens_map.json"]))
        except (OSError, ValueError) as error:
            # ValueError: no name that the hub knows.
            raise UsageError(
                f"{key}: its tokenizer {name} is neither a folder here nor can it be had from the hub "
                f"({one_line(error)[:200]}); give ++model.tokenizer.type=FOLDER, one with tokenizer.json"
            ) from error
    if tokenizer_file(folder) is None:
        not_counted(key, f"{folder} has no tokenizer.json; save_pretrained() of its tokenizer writes one")
        return None
    return load_tokenizer(folder)


def _of_file(path: Path, name: str, where: str, reader: Callable[[Path], Tokenizer]) -> Tokenizer:
    """The tokenizer in a file that the configuration of the .nemo model at `path` names."""
    inside = name.removeprefix(_IN_ARCHIVE)
    if inside == name and Path(name).is_file():
        return reader(Path(name))
    if path.is_dir():
        return reader(require_file(path / inside))
    content = model_file.contents(path).small.get(Path(inside).name)
    if content is None:
        raise UsageError(f"{where}={name}: there is no such file, in the archive or here")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / Path(inside).name
        target.write_bytes(content)
        return reader(target)


class _Tiktoken:
    """NeMo's own class: its pattern of words is in no file of a model."""

    def __init__(self, path: Path) -> None:
        from nemo.collections.common.tokenizers.tiktoken_tokenizer import TiktokenTokenizer

        with redirect_stdout(io.StringIO()):
            try:
                self._tokenizer: Any = TiktokenTokenizer(vocab_file=str(path))
            except (AssertionError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{path}: is not a vocabulary of NeMo's tiktoken tokenizer: {error!r}") from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._tokenizer.text_to_ids(text) for text in texts]
