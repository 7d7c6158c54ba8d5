# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The model's tokenizer without NeMo.

NeMo's `SentencePieceTokenizer` and `AutoTokenizer` wrap the two libraries that are loaded here.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from nemo_aligner_cai.data.token_facts import TokenFacts, sentencepiece_facts
from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.files import PathLike, require_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
"""The tokenizer files of a Hugging Face folder, by priority."""
_MANY = 64
"""The number of texts from which on threads save more time than it takes to start them."""
_TOKEN_SETTINGS = ("single_word", "lstrip", "rstrip", "normalized")


class Tokenizer(Protocol):
    """Encodes texts to token ids without BOS and EOS, as NeMo's data sets do."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        ...


class SizedTokenizer(Tokenizer, Protocol):
    """A tokenizer with a known vocabulary size."""

    @property
    def size(self) -> int:
        """The number of tokens, added tokens included."""
        ...


def load_tokenizer(path: PathLike) -> SizedTokenizer:
    """Load a SentencePiece .model file, a Hugging Face folder or its tokenizer.json.

    Raises:
        UsageError: The file cannot be read, or the library that reads it is not installed.
    """
    file = tokenizer_path(path)
    return _HuggingFace(file) if file.suffix == ".json" else _SentencePiece(file)


def token_facts(tokenizer: Tokenizer) -> TokenFacts | None:
    """The facts about the tokens of every text, None if they are not known."""
    return tokenizer.facts if isinstance(tokenizer, _SentencePiece) else None


def tokenizer_path(path: PathLike) -> Path:
    """The file that `load_tokenizer` reads. Raises UsageError if there is none."""
    path = Path(path)
    file = tokenizer_file(path) if path.is_dir() else path
    if file is None:
        raise UsageError(f"{path}: has neither {' nor '.join(TOKENIZER_FILES)}")
    return require_file(file)


def tokenizer_file(folder: Path) -> Path | None:
    """The tokenizer file of a Hugging Face folder, None if it has none."""
    return next((folder / name for name in TOKENIZER_FILES if (folder / name).is_file()), None)


def can_load(path: PathLike) -> bool:
    """True if the library that reads the tokenizer is installed; raises UsageError if there is no tokenizer."""
    return find_spec("tokenizers" if tokenizer_path(path).suffix == ".json" else "sentencepiece") is not None


def _no_library(path: Path, name: str) -> NotHere:
    return NotHere(f"{path}: needs the package {name}; pip install {name}", f"the package {name}")


class _SentencePiece:
    def __init__(self, path: Path) -> None:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise _no_library(path, "sentencepiece") from error
        try:
            # Parts of the library have no types.
            self._processor = cast(Any, SentencePieceProcessor)(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise UsageError(f"{path}: is not a SentencePiece model: {error}") from error

    @property
    def size(self) -> int:
        return cast(int, self._processor.vocab_size())

    @cached_property
    def facts(self) -> TokenFacts | None:
        numbers = range(self.size)
        if any(map(self._processor.is_unused, numbers)):
            return None
        return sentencepiece_facts(
            self._processor.serialized_model_proto(), [*map(self._processor.id_to_piece, numbers)]
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        threads = -1 if len(texts) >= _MANY else 1  # -1: one for each core
        return cast(list[list[int]], self._processor.encode(list(texts), num_threads=threads))


class _HuggingFace:
    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer as Fast
        except ImportError as error:
            raise _no_library(path, "tokenizers") from error
        try:
            # The library has no types.
            self._tokenizer = cast(Any, Fast).from_file(str(path))
        except Exception as error:  # the library raises bare Exception for all damage
            raise UsageError(f"{path}: is not a Hugging Face tokenizer: {error}") from error
        known = [token.content for token in self._tokenizer.get_added_tokens_decoder().values()]
        self._tokenizer.add_tokens(_added_tokens(path.parent, known))
        # The file may set both. NeMo's trainers encode complete texts.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def size(self) -> int:
        return cast(int, self._tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [item.ids for item in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _added_tokens(folder: Path, known: Sequence[str]) -> list[Any]:
    """The tokens that transformers adds to those of tokenizer.json, in its order.

    `known` are the texts of the added tokens of tokenizer.json.
    """
    from tokenizers import AddedToken

    from nemo_aligner_cai.chat.huggingface import added_tokens, special_token_texts

    make = cast(Any, AddedToken)  # the library has no types
    special = special_token_texts(folder)
    listed = {token["content"]: token for token in added_tokens(folder).values()}
    tokens = [
        make(
            text,
            **{name: token[name] for name in _TOKEN_SETTINGS if name in token},
            special=bool(token.get("special")) or text in special,
        )
        for text, token in listed.items()
    ]
    # Adding a token again would replace its settings.
    return [*tokens, *(make(text, special=True) for text in special if text not in listed and text not in known)]
