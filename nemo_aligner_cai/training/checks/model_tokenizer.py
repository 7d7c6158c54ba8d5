# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer that a trainer will use, loaded without the model.

library          where the tokenizer is
sentencepiece    a file in the .nemo archive, or the file at model.tokenizer.model
huggingface      the folder, or the model on the hub, at model.tokenizer.type
tiktoken         a file in the .nemo archive, or the file at model.tokenizer.vocab_file
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
from nemo_aligner_cai.errors import UsageError, one_line
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.files.sources import hf_library
from nemo_aligner_cai.training.checkpoints import nemo_archive
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
_IN_ARCHIVE = "nemo:"
_ADDED_TOKENS = ("additional_special_tokens", "special_tokens")
"""Settings that add tokens to a Hugging Face tokenizer."""


def tokenizer_settings(cfg: DictConfig, path: Path, section: str = "model.tokenizer") -> dict[str, Any]:
    """The tokenizer settings of the .nemo model at `path`, overridden by those in a section of the configuration."""
    stored = model_file.model_config(path).get("tokenizer")
    overrides = select(cfg, section)
    merged = dict(stored) if isinstance(stored, dict) else {}
    if isinstance(overrides, Mapping):
        merged |= {str(key): value for key, value in overrides.items() if value is not None}
    return merged


def load_model_tokenizer(cfg: DictConfig, key: str) -> Tokenizer | None:
    """The tokenizer of the model at `key`; None, with a warning, if it cannot be loaded without the model.

    Raises:
        UsageError: the trainer could not load it either.
    """
    path = model_file.nemo_model(cfg, key)
    settings = tokenizer_settings(cfg, path)
    library = settings.get("library")
    if library == "huggingface":
        if added := [name for name in _ADDED_TOKENS if settings.get(name)]:
            _log.warning(
                "%s: tokens are counted without model.tokenizer.%s; the trainer reads each of its texts as one token, "
                "even if tokenizer.json lacks it",
                key,
                ", ".join(added),
            )
        return _load_hugging_face(str(settings.get("type")), key)
    if library == "sentencepiece":
        return _load_from_file(path, settings, "model", key, load_tokenizer)
    if library == "tiktoken":
        return _load_from_file(path, settings, "vocab_file", key, _Tiktoken)
    warn_uncounted(key, f"{path} has a tokenizer of the library {library!r}")
    return None


def warn_uncounted(key: str, reason: str) -> None:
    """Log that the lengths of the data at `key` are not checked."""
    _log.warning("%s: the tokens of the data are NOT counted, and texts that are too long not found: %s", key, reason)


def _load_hugging_face(name: str, key: str) -> Tokenizer | None:
    folder = Path(name)
    if not folder.is_dir():
        hub = hf_library("huggingface_hub", f"{key}: the tokenizer {name} of the hub")
        try:
            folder = Path(hub.snapshot_download(name, allow_patterns=["tokenizer*", "special_tokens_map.json"]))
        except (OSError, ValueError) as error:
            # ValueError: not a valid repository name.
            raise UsageError(
                f"{key}: its tokenizer {name} is not a folder here, and cannot be downloaded from the hub "
                f"({one_line(error)[:200]}); give ++model.tokenizer.type=FOLDER, a folder with tokenizer.json"
            ) from error
    if tokenizer_file(folder) is None:
        warn_uncounted(key, f"{folder} has no tokenizer.json; save_pretrained() of its tokenizer writes one")
        return None
    return load_tokenizer(folder)


def _load_from_file(
    path: Path, settings: Mapping[str, Any], name_key: str, key: str, reader: Callable[[Path], Tokenizer]
) -> Tokenizer:
    """Load the tokenizer from the file that the tokenizer settings name at `name_key`."""
    name = str(settings.get(name_key))
    member = name.removeprefix(_IN_ARCHIVE)
    if member == name and Path(name).is_file():
        return reader(Path(name))
    if path.is_dir():
        return reader(require_file(path / member))
    content = nemo_archive.read(path).small.get(Path(member).name)
    if content is None:
        raise UsageError(f"{key}: {path}: tokenizer.{name_key}={name}: there is no such file, in the archive or here")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / Path(member).name
        target.write_bytes(content)
        return reader(target)


class _Tiktoken:
    """NeMo's own class: no file of the model has its word pattern."""

    def __init__(self, path: Path) -> None:
        from nemo.collections.common.tokenizers.tiktoken_tokenizer import TiktokenTokenizer

        with redirect_stdout(io.StringIO()):
            try:
                self._tokenizer: Any = TiktokenTokenizer(vocab_file=str(path))
            except (AssertionError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(
                    f"{path}: is not a vocabulary of NeMo's tiktoken tokenizer: {one_line(error)}"
                ) from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._tokenizer.text_to_ids(text) for text in texts]
