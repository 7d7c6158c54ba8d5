# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Processes, GPUs, batches and parallel sizes that must divide each other; Megatron checks them much later."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file, ranks
from nemo_aligner_cai.training.checks.values import positive_int
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_TENSOR, _PIPELINE = "tensor_model_parallel_size", "pipeline_model_parallel_size"
_PARALLEL = (_TENSOR, _PIPELINE, "context_parallel_size")
"""Their product is the number of processes that hold one copy of a model."""
_DIVIDED = (("num_layers", _PIPELINE), ("num_attention_heads", _TENSOR), ("num_query_groups", _TENSOR))
"""A size of the model, and the parallel size that must divide it."""
_UNEVEN = ("account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split")
"""If both are set, embedding and loss count as a layer each, and Megatron-Core divides the layers otherwise."""
LAYOUT: Mapping[str, Any] = {
    _TENSOR: 1,
    _PIPELINE: 1,
    "virtual_pipeline_model_parallel_size": None,
    "num_layers_in_first_pipeline_stage": None,
    "num_layers_in_last_pipeline_stage": None,
    **dict.fromkeys(_UNEVEN, False),
    "context_parallel_size": 1,
    "hierarchical_context_parallel_sizes": None,
    "expert_model_parallel_size": 1,
    "expert_tensor_parallel_size": None,
    "sequence_parallel": False,
    "use_tp_pp_dp_mapping": False,
}
"""NeMo's keys of how processes share a model -> the value for one process, NeMo's default.

A .nemo file has those of the stage that saved it. They belong to that stage and its machine.
"""


def sizes_above_one(cfg: DictConfig) -> list[str]:
    """The keys of model-parallel sizes above 1, with which a model's weights, and its adapters, are saved in parts."""
    return [f"model.{name}" for name in (_TENSOR, _PIPELINE) if (select(cfg, f"model.{name}") or 1) > 1]


def check(cfg: DictConfig, gpus: int, env: Mapping[str, str] = os.environ) -> None:
    """Compare the configured processes with the GPUs and with the processes that a launcher has started.

    Args:
        cfg: the stage's configuration.
        gpus: the number of CUDA devices; 0 on a machine without any, where they are not compared.
        env: environment variables.

    Raises:
        UsageError: there are fewer GPUs, the processes cannot be divided into copies of the model, are more than the
            one copy of a server, or a launcher has started another number of processes.
    """
    devices = select(cfg, "trainer.devices")
    if gpus:
        _check_gpus(cfg, devices, gpus)
    elif _is_server(cfg):
        return  # Without a GPU, the server runs in one process.
    nodes = positive_int(cfg, "trainer.num_nodes") or 1
    size = model_parallel_size(cfg)
    processes, given = _process_count(devices, nodes, gpus), f"trainer.num_nodes={nodes} x trainer.devices={devices}"
    if processes % size:
        raise UsageError(
            f"{given}: {processes} processes cannot be divided into copies of the model of {size} each "
            f"({_sizes(cfg)}); give a multiple of {size}, or smaller sizes"
        )
    if _is_server(cfg) and processes > size:
        raise UsageError(
            f"{given}: a server is one copy of the model, which has {size} processes "
            f"({_sizes(cfg) or 'all parallel sizes are 1'}); give both the same number"
        )
    if isinstance(devices, int) and devices > 0:
        ranks.check_process_count(env, nodes=nodes, devices=devices)


def _check_gpus(cfg: DictConfig, devices: Any, gpus: int) -> None:
    """Raise UsageError if `trainer.devices` is a number, or a list of indices, beyond the available GPUs."""
    listed = isinstance(devices, Sequence) and not isinstance(devices, str)
    needed = 1 + max(map(int, devices), default=-1) if listed else devices
    if not isinstance(needed, int) or needed <= gpus:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    available = f"{gpus} GPU{'s' if gpus > 1 else ''}" + (f" (CUDA_VISIBLE_DEVICES={visible})" if visible else "")
    fix = f"give trainer.devices={gpus}"
    if (size := model_parallel_size(cfg)) > gpus and select(cfg, "trainer.num_nodes") in (None, 1):
        fix += f" and smaller sizes than {_sizes(cfg)}, which need {size} GPUs"
    raise UsageError(f"trainer.devices={devices}: this machine has {available}; {fix}, or use a larger machine")


def model_parallel_size(cfg: DictConfig) -> int:
    """The number of processes that hold one copy of the model."""
    return math.prod(_size(cfg, name) for name in _PARALLEL)


def data_parallel_size(cfg: DictConfig) -> int:
    """The number of copies of the model; 1 if Lightning chooses the number of processes (`trainer.devices=auto`)."""
    nodes, devices = (select(cfg, f"trainer.{key}") for key in ("num_nodes", "devices"))
    processes = _process_count(devices, nodes if isinstance(nodes, int) else 1, 0)
    return max(1, processes // model_parallel_size(cfg))


def check_batch(cfg: DictConfig, micro_key: str, total_key: str, times: int | None = None) -> None:
    """Raise UsageError if a batch cannot be divided into micro batches.

    Args:
        cfg: the stage's configuration.
        micro_key: the key of the micro batch size.
        total_key: the key of the total batch size.
        times: the number of micro batches that are processed at once; None for the data-parallel size.
    """
    times = data_parallel_size(cfg) if times is None else times
    micro, total = positive_int(cfg, micro_key), positive_int(cfg, total_key)
    if micro is None or total is None or not total % (micro * times):
        return
    among = f" x {times} copies of the model = {micro * times} (see trainer.devices)" if times > 1 else ""
    raise UsageError(f"{total_key}={total} must be a multiple of {micro_key}={micro}{among}")


def check_model(cfg: DictConfig, key: str) -> None:
    """Check the parallel layout of the model at `key`.

    Raises:
        UsageError: the stage would inherit a key of `LAYOUT` from the model, or the layers or heads cannot be divided
            among the processes of a copy, which Megatron-Core asserts when it builds the model (`transformer_block`,
            `attention`).
    """
    stored = model_file.model_config(model_file.nemo_model(cfg, key))
    for name, default in LAYOUT.items():
        if name not in cfg.model and (value := stored.get(name, default)) != default:
            raise UsageError(
                f"model.{name}: the model was saved with {value}, and this stage's configuration does not set it; "
                f"give ++model.{name}={value}, or the value for one process, {'null' if default is None else default}"
            )
    is_uneven = all(select(cfg, f"model.{name}") for name in _UNEVEN)
    for name, divisor in _DIVIDED[1:] if is_uneven else _DIVIDED:
        count, size = stored.get(name), _size(cfg, divisor)
        if isinstance(count, int) and count % size:
            raise UsageError(f"model.{divisor}={size}: the model has {name}={count}, which must be a multiple of it")


def _process_count(devices: Any, nodes: int, gpus: int) -> int:
    if isinstance(devices, int) and devices > 0:
        return nodes * devices
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return nodes * len(devices)
    # "auto" and -1: all GPUs, or one process.
    return nodes * max(1, gpus)


def _is_server(cfg: DictConfig) -> bool:
    """Return True for the configuration of the inference server, which has the parallel sizes at the top level."""
    return "server" in cfg


def _size(cfg: DictConfig, name: str) -> int:
    if not _is_server(cfg):
        return positive_int(cfg, f"model.{name}") or 1
    # NeMo's server also accepts -1, the size in training.
    value = select(cfg, name)
    return max(1, value) if isinstance(value, int) else 1


def _sizes(cfg: DictConfig) -> str:
    """The parallel sizes above 1, written as overrides."""
    prefix = "" if _is_server(cfg) else "model."
    return " x ".join(f"{prefix}{name}={size}" for name in _PARALLEL if (size := _size(cfg, name)) > 1)
