# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders of Llama and Mistral models into .nemo files, and back, on the CPU.

Input:  config.json, model.safetensors or pytorch_model.bin (whole or in shards), tokenizer.model or tokenizer.json
Output: a .nemo file for upstream's trainers and ours; or a folder as above
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.output_paths import check_new
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.checkpoints import hf_chat, nemo_archive
from nemo_aligner_cai.training.checkpoints.hf_folder import (
    Weight,
    check_weights,
    open_weights,
    read_settings,
    tokenizer,
)
from nemo_aligner_cai.training.checkpoints.hf_layout import (
    Shape,
    model_settings,
    to_huggingface,
    to_megatron,
    weight_shapes,
)
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.cpu.patches import installed

_log = logging.getLogger(__name__)
PRECISIONS = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
_EXTRA_STATE = "._extra_state"
_WEIGHTS = "model_weights"
_SAME = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")


def to_nemo(source: Path, target: Path, precision: str = "bf16", tokenizer_name: str | None = None) -> None:
    """Write the model of a Hugging Face folder as a .nemo file.

    The file is one for Megatron's own layers and for Transformer Engine's (see `_with_te_state`).

    Args:
        source: the folder.
        target: the file, which must not exist.
        precision: of the stored weights, one of `PRECISIONS`.
        tokenizer_name: see `hf_folder.tokenizer`.

    Raises:
        UsageError: no such folder, an unknown architecture or setting, a missing weight, or one too many; and beside
            Apex, with which Megatron-Core 0.11 has no RMSNorm of its own (`fusions/fused_layer_norm.py`).
    """
    settings, wanted = check_folder(source, target)
    shape = Shape.of(settings)
    tied = bool(settings.get("tie_word_embeddings"))
    weights = open_weights(source)
    wanted |= tokenizer(source, shape.vocabulary, tokenizer_name)
    if installed("apex"):
        raise UsageError(
            "beside Apex, Megatron-Core's own layers have no RMSNorm: give NeMo's converter a GPU and NEMO_HOME, or "
            "convert where Apex is not installed (constraints/cpu-py311.txt); the file is the same for both"
        )
    _say_precision({weight.dtype for weight in weights.values()}, PRECISIONS[precision], source)

    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
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
            cfg.model = OmegaConf.merge(cfg.model, wanted)
            cfg.model.micro_batch_size = cfg.model.global_batch_size = 1
            cfg.model.precision = cfg.trainer.precision
        OmegaConf.resolve(cfg)
    model = MegatronGPTModel(here.model, MegatronTrainerBuilder(here).create_trainer())
    model.model.to(getattr(torch, PRECISIONS[precision]))
    empty = dict(model.model.named_parameters())
    with torch.no_grad():
        for name, weight in to_megatron(lambda name: weights[name].read(), shape, tied=tied):
            empty.pop(name).copy_(weight)
    if empty:
        raise UsageError(f"{source}: nothing to fill {sorted(empty)[:3]} with")
    with open_dict(model.cfg):
        # What a GPU wants is stored; where there is none, trainers and server change it again.
        for key in here.model:
            if key != "tokenizer" and key in there.model:
                model.cfg[key] = there.model[key]
        # The model above has taken the tokenizer of the folder, which is at hand whatever the name.
        if tokenizer_name:
            model.cfg.tokenizer.type = tokenizer_name
        # NeMo's converter back writes the weights in this precision.
        model.cfg.precision = int(precision) if precision.isdigit() else precision

    from nemo_aligner_cai.training.checkpoints.save import save_nemo

    _with_te_state(model, shape.layers)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_nemo(model, target)


def _with_te_state(model: Any, layers: int) -> None:
    """Let a model of Megatron's own layers save the entries that Transformer Engine's have besides, empty.

    The weights have the same names in both: Megatron-Core saves its own norms under those of TE's fused layers
    (`sharded_state_dict_keys_map` in `get_gpt_layer_local_spec`), and its linear layers an empty `_extra_state`. TE
    has one more in its attention (from 1.8 on) and in its norms (from 1.13 on). Without those, a model of TE's layers
    stops at the file ("Missing key in checkpoint") unless model.dist_ckpt_load_strictness=log_all is given. None
    stands for "no FP8 state": every `set_extra_state` of TE's returns at once where it is given that.
    """
    from megatron.core.transformer.utils import make_sharded_object_for_checkpoint

    write = model.sharded_state_dict
    attention, norm = (f"{part}{_EXTRA_STATE}" for part in ("self_attention.core_attention", "final_layernorm"))

    def sharded_state_dict(prefix: str = "") -> dict[str, Any]:
        begin = f"{prefix}model.decoder."
        state = {begin + norm: make_sharded_object_for_checkpoint(None, begin + norm)}
        for layer in range(layers):
            entry = make_sharded_object_for_checkpoint(None, f"{begin}layers.{attention}", [(0, layer, layers)])
            state[f"{begin}layers.{layer}.{attention}"] = entry
        return state | write(prefix)

    model.sharded_state_dict = sharded_state_dict


def to_hf(
    source: Path, reference: Path, target: Path, precision: str | None = None, chat_template: str = "auto"
) -> None:
    """Write the weights of a .nemo file as a Hugging Face folder.

    Args:
        source: the .nemo file or extracted folder, of a model that came from `to_nemo` or upstream's converter.
        reference: the folder that it came from; its configuration and tokenizer are copied, but for the chat
            template of a model that was trained with NeMo's.
        target: the folder, which must not exist.
        precision: of the written weights, one of `PRECISIONS`; None keeps what is stored.
        chat_template: one of `hf_chat.CHOICES`.

    Raises:
        UsageError: no such file or folder, other sizes than the reference's, weights of another architecture, a reward
            model or critic, or adapters.
    """
    import torch
    from safetensors.torch import save_file

    settings, stored, path = *_check_model(source, reference, target), source
    template = hf_chat.taught(stored, chat_template, source)
    shape = Shape.of(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".hf-") as folder:
        with _unpacked(path, Path(folder)) as unpacked:
            weights = dict(_converted(unpacked / _WEIGHTS, shape))
        found = {
            name: Weight(tuple(weight.shape), str(weight.dtype).removeprefix("torch."), lambda weight=weight: weight)
            for name, weight in weights.items()
        }
        check_weights(found, weight_shapes(settings, tied=False), path)
        dtypes = {weight.dtype for weight in found.values()}
        dtype = PRECISIONS[precision] if precision else found["model.embed_tokens.weight"].dtype
        _say_precision(dtypes, dtype, path)
        weights = {name: weight.to(getattr(torch, dtype)).contiguous() for name, weight in weights.items()}
        made = Path(folder) / "made"
        made.mkdir()
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        for file in reference.iterdir():
            if file.is_file() and not file.name.startswith(("model", "pytorch_model", "consolidated")):
                shutil.copy(file, made)
        # transformers 5 calls it dtype, and reads either.
        settings.pop("dtype", None)
        changed = settings | {"tie_word_embeddings": False, "torch_dtype": dtype}
        (made / "config.json").write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")
        if template is not None:
            hf_chat.write(made, template, (stored.get("tokenizer") or {}).get("library"))
        made.rename(target)


def check_folder(source: Path, target: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check what `to_nemo` is given, whoever will convert it; raises as that does.

    Returns:
        The contents of config.json, and NeMo's settings of such a model.
    """
    check_new(target)
    settings = read_settings(source)
    wanted = model_settings(settings, str(source / "config.json"))
    tied = bool(settings.get("tie_word_embeddings"))
    check_weights(open_weights(source), weight_shapes(settings, tied=tied), source)
    return settings, wanted


def _check_model(source: Path, reference: Path, target: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check what `to_hf` is given; raises as that does.

    Returns:
        The contents of the reference's config.json, and of the model's configuration.
    """
    check_new(target)
    settings = read_settings(reference)
    wanted = model_settings(settings, str(reference / "config.json"))
    stored = model_file.model_config(model_file.nemo_file(source, "MODEL.nemo"))
    _language_model(source, stored)
    # An absent kv_channels follows from the others.
    for key in _SAME:
        if stored.get(key) is not None and stored[key] != wanted[key]:
            raise UsageError(f"{source}: {key}={stored[key]}, and {reference} has {wanted[key]}")
    return settings, stored


def _language_model(path: Path, stored: dict[str, Any]) -> None:
    """Raise UsageError for a .nemo model that has no output layer over tokens, or no weights but adapters."""
    kind = str(stored.get("target")).rpartition(".")[2]
    if "Reward" in kind or "Critic" in kind:
        raise UsageError(
            f"{path}: a {kind}: Llama's and Mistral's layout has no place for the head that gives its number; convert "
            "the language model that it was trained from"
        )
    if not any(_WEIGHTS in Path(name).parts for name in model_file.contents(path).names):
        raise UsageError(f"{path}: no {_WEIGHTS}/ in it; adapters become a whole model by cai merge-lora")


@contextmanager
def _unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """A .nemo model as a folder, which is removed afterwards if it was not one."""
    if path.is_dir():
        yield path
        return
    unpacked = folder / "unpacked"
    nemo_archive.unpack(path, unpacked)
    yield unpacked
    shutil.rmtree(unpacked)


def _converted(folder: Path, shape: Shape) -> Iterator[tuple[str, Any]]:
    """Hugging Face's weights by name, of a distributed checkpoint; without NeMo, so whatever layers wrote it."""
    from nemo_aligner_cai.training.checkpoints.stored_tensors import read_distributed

    state = read_distributed(folder, lambda name: _EXTRA_STATE not in name)
    for key in list(state):
        name = key.removeprefix("model.").removeprefix("module.")
        yield from to_huggingface(name, state.pop(key), shape)


def _say_precision(found: Iterable[str], dtype: str, source: Path) -> None:
    """Log what weights are converted from and to; a change that rounds is a warning."""
    kinds = " and ".join(sorted(found))
    exact = {"bfloat16": {"bfloat16"}, "float16": {"float16"}}.get(dtype, set(PRECISIONS.values()))
    if exact.issuperset(found):
        _log.info("%s: weights of %s, stored as %s", source, kinds, dtype)
    else:
        _log.warning("%s: weights of %s are rounded to %s; --precision chooses another", source, kinds, dtype)
