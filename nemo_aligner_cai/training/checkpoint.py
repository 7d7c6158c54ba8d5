# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Hugging Face folders of Llama and Mistral models into .nemo files, and back, on the CPU.

Input:  config.json, *.safetensors or pytorch_model.bin, tokenizer.model or tokenizer.json
Output: a .nemo file for upstream's trainers and ours; or a folder as above
"""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import refuse_existing
from nemo_aligner_cai.training import config, inputs
from nemo_aligner_cai.training.hf_layout import Shape, model_settings, to_huggingface, to_megatron, weight_names

_log = logging.getLogger(__name__)
PRECISIONS = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
_EXTRA_STATE = "._extra_state"


def to_nemo(source: Path, target: Path, precision: str = "bf16") -> None:
    """Write the model of a Hugging Face folder as a .nemo file.

    Its layers are Megatron's own, without Transformer Engine. Layers of Transformer Engine keep more state than a file
    of these has; whether they load it was not tried.

    Args:
        source: the folder.
        target: the file, which must not exist.
        precision: of the stored weights, one of `PRECISIONS`.

    Raises:
        UsageError: no such folder, an unknown architecture or setting, a missing weight, or one too many.
    """
    refuse_existing(target, overwrite=False)
    settings = read_settings(source)
    shape = Shape.of(settings)
    wanted = model_settings(settings, str(source / "config.json"))
    tied = bool(settings.get("tie_word_embeddings"))
    read, names = _weights(source)
    _compare(names, weight_names(shape, tied=tied), source)
    tokenizer = _tokenizer(source, shape)

    from nemo_aligner_cai.training import cpu

    cpu.install()
    import torch
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import MegatronGPTModel
    from nemo.collections.nlp.parts.megatron_trainer_builder import MegatronTrainerBuilder
    from omegaconf import OmegaConf, open_dict

    given = ["corpus.file=none", f"output={config.quoted(target)}", "exp_manager.explicit_log_dir=none"]
    here, there = (
        config.compose("cai_pretrain", [*given, "model.tokenizer.model=none", f"hardware={hardware}"])
        for hardware in ("cpu", "8xh100")
    )
    for cfg in (here, there):
        with open_dict(cfg):
            cfg.model = OmegaConf.merge(cfg.model, wanted, {"tokenizer": tokenizer[0]}, tokenizer[1])
            cfg.model.micro_batch_size = cfg.model.global_batch_size = 1
            cfg.model.precision = cfg.trainer.precision
        OmegaConf.resolve(cfg)
    model = MegatronGPTModel(here.model, MegatronTrainerBuilder(here).create_trainer())
    model.model.to(getattr(torch, PRECISIONS[precision]))
    empty = dict(model.model.named_parameters())
    with torch.no_grad():
        for name, weight in to_megatron(read, shape, tied=tied):
            parameter = empty.pop(name)
            if parameter.shape != weight.shape:
                raise UsageError(f"{source}: {name} has shape {tuple(weight.shape)}, not {tuple(parameter.shape)}")
            parameter.copy_(weight)
    if empty:
        raise UsageError(f"{source}: nothing to fill {sorted(empty)[:3]} with")
    with open_dict(model.cfg):
        # What a GPU wants is stored; where there is none, trainers and server change it again.
        for key in here.model:
            if key != "tokenizer" and key in there.model:
                model.cfg[key] = there.model[key]

    from nemo_aligner_cai.training.pretrain import save_nemo

    target.parent.mkdir(parents=True, exist_ok=True)
    save_nemo(model, target)


def to_hf(source: Path, reference: Path, target: Path) -> None:
    """Write the weights of a .nemo file as a Hugging Face folder.

    Args:
        source: the .nemo file, of a model that came from `to_nemo` or upstream's converter.
        reference: the folder that it came from; its configuration and tokenizer are copied.
        target: the folder, which must not exist.

    Raises:
        UsageError: no such file or folder, other sizes than the reference's, or weights of another architecture.
    """
    import torch
    from safetensors.torch import save_file
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    refuse_existing(target, overwrite=False)
    settings = read_settings(reference)
    shape = Shape.of(settings)
    if not source.is_file():
        raise UsageError(f"there is no file {source}")
    stored = inputs.model_config(source)
    for key, value in model_settings(settings, str(reference / "config.json")).items():
        if key in ("num_layers", "hidden_size", "ffn_hidden_size", "num_query_groups") and stored.get(key) != value:
            raise UsageError(f"{source}: {key}={stored.get(key)}, and {reference} has {value}")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent) as folder:
        with tarfile.open(source) as archive:
            archive.extractall(folder, filter="data")
        reader = FileSystemReader(str(Path(folder) / "model_weights"))
        state = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in reader.read_metadata().state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata) and _EXTRA_STATE not in name
        }
        load(state, storage_reader=reader, no_dist=True)
        weights = {
            name: weight.contiguous()
            for key, stacked in state.items()
            for name, weight in to_huggingface(key.removeprefix("model.").removeprefix("module."), stacked, shape)
        }
        _compare(set(weights), weight_names(shape, tied=False), source)
        if len(weights["model.embed_tokens.weight"]) != shape.vocabulary:
            raise UsageError(f"{source}: has fewer tokens than the {shape.vocabulary} of {reference}")
        made = Path(folder) / "made"
        made.mkdir()
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        for file in reference.iterdir():
            if file.is_file() and not file.name.startswith(("model", "pytorch_model", "consolidated")):
                shutil.copy(file, made)
        dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        changed = settings | {"tie_word_embeddings": False, "torch_dtype": dtype}
        (made / "config.json").write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")
        made.rename(target)


def read_settings(folder: Path) -> dict[str, Any]:
    """The contents of a folder's config.json; raises UsageError where there is none."""
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder}: no Hugging Face model: it has no config.json")
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {config.one_line(error)}") from error
    return content


def _weights(folder: Path) -> tuple[Callable[[str], Any], set[str]]:
    """What reads a weight by its name, from disk each time, and all names."""
    files = sorted(folder.glob("*.safetensors"))
    if files:
        from safetensors import safe_open

        where = {}
        for file in files:
            opened: Any = safe_open(file, framework="pt")
            where |= dict.fromkeys(opened.keys(), opened)
        return lambda name: where[name].get_tensor(name), set(where)
    import torch

    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UsageError(f"{folder}: no weights: neither *.safetensors nor pytorch_model*.bin")
    state = {}
    for file in files:
        state |= torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return lambda name: state[name], set(state)


def _compare(names: set[str], wanted: set[str], source: Path) -> None:
    """Raise UsageError for a missing weight, or for one without a place."""
    # What older files have besides: a table that is computed, and the copy of a tied output layer.
    others = {name for name in names - wanted if not name.endswith("rotary_emb.inv_freq") and name != "lm_head.weight"}
    if missing := wanted - names:
        raise UsageError(f"{source}: the weight {min(missing)} is missing ({len(missing)} are)")
    if others:
        raise UsageError(f"{source}: there is no place for the weight {min(others)} ({len(others)} such)")


def _tokenizer(folder: Path, shape: Shape) -> tuple[dict[str, Any], dict[str, Any]]:
    """NeMo's `model.tokenizer`, and how its vocabulary is padded to the rows of the embedding."""
    file = folder / "tokenizer.model"
    if file.is_file():
        from sentencepiece import SentencePieceProcessor

        tokens = SentencePieceProcessor(model_file=str(file)).vocab_size()  # pyright: ignore[reportUnknownMemberType]
        found: dict[str, Any] = {"library": "sentencepiece", "type": None, "model": str(file)}
    elif (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
        _log.warning("%s has no tokenizer.model: the .nemo file will look for the tokenizer in that folder", folder)
        found = {"library": "huggingface", "type": str(folder.absolute()), "model": None, "use_fast": True}
    else:
        raise UsageError(f"{folder}: no tokenizer: neither tokenizer.model nor tokenizer.json")
    if tokens > shape.vocabulary:
        raise UsageError(f"{folder}: the tokenizer has {tokens} tokens, and the model {shape.vocabulary}")
    # The vocabulary is padded to a multiple of this times the tensor-parallel processes.
    divisors = [128, 64, 32, 16, 8, 4, 2, 1, shape.vocabulary]
    divisor = next(one for one in divisors if -(-tokens // one) * one == shape.vocabulary)
    return found, {"make_vocab_size_divisible_by": divisor}
