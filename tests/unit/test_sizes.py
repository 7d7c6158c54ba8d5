# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Processes, GPUs, batches and parallel sizes that do not divide each other are refused before loading."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import parallelism
from nemo_aligner_cai.training.config import compose
from tests.unit.test_train_inputs import archive


def config(devices: Any = 8, nodes: int = 1, **model: Any) -> DictConfig:
    short = {"tp": "tensor_model_parallel_size", "pp": "pipeline_model_parallel_size", "cp": "context_parallel_size"}
    keys = {short.get(key, key): value for key, value in model.items()}
    return OmegaConf.create({"trainer": {"devices": devices, "num_nodes": nodes}, "model": keys})


@pytest.mark.parametrize(
    ("cfg", "gpus", "message"),
    [
        (config(8), 8, ""),
        (config(2), 8, ""),
        (config("auto", tp=8), 8, ""),
        (config(-1, tp=4), 8, ""),
        (config([0, 7]), 8, ""),
        (config(8, nodes=2, tp=8, pp=2), 8, ""),
        # Without CUDA there are no GPUs to compare with.
        (config(8, tp=2), 0, ""),
        (config(8), 1, r"^trainer\.devices=8: .* 1 GPU; give trainer\.devices=1, "),
        (config(8), 4, r"4 GPUs; give trainer\.devices=4, "),
        (config([0, 4]), 4, r"^trainer\.devices=\[0, 4\]: .* 4 GPUs"),
        (
            config(8, tp=8),
            4,
            r"give trainer\.devices=4 and .*model\.tensor_model_parallel_size=8, .* 8 GPUs",
        ),
        (config(8, nodes=2, tp=8), 4, r"give trainer\.devices=4, "),
        (
            config(8, tp=4, pp=4),
            8,
            r": 8 processes .* 16 each .*tensor_model_parallel_size=4 x model\.pipeline_model_parallel_size=4",
        ),
        (config(2, tp=2, cp=2), 0, r"^trainer\.num_nodes=1 x trainer\.devices=2: 2 processes "),
        (config("auto", tp=3), 8, r"trainer\.devices=auto: 8 processes"),
    ],
)
def test_gpus_and_processes(cfg: DictConfig, gpus: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if not message:
        parallelism.check(cfg, gpus, {})
        return
    with pytest.raises(UsageError, match=message):
        parallelism.check(cfg, gpus, {})


def test_hidden_gpus_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(UsageError, match=r"has 1 GPU \(CUDA_VISIBLE_DEVICES=3\)"):
        parallelism.check(config(2), 1, {})


def test_the_sizes_of_the_server() -> None:
    cfg = compose("cai_inference", ["tensor_model_parallel_size=4", "trainer.devices=6"])
    parallelism.check(cfg, 0, {})
    with pytest.raises(UsageError, match=r"of 4 each \(tensor_model_parallel_size=4\)"):
        parallelism.check(cfg, 8, {})
    for size, written in ((-1, "all parallel sizes are 1"), (2, "tensor_model_parallel_size=2"), (6, "")):
        cfg.tensor_model_parallel_size = size
        with pytest.raises(UsageError, match=rf"^trainer.* one copy .*{written}") if written else nullcontext():
            parallelism.check(cfg, 8, {})


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [(config(8), 8), (config(8, nodes=2, tp=4), 4), (config([0, 1]), 2), (config("auto"), 1), (config(8, cp=8), 1)],
)
def test_the_data_parallel_size(cfg: DictConfig, expected: int) -> None:
    assert parallelism.data_parallel_size(cfg) == expected


def test_a_batch_is_divided_among_the_copies() -> None:
    cfg = config(8, tp=2, micro_batch_size=4, global_batch_size=16)
    parallelism.check_batch(cfg, "model.micro_batch_size", "model.global_batch_size")
    cfg.model.micro_batch_size = 8
    with pytest.raises(
        UsageError,
        match=r"^model\.global_batch_size=16 must be a multiple of model\.micro_batch_size=8 x 4 copies of the model "
        r"= 32 \(see trainer\.devices\)$",
    ):
        parallelism.check_batch(cfg, "model.micro_batch_size", "model.global_batch_size")
    with pytest.raises(UsageError, match=r"^model\.global_batch_size=16 must be a multiple of model\.seed=3$"):
        parallelism.check_batch(config(8, seed=3, global_batch_size=16), "model.seed", "model.global_batch_size", 1)


@pytest.mark.parametrize("name", parallelism.LAYOUT)
def test_a_layout_is_not_inherited_from_the_model(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", f"num_layers: 4\n{name}: 2\n".encode())
    cfg = config(8, restore_from_path=str(path))
    with pytest.raises(UsageError, match=rf"^model\.{name}: .* saved with 2, .*\+\+model\.{name}=2"):
        parallelism.check_model(cfg, "model.restore_from_path")
    cfg.model[name] = parallelism.LAYOUT[name]
    parallelism.check_model(cfg, "model.restore_from_path")


@pytest.mark.parametrize("stage", ["sft", "reward_model", "ppo_critic", "ppo_actor", "dpo"])
def test_every_stage_sets_the_common_keys_of_the_layout(stage: str) -> None:
    common = {f"{name}_model_parallel_size" for name in ("tensor", "pipeline", "virtual_pipeline", "expert")}
    common |= {"context_parallel_size", "sequence_parallel"}
    model = compose(f"cai_{stage}", []).model
    assert {name: model.get(name, "absent") for name in common} == {name: parallelism.LAYOUT[name] for name in common}


def test_layers_that_are_divided_unevenly(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", b"num_layers: 6\n")
    uneven = {f"account_for_{part}_in_pipeline_split": True for part in ("embedding", "loss")}
    parallelism.check_model(config(8, pp=4, restore_from_path=str(path), **uneven), "model.restore_from_path")


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"tp": 2, "pp": 4}, ""),
        ({"pp": 3}, r"^model\.pipeline_model_parallel_size=3: the model has num_layers=4"),
        ({"tp": 8}, r"^model\.tensor_model_parallel_size=8: the model has num_attention_heads=12"),
        ({"tp": 4}, r"^model\.tensor_model_parallel_size=4: the model has num_query_groups=2"),
    ],
)
def test_a_model_that_cannot_be_divided(parallel: dict[str, int], message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", b"num_layers: 4\nnum_attention_heads: 12\nnum_query_groups: 2\n")
    cfg = config(8, restore_from_path=str(path), **parallel)
    if not message:
        parallelism.check_model(cfg, "model.restore_from_path")
        return
    with pytest.raises(UsageError, match=message):
        parallelism.check_model(cfg, "model.restore_from_path")
