# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Whether processes, GPUs, batches and the model's parts divide as they must: Megatron asks hours or minutes later."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file, ranks
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_TENSOR, _PIPELINE = "tensor_model_parallel_size", "pipeline_model_parallel_size"
_PARALLEL = (_TENSOR, _PIPELINE, "context_parallel_size")
"""The product is the number of processes that hold one copy of a model."""
_ENDS_COUNT = ("account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split")
"""Where both hold, embedding and loss count as a layer each, and Megatron-Core divides otherwise."""
_SHAPES = (("num_layers", _PIPELINE), ("num_attention_heads", _TENSOR), ("num_query_groups", _TENSOR))
"""What of a model is divided among the processes of which size."""


def check(cfg: DictConfig, gpus: int, env: Mapping[str, str] = os.environ) -> None:
    """Compare the processes that a configuration asks for with the GPUs and the launcher that are there.

    Args:
        cfg: a stage's configuration.
        gpus: how many CUDA devices torch sees; 0 on a machine without, where there are none to compare with.
        env: the process's variables.

    Raises:
        UsageError: more GPUs than there are, processes that cannot be divided into copies of the model, or another
            number of them than a launcher has started.
    """
    devices = select(cfg, "trainer.devices")
    if gpus:
        _on_gpus(cfg, devices, gpus)
    elif _serves(cfg):
        return  # the server, which takes one process for a whole model where there is no GPU
    nodes = model_file.number(cfg, "trainer.num_nodes") or 1
    copy = model_parallel(cfg)
    if (processes := _processes(devices, nodes, gpus)) % copy:
        raise UsageError(
            f"trainer.num_nodes={nodes} x trainer.devices={devices}: {processes} processes cannot be divided into "
            f"copies of the model of {copy} each ({_sizes(cfg)}); give a multiple of {copy}, or smaller sizes"
        )
    if isinstance(devices, int) and devices > 0:
        ranks.check_number(env, nodes=nodes, devices=devices)


def _on_gpus(cfg: DictConfig, devices: Any, gpus: int) -> None:
    """Raise UsageError where `trainer.devices` names more GPUs than there are, or others."""
    listed = isinstance(devices, Sequence) and not isinstance(devices, str)
    wanted = 1 + max(map(int, devices), default=-1) if listed else devices
    if not isinstance(wanted, int) or wanted <= gpus:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    here = f"{gpus} GPU{'s' if gpus > 1 else ''}" + (f" (CUDA_VISIBLE_DEVICES={visible})" if visible else "")
    mend = f"give trainer.devices={gpus}"
    if (copy := model_parallel(cfg)) > gpus and select(cfg, "trainer.num_nodes") in (None, 1):
        mend += f" and smaller sizes than {_sizes(cfg)}, by which the model takes {copy}"
    raise UsageError(f"trainer.devices={devices}: this machine has {here}; {mend}, or start it where there are more")


def model_parallel(cfg: DictConfig) -> int:
    """How many processes hold one copy of the model, each a part of it."""
    return math.prod(_size(cfg, name) for name in _PARALLEL)


def copies(cfg: DictConfig) -> int:
    """How many copies of the model are trained, each on its share of a batch: Megatron's data-parallel size.

    1 where the number of processes is left to Lightning (`trainer.devices=auto` and the like).
    """
    nodes, devices = (select(cfg, f"trainer.{key}") for key in ("num_nodes", "devices"))
    return max(1, _processes(devices, nodes if isinstance(nodes, int) else 1, 0) // model_parallel(cfg))


def batch(cfg: DictConfig, part: str, total: str, times: int | None = None) -> None:
    """Raise UsageError where the number at `total` cannot be divided among the copies of the model in micro batches.

    Args:
        cfg: a stage's configuration.
        part: the key of the micro batch's size.
        total: the key of what all copies take together.
        times: how many take a micro batch each; None: `copies`.
    """
    times = copies(cfg) if times is None else times
    small, large = (model_file.number(cfg, key) for key in (part, total))
    if small is None or large is None or not large % (small * times):
        return
    among = f" x {times} copies of the model = {small * times} (see trainer.devices)" if times > 1 else ""
    raise UsageError(f"{total}={large} must be a multiple of {part}={small}{among}")


def model_parts(cfg: DictConfig, key: str) -> None:
    """Raise UsageError where layers or heads of the model at `key` cannot be divided among the processes of a copy.

    Megatron-Core asserts it when it builds the model (`transformer_block`, `attention`).
    """
    stored = model_file.model_config(model_file.nemo_model(cfg, key))
    ends_count = all(select(cfg, f"model.{name}") or stored.get(name) for name in _ENDS_COUNT)
    for name, divisor in _SHAPES[1:] if ends_count else _SHAPES:
        count, size = stored.get(name), _size(cfg, divisor)
        if isinstance(count, int) and count % size:
            raise UsageError(f"model.{divisor}={size}: the model has {name}={count}, which must be a multiple of it")


def _processes(devices: Any, nodes: int, gpus: int) -> int:
    """How many processes there will be; Lightning's words for all are the GPUs that are there, or one process."""
    if isinstance(devices, int) and devices > 0:
        return nodes * devices
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return nodes * len(devices)
    return nodes * max(1, gpus)


def _serves(cfg: DictConfig) -> bool:
    """Whether a configuration is the inference server's, which has the sizes at its top."""
    return "server" in cfg


def _size(cfg: DictConfig, name: str) -> int:
    if not _serves(cfg):
        return model_file.number(cfg, f"model.{name}") or 1
    # The server's, for which NeMo has -1 too: as the model was trained.
    value = select(cfg, name)
    return max(1, value) if isinstance(value, int) else 1


def _sizes(cfg: DictConfig) -> str:
    """The sizes above 1, as they are typed."""
    prefix = "" if _serves(cfg) else "model."
    return " x ".join(f"{prefix}{name}={size}" for name in _PARALLEL if (size := _size(cfg, name)) > 1)
