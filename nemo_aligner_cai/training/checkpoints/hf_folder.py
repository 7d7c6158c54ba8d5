# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a folder in Hugging Face's layout holds, checked in seconds and without NeMo: settings, weights, tokenizer.

Input:  config.json; model.safetensors or pytorch_model.bin, whole or in shards; tokenizer.model or tokenizer.json
Output: a mapping, a reader of weights by name, and NeMo's `model.tokenizer`
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat.huggingface import added_tokens
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import config

_log = logging.getLogger(__name__)
# In the order in which transformers looks for them. A folder may have several forms of the same weights, and others
# besides (consolidated.safetensors, of Mistral's own program), so nothing is found by its ending.
_FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors' names of what a model may be stored in, and torch's."""


@dataclass(frozen=True)
class Weight:
    """A weight that has not been read yet.

    Attributes:
        shape: its sizes.
        dtype: torch's name of its type, or the file's own where it is none that a model may have.
        read: reads it from disk, each time anew.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Any]


def read_settings(folder: Path) -> dict[str, Any]:
    """The contents of a folder's config.json; raises UsageError where there is none, or one that is no mapping."""
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder}: no Hugging Face model: it has no config.json")
    return _mapping(file)


def open_weights(folder: Path) -> dict[str, Weight]:
    """The weights of a folder by name; none is read before it is asked for.

    Raises:
        UsageError: no weights, a shard that is missing, or a file that is cut short.
    """
    found = next((folder / form for form in _FORMS if (folder / form).is_file()), None)
    if found is None:
        raise UsageError(f"{folder}: no weights: none of {', '.join(_FORMS)}")
    weights: dict[str, Weight] = {}
    for file in _shards(found) if found.suffix == ".json" else [found]:
        read = _safetensors if file.suffix == ".safetensors" else _pickled
        try:
            weights |= read(file)
        except UsageError:
            raise
        except Exception as error:
            # What the two libraries raise for a broken file has no common type.
            reason = config.one_line(error)
            raise UsageError(f"{file} cannot be read; copy or download it again: {reason}") from error
    return weights


def check_weights(weights: Mapping[str, Weight], wanted: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Compare weights with those that a configuration asks for.

    Args:
        weights: what there is.
        wanted: the shape of every weight that must be there.
        source: their file or folder, in errors.

    Raises:
        UsageError: one is missing, has no place or another shape, or is quantized.
    """
    if missing := wanted.keys() - weights.keys():
        raise UsageError(f"{source}: the weight {min(missing)} is missing ({len(missing)} are)")
    # What older files have besides: a table that is computed, and the copy of a tied output layer.
    others = {name for name in weights.keys() - wanted.keys() if not name.endswith("rotary_emb.inv_freq")}
    if others := others - {"lm_head.weight"}:
        raise UsageError(f"{source}: there is no place for the weight {min(others)} ({len(others)} such)")
    for name, shape in wanted.items():
        weight = weights[name]
        if weight.dtype not in _DTYPES.values():
            raise UsageError(
                f"{source}: {name} is stored as {weight.dtype}: only {', '.join(_DTYPES.values())} are known"
            )
        if weight.shape != shape:
            raise UsageError(f"{source}: {name} has shape {weight.shape}, and config.json asks for {shape}")


def tokenizer(folder: Path, vocabulary: int, name: str | None = None) -> dict[str, Any]:
    """NeMo's `model.tokenizer`, and how many rows it pads the embedding to.

    A .nemo file carries a SentencePiece model. Hugging Face's form it names alone: NeMo 2.2 registers single files as
    artifacts (`MegatronBaseModel._build_tokenizer`: model, vocab_file, merge_file), not the folder or hub's name that
    AutoTokenizer takes.

    Args:
        folder: with tokenizer.model or tokenizer.json.
        vocabulary: rows of the model's embedding.
        name: of a tokenizer in Hugging Face's form, which the file will name instead of the folder; it is then taken
            where there are both forms.

    Returns:
        Settings of a NeMo model: `tokenizer` and `make_vocab_size_divisible_by`.

    Raises:
        UsageError: no tokenizer, one that cannot be read, or more tokens than the model has.
    """
    file = folder / "tokenizer.model"
    plain = file.is_file() and name is None
    if not plain:
        file = folder / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"{folder}: no tokenizer: neither tokenizer.model nor tokenizer.json")
    tokens = load_tokenizer(file).size
    if tokens > vocabulary:
        raise UsageError(f"{folder}: the tokenizer has {tokens} tokens, and the model {vocabulary} (vocab_size)")
    if plain:
        found: dict[str, Any] = {"library": "sentencepiece", "type": None, "model": str(file)}
        if added := [str(token["content"]) for number, token in added_tokens(folder).items() if number >= tokens]:
            _log.warning(
                "%s: %d tokens are not in tokenizer.model, and NeMo will not know them: %s",
                folder,
                len(added),
                ", ".join(added[:3]),
            )
    else:
        found = {"library": "huggingface", "type": str(folder.absolute()), "model": None, "use_fast": True}
        _log.warning(
            "the .nemo file cannot carry a tokenizer in Hugging Face's form: whoever loads it will look in %s; "
            "--tokenizer names another folder, or a model on the hub",
            name or found["type"],
        )
    # The vocabulary is padded to a multiple of this times the tensor-parallel processes.
    divisors = [128, 64, 32, 16, 8, 4, 2, 1, vocabulary]
    divisor = next(one for one in divisors if -(-tokens // one) * one == vocabulary)
    return {"tokenizer": found, "make_vocab_size_divisible_by": divisor}


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {config.one_line(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file}: a JSON object is needed")
    return content


def _shards(index: Path) -> list[Path]:
    """The files that an index names; raises UsageError for one that is not there."""
    places = _mapping(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UsageError(f"{index}: it has no weight_map")
    names = sorted(set(map(str, places.values())))
    if outside := [name for name in names if Path(name).name != name]:
        raise UsageError(f"{index}: it names {outside[0]!r}, which is not in its folder")
    files = [index.parent / name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UsageError(
            f"{index.parent}: {missing[0]} is missing, which {index.name} names "
            f"({len(missing)} of {len(files)} files are missing); download the folder again"
        )
    return files


def _safetensors(file: Path) -> dict[str, Weight]:
    from safetensors import safe_open

    # Opening it compares the sizes in its header with the file's.
    opened: Any = safe_open(file, framework="pt")
    weights: dict[str, Weight] = {}
    for name in opened.keys():  # noqa: SIM118 - it is no mapping
        part = opened.get_slice(name)
        dtype = str(part.get_dtype())
        weights[name] = Weight(
            tuple(part.get_shape()), _DTYPES.get(dtype, dtype), lambda name=name: opened.get_tensor(name)
        )
    return weights


def _pickled(file: Path) -> dict[str, Weight]:
    from nemo_aligner_cai.training.checkpoints.stored_tensors import load_tensors

    state = load_tensors(file, str(file))
    return {
        name: Weight(tuple(weight.shape), str(weight.dtype).removeprefix("torch."), lambda weight=weight: weight)
        for name, weight in state.items()
    }
