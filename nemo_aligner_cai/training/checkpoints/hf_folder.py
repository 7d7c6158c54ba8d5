# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings, weights and tokenizer of a Hugging Face folder, checked in seconds and without NeMo.

Input:  config.json; model.safetensors or pytorch_model.bin, maybe sharded; tokenizer.model or tokenizer.json
Output: the settings, lazily loaded weights by name, and NeMo's `model.tokenizer`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat.huggingface import added_tokens
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import NotHere, UsageError, one_line
from nemo_aligner_cai.training.checkpoints.json_object import read_json_object
from nemo_aligner_cai.training.checkpoints.stored_tensors import load_tensors

_log = logging.getLogger(__name__)
# In the order of transformers. A folder may have the same weights in several forms, and also in files of other layouts
# (Mistral's consolidated.safetensors), so suffixes do not identify weights.
_FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""safetensors' names of the supported types -> torch's."""
_TENSOR_PARALLEL = (1, 2, 4, 8)
"""The tensor-parallel sizes of one node, to which a model is padded."""


@dataclass(frozen=True)
class Weight:
    """A lazily loaded weight.

    Attributes:
        shape: its shape.
        dtype: torch's name of its type, or the file's name of an unsupported type.
        read: reads it from disk at each call.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Any]

    @classmethod
    def of(cls, tensor: Any) -> Weight:
        """Wrap a loaded tensor."""
        return cls(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: tensor)


def open_weights(folder: Path) -> dict[str, Weight]:
    """The weights of a folder by name, lazily loaded.

    Raises:
        UsageError: there are no weights, a shard is missing, or a file is truncated.
    """
    found = next((folder / form for form in _FORMS if (folder / form).is_file()), None)
    if found is None:
        raise NotHere(f"{folder}: no weights: it has none of {', '.join(_FORMS)}", f"weights in {folder}")
    weights: dict[str, Weight] = {}
    for file in _shards(found) if found.suffix == ".json" else [found]:
        if file.suffix == ".safetensors":
            weights |= _safetensors(file)
        else:
            weights |= {name: Weight.of(tensor) for name, tensor in load_tensors(file, str(file)).items()}
    return weights


def check_weights(weights: Mapping[str, Weight], wanted: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Compare the weights with those of a configuration.

    Args:
        weights: the available weights.
        wanted: the shape of every weight of the configuration.
        source: their file or folder, for errors.

    Raises:
        UsageError: a weight is missing, unexpected, of another shape or quantized.
    """
    if missing := wanted.keys() - weights.keys():
        raise UsageError(f"{source}: the weight {min(missing)} is missing ({len(missing)} in all)")
    # Older files also have a computed table, and a copy of a tied output layer.
    others = {name for name in weights.keys() - wanted.keys() if not name.endswith("rotary_emb.inv_freq")}
    if others := others - {"lm_head.weight"}:
        raise UsageError(f"{source}: the weight {min(others)} is unexpected ({len(others)} in all)")
    for name, shape in wanted.items():
        weight = weights[name]
        if weight.dtype not in _DTYPES.values():
            raise UsageError(
                f"{source}: {name} is stored as {weight.dtype}: only {', '.join(_DTYPES.values())} are supported"
            )
        if weight.shape != shape:
            raise UsageError(f"{source}: {name} has shape {weight.shape}, and config.json implies {shape}")


def tokenizer_settings(folder: Path, vocabulary: int, name: str | None = None) -> dict[str, Any]:
    """NeMo's settings for the tokenizer of a folder: `tokenizer` and `make_vocab_size_divisible_by`.

    A .nemo file contains a SentencePiece model, but only the name of a Hugging Face tokenizer: NeMo 2.2 registers
    single files as artifacts (`MegatronBaseModel._build_tokenizer`: model, vocab_file, merge_file), not folders or hub
    names.

    Args:
        folder: has tokenizer.model or tokenizer.json.
        vocabulary: the number of rows of the model's embedding.
        name: the folder or hub name that the .nemo file will have for a Hugging Face tokenizer, instead of `folder`;
            it selects tokenizer.json if the folder has both files.

    Raises:
        UsageError: the tokenizer is missing, cannot be read, or has more tokens than the model.
    """
    file = folder / "tokenizer.model"
    is_sentencepiece = file.is_file() and name is None
    if not is_sentencepiece:
        file = folder / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"{folder}: no tokenizer: neither tokenizer.model nor tokenizer.json")
    tokens = load_tokenizer(file).size
    if tokens > vocabulary:
        raise UsageError(f"{folder}: the tokenizer has {tokens} tokens, and the model {vocabulary} (vocab_size)")
    if is_sentencepiece:
        settings: dict[str, Any] = {"library": "sentencepiece", "type": None, "model": str(file)}
        if added := [str(token["content"]) for number, token in added_tokens(folder).items() if number >= tokens]:
            _log.warning(
                "%s: %d tokens are not in tokenizer.model, and will be unknown to NeMo: %s",
                folder,
                len(added),
                ", ".join(added[:3]),
            )
    else:
        settings = {"library": "huggingface", "type": str(folder.absolute()), "model": None, "use_fast": True}
        _log.warning(
            "the .nemo file cannot contain a Hugging Face tokenizer: it will be loaded from %s; --tokenizer sets "
            "another folder, or a model on the hub",
            name or settings["type"],
        )
    return {"tokenizer": settings, "make_vocab_size_divisible_by": _vocabulary_divisor(tokens, vocabulary)}


def _vocabulary_divisor(tokens: int, vocabulary: int) -> int:
    """NeMo's `make_vocab_size_divisible_by` for a model with more rows than its tokenizer has tokens.

    NeMo pads the tokens to a multiple of it times the tensor-parallel size (`_vocab_size_with_padding`). Without
    tensor parallelism, that must be the model's own rows. With it, each further row would be a token of logit 0 in
    every softmax; the result has the fewest of them: none for the sizes by which the rows can be divided.
    """

    def rows(divisor: int) -> int:
        return sum(-(-tokens // multiple) * multiple for multiple in (divisor * size for size in _TENSOR_PARALLEL))

    # Only these divisors lead to the model's own rows. Of equals, the smallest also fits larger sizes best.
    return min((one for one in range(vocabulary - tokens + 1, vocabulary + 1) if vocabulary % one == 0), key=rows)


def _shards(index: Path) -> list[Path]:
    """The files of an index; raises UsageError if one is missing."""
    places = read_json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UsageError(f"{index}: it has no weight_map")
    names = sorted(set(map(str, places.values())))
    if outside := [name for name in names if Path(name).name != name]:
        raise UsageError(f"{index}: it refers to {outside[0]!r}, which is not in its folder")
    files = [index.parent / name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise UsageError(
            f"{index.parent}: {missing[0]} of {index.name} is missing "
            f"({len(missing)} of {len(files)} files are missing); download the folder again"
        )
    return files


def _safetensors(file: Path) -> dict[str, Weight]:
    from safetensors import SafetensorError, safe_open

    try:
        # This checks the size of the file against its header.
        opened: Any = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{file} cannot be read; copy or download it again: {one_line(error)}") from error
    weights: dict[str, Weight] = {}
    for name in opened.keys():  # noqa: SIM118 (it is not a mapping)
        part = opened.get_slice(name)
        dtype = str(part.get_dtype())
        weights[name] = Weight(
            tuple(part.get_shape()), _DTYPES.get(dtype, dtype), lambda name=name: opened.get_tensor(name)
        )
    return weights
