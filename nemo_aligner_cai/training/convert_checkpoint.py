# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Converts Hugging Face folders of the models in `checkpoints/architectures.py` to .nemo files, and back, on the CPU.

Input:  config.json, model.safetensors or pytorch_model.bin (maybe sharded), tokenizer.model or tokenizer.json
Output: a .nemo file; or, in the other direction, such a folder
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.files.output_paths import check_new
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.checkpoints import hf_chat, nemo_archive
from nemo_aligner_cai.training.checkpoints.architectures import read_settings
from nemo_aligner_cai.training.checkpoints.hf_config import Shape, model_settings
from nemo_aligner_cai.training.checkpoints.hf_folder import (
    Weight,
    check_weights,
    open_weights,
    tokenizer_settings,
)
from nemo_aligner_cai.training.checkpoints.hf_layout import to_huggingface, to_megatron, weight_shapes
from nemo_aligner_cai.training.checkpoints.save import save_nemo
from nemo_aligner_cai.training.checkpoints.stored_tensors import read_distributed
from nemo_aligner_cai.training.checks import model_file, model_kind
from nemo_aligner_cai.training.cpu.patches import installed

_log = logging.getLogger(__name__)
PRECISIONS = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
CONVERTERS = {"llama": "convert_llama_hf_to_nemo.py", "mistral": "convert_mistral_7b_hf_to_nemo.py"}
"""The model types that NeMo can convert -> its script, which needs a GPU. Others are converted by `to_nemo` only."""
_EXTRA_STATE = "._extra_state"
_WEIGHTS = "model_weights"
_SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")


def to_nemo(source: Path, target: Path, precision: str = "bf16", tokenizer_name: str | None = None) -> None:
    """Convert a Hugging Face folder to a .nemo file.

    The file can be loaded with Megatron's own layers and with Transformer Engine's (see `_add_te_state`).

    Args:
        source: the folder.
        target: the file, which must not exist.
        precision: of the stored weights, one of `PRECISIONS`.
        tokenizer_name: see `hf_folder.tokenizer_settings`.

    Raises:
        UsageError: as for `check_folder` and `check_layers`.
    """
    settings, wanted = check_folder(source, target)
    check_layers(source, settings["model_type"])
    shape = Shape.of(settings)
    tied = bool(settings.get("tie_word_embeddings"))
    weights = open_weights(source)
    wanted |= tokenizer_settings(source, shape.vocabulary, tokenizer_name)
    _log_precision({weight.dtype for weight in weights.values()}, PRECISIONS[precision], source)

    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    import torch
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import MegatronGPTModel
    from nemo.collections.nlp.parts.megatron_trainer_builder import MegatronTrainerBuilder
    from omegaconf import OmegaConf, open_dict

    given = ["corpus.file=none", f"output={config.quoted(target)}", "exp_manager.explicit_log_dir=none"]
    cpu_cfg, gpu_cfg = (
        config.compose("cai_pretrain", [*given, "model.tokenizer.model=none", f"hardware={hardware}"])
        for hardware in ("cpu", "8xh100")
    )
    for cfg in (cpu_cfg, gpu_cfg):
        with open_dict(cfg):
            cfg.model = OmegaConf.merge(cfg.model, wanted)
            cfg.model.micro_batch_size = cfg.model.global_batch_size = 1
            cfg.model.precision = cfg.trainer.precision
        OmegaConf.resolve(cfg)
    model = MegatronGPTModel(cpu_cfg.model, MegatronTrainerBuilder(cpu_cfg).create_trainer())
    model.model.to(getattr(torch, PRECISIONS[precision]))
    empty = dict(model.model.named_parameters())
    with torch.no_grad():
        for name, weight in to_megatron(lambda name: weights[name].read(), shape, tied=tied):
            empty.pop(name).copy_(weight)
    if empty:
        raise UsageError(f"{source}: it has no weights for {sorted(empty)[:3]}")
    with open_dict(model.cfg):
        # By this key a model says that it was trained with NeMo's chat template.
        model.cfg.data.pop("chat_prompt_tokens", None)
        # The file has the settings for GPUs; without a GPU, trainers and server change them again.
        for key in cpu_cfg.model:
            if key not in ("tokenizer", "data") and key in gpu_cfg.model:
                model.cfg[key] = gpu_cfg.model[key]
        # The model above was created with the tokenizer of the folder, which the name may not refer to here.
        if tokenizer_name:
            model.cfg.tokenizer.type = tokenizer_name
        # NeMo's converter to Hugging Face uses this precision.
        model.cfg.precision = int(precision) if precision.isdigit() else precision

    _add_te_state(model, shape.layers)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_nemo(model, target)


def _add_te_state(model: Any, layers: int) -> None:
    """Make a model of Megatron's own layers also save the entries of Transformer Engine's layers, empty.

    The weights have the same names in both: Megatron-Core saves its own norms under the names of TE's fused layers
    (`sharded_state_dict_keys_map` in `get_gpt_layer_local_spec`), and an empty `_extra_state` for its linear layers.
    TE has further ones in its attention (since 1.8) and its norms (since 1.13). Without them, loading with TE's layers
    fails ("Missing key in checkpoint") unless model.dist_ckpt_load_strictness=log_all is set. None means "no FP8
    state": each `set_extra_state` of TE ignores it.
    """
    from megatron.core.transformer.utils import make_sharded_object_for_checkpoint

    write = model.sharded_state_dict
    attention, norm = (f"{part}{_EXTRA_STATE}" for part in ("self_attention.core_attention", "final_layernorm"))

    def sharded_state_dict(prefix: str = "") -> dict[str, Any]:
        decoder = f"{prefix}model.decoder."
        state = {decoder + norm: make_sharded_object_for_checkpoint(None, decoder + norm)}
        for layer in range(layers):
            entry = make_sharded_object_for_checkpoint(None, f"{decoder}layers.{attention}", [(0, layer, layers)])
            state[f"{decoder}layers.{layer}.{attention}"] = entry
        return state | write(prefix)

    model.sharded_state_dict = sharded_state_dict


def to_hf(
    source: Path, reference: Path, target: Path, precision: str | None = None, chat_template: str = "auto"
) -> None:
    """Convert a .nemo file to a Hugging Face folder.

    Args:
        source: the .nemo file or extracted folder of a model from `to_nemo` or upstream's converter.
        reference: the original Hugging Face folder; its configuration and tokenizer are copied. The chat template is
            NeMo's if the model was trained with it.
        target: the folder, which must not exist.
        precision: of the written weights, one of `PRECISIONS`; None keeps the stored precision.
        chat_template: one of `hf_chat.CHOICES`.

    Raises:
        UsageError: the file or the reference is missing, their sizes or architectures differ, or the model is a reward
            model, a critic or adapters.
    """
    import torch
    from safetensors.torch import save_file

    settings, stored = _check_model(source, reference, target)
    template = hf_chat.training_template(stored, chat_template, source)
    shape = Shape.of(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".hf-") as folder:
        weights = _read_weights(source, Path(folder), shape)
        found = {name: Weight.of(tensor) for name, tensor in weights.items()}
        check_weights(found, weight_shapes(settings, tied=False), source)
        dtypes = {weight.dtype for weight in found.values()}
        dtype = PRECISIONS[precision] if precision else found["model.embed_tokens.weight"].dtype
        _log_precision(dtypes, dtype, source)
        weights = {name: weight.to(getattr(torch, dtype)).contiguous() for name, weight in weights.items()}
        made = Path(folder) / "made"
        made.mkdir()
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        for file in reference.iterdir():
            if file.is_file() and not file.name.startswith(("model", "pytorch_model", "consolidated")):
                shutil.copy(file, made)
        # transformers 5 writes dtype, and reads both.
        settings.pop("dtype", None)
        changed = settings | {"tie_word_embeddings": False, "torch_dtype": dtype}
        (made / "config.json").write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")
        if template is not None:
            hf_chat.write(made, template, (stored.get("tokenizer") or {}).get("library"))
        made.rename(target)


def check_folder(source: Path, target: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the arguments of `to_nemo`, also for NeMo's converter.

    Returns:
        The contents of config.json, and NeMo's settings for the model.

    Raises:
        UsageError: the folder is missing; the architecture or a setting is not supported; or a weight is missing or
            unexpected.
    """
    check_new(target)
    settings = read_settings(source)
    wanted = model_settings(settings, str(source / "config.json"))
    tied = bool(settings.get("tie_word_embeddings"))
    check_weights(open_weights(source), weight_shapes(settings, tied=tied), source)
    return settings, wanted


def check_layers(source: Path, model_type: str) -> None:
    """Check that `to_nemo` can create a model: with Apex, Megatron-Core 0.11's own layers have no RMSNorm.

    Source: Megatron-Core's `fusions/fused_layer_norm.py`.

    Raises:
        UsageError: Apex is installed. NotHere, if NeMo has a converter for models of this type.
    """
    if not installed("apex"):
        return
    refused = f"{source}: with Apex installed, Megatron-Core's own layers have no RMSNorm:"
    elsewhere = (
        f"convert {model_type} where Apex is not, as after `make venv` in a checkout, without a GPU; the file works "
        "here, too"
    )
    if model_type in CONVERTERS:
        raise NotHere(
            f"{refused} with a GPU and NEMO_HOME NeMo's own converter is used, or {elsewhere}",
            "a GPU and NeMo's converter (NEMO_HOME)",
        )
    raise UsageError(f"{refused} {elsewhere}")


def nemo_converter(model_type: str) -> Path | None:
    """The script by which NeMo 2.2 converts a model of this type; None if there is none, or no GPU for it."""
    from nemo_aligner_cai.training.launch.stage_main import cuda_available

    if model_type not in CONVERTERS:
        return None
    folder = Path(os.environ.get("NEMO_HOME", "/opt/NeMo")) / "scripts" / "checkpoint_converters"
    script = folder / CONVERTERS[model_type]
    return script if script.is_file() and cuda_available() else None


def _check_model(source: Path, reference: Path, target: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the arguments of `to_hf`; raises UsageError.

    Returns:
        The contents of the reference's config.json, and the model's configuration.
    """
    check_new(target)
    settings = read_settings(reference)
    wanted = model_settings(settings, str(reference / "config.json"))
    stored = model_file.model_config(model_file.nemo_file(source, "MODEL.nemo"))
    model_kind.check(source, "MODEL.nemo")
    # kv_channels may be absent: it has a default.
    for key in _SIZES:
        if stored.get(key) is not None and stored[key] != wanted[key]:
            raise UsageError(f"{source}: {key}={stored[key]}, and {reference} has {wanted[key]}")
    return settings, stored


def _read_weights(source: Path, folder: Path, shape: Shape) -> dict[str, Any]:
    """The Hugging Face weights of a .nemo model; an archive is extracted temporarily in `folder`."""
    if source.is_dir():
        return dict(_converted(source, shape))
    with tempfile.TemporaryDirectory(dir=folder) as unpacked:
        nemo_archive.unpack(source, Path(unpacked))
        return dict(_converted(Path(unpacked), shape))


def _converted(folder: Path, shape: Shape) -> Iterator[tuple[str, Any]]:
    """The Hugging Face weights, by name, of an extracted .nemo model with any kind of layers."""
    state = read_distributed(folder / _WEIGHTS, lambda name: _EXTRA_STATE not in name)
    for key in list(state):
        name = key.removeprefix("model.").removeprefix("module.")
        yield from to_huggingface(name, state.pop(key), shape)


def _log_precision(found: Iterable[str], dtype: str, source: Path) -> None:
    """Log the conversion of weights from the types `found` to `dtype`, as a warning if it rounds."""
    types = " and ".join(sorted(found))
    exact = {"bfloat16": {"bfloat16"}, "float16": {"float16"}}.get(dtype, set(PRECISIONS.values()))
    if exact.issuperset(found):
        _log.info("%s: weights of %s, stored as %s", source, types, dtype)
    else:
        _log.warning("%s: weights of %s are rounded to %s; --precision chooses another", source, types, dtype)
