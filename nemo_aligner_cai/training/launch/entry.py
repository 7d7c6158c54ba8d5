# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Selects the process that runs a stage: this one, NeMo-Aligner's own script, or several processes under torchrun.

In the NeMo container NeMo-Aligner's scripts run, with the configurations of this package; elsewhere this package
assembles the same classes. Validation always runs first: a mistake costs a second.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import ranks
from nemo_aligner_cai.training.config import in_quotes
from nemo_aligner_cai.training.launch.stage_main import Arguments, Stage, cuda_available, validate

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)
SCRIPTS = {
    "sft": "train_gpt_sft.py",
    "reward-model": "train_reward_model.py",
    "critic": "serve_ppo_critic.py",
    "ppo-actor": "train_gpt_ppo_actor.py",
    "dpo": "train_gpt_dpo.py",
}
"""Stage of `cai train` -> NeMo-Aligner's script."""
HOME = "NEMO_ALIGNER_HOME"
TRAINERS = ("auto", "upstream", "ours")
_INDEX = ".index_mapping_dir"
_TORCHRUN = ["-m", "nemo_aligner_cai.training.launch.local_ranks"]
_UPSTREAM = ["-m", "nemo_aligner_cai.training.upstream_script"]


def script(stage: str) -> Path | None:
    """NeMo-Aligner's script for a stage; None if there is none on this machine."""
    if stage not in SCRIPTS:
        return None
    found = Path(os.environ.get(HOME, "/opt/NeMo-Aligner"), "examples", "nlp", "gpt", SCRIPTS[stage])
    return found if found.is_file() else None


def command(
    name: str,
    stage: Stage,
    module: str,
    arguments: Arguments,
    cfg: DictConfig,
    trainer: str = "auto",
    *,
    for_cluster: bool = False,
) -> list[str] | None:
    """The command line to run in place of this process; None if this process can run the stage.

    Args:
        name: the stage's name in `cai train`.
        stage: the stage.
        module: the dotted name of its module.
        arguments: the parsed command line, with the hardware.
        cfg: the composed configuration.
        trainer: one of `TRAINERS`; "auto" selects NeMo-Aligner's script if it exists and torch can use a GPU.
        for_cluster: the command is for a Slurm job: srun starts it on several nodes.

    Raises:
        UsageError: an invalid configuration or input file, a missing script, or several nodes without a launcher.
    """
    upstream_script = script(name) if trainer != "ours" else None
    if trainer == "upstream" and upstream_script is None:
        raise UsageError(f"--trainer upstream: there is no script for {name} in ${HOME}/examples/nlp/gpt")
    if trainer == "auto" and not cuda_available():
        upstream_script = None
    if upstream_script is not None and name == "ppo-actor":
        _log.warning(
            "%s does not wait for the training of its critic, nor stop if that fails; --trainer ours does both",
            upstream_script,
        )
    srun = _srun(cfg) if for_cluster else []
    processes = [] if srun else _processes(cfg)
    if upstream_script is None and not processes and not srun:
        return None
    before = _data_settings(cfg)
    # Before the processes start: each would report the error again, inside torchrun's traceback.
    validate(stage, cfg, arguments.config)
    # Converted files must not be converted again, and NeMo-Aligner's scripts cannot convert.
    changed = {key: value for key, value in _data_settings(cfg).items() if before.get(key) != value}
    added = [f"++{key}={value}" for key, value in changed.items()]
    if any(not key.endswith(_INDEX) for key in changed):
        added += ["++data_processor.format=null", "++data_processor.system_message=null", "data_processor=none"]
    target = [*_UPSTREAM, str(upstream_script)] if upstream_script is not None else ["-m", module]
    alone = not processes and ranks.is_mistaken_for_rank(os.environ)
    before_python = ["/usr/bin/env", "-u", "SLURM_NTASKS"] if alone else []
    return [*srun, *before_python, sys.executable, *processes, *target, *settings(arguments), *added]


def settings(arguments: Arguments) -> list[str]:
    """The Hydra flags and overrides of parsed arguments."""
    search = [f"--config-dir={folder}" for folder in arguments.search]
    return [f"--config-name={arguments.config}", *search, *arguments.overrides]


def _processes(cfg: DictConfig) -> list[str]:
    """Torchrun's part of the command; empty if one process is enough."""
    nodes, devices = _size(cfg)
    if ranks.is_rank(os.environ) or nodes * devices <= 1:
        return []
    if nodes > 1:
        raise UsageError(
            f"trainer.num_nodes={nodes}: start this command on every node, by `srun --nodes={nodes} "
            f"--ntasks-per-node={devices} cai train ...`, or by `torchrun --nnodes={nodes} --nproc-per-node={devices} "
            "--rdzv-backend=c10d --rdzv-endpoint=HOST:29500 -m nemo_aligner_cai.cli train ...`"
        )
    return [*_TORCHRUN, f"--nproc-per-node={devices}"]


def _srun(cfg: DictConfig) -> list[str]:
    """The srun part of a job's command; empty for a single node."""
    nodes, devices = _size(cfg)
    return ["srun", f"--nodes={nodes}", f"--ntasks-per-node={devices}"] if nodes > 1 else []


def _size(cfg: DictConfig) -> tuple[int, int]:
    """The nodes and the processes on each; 1 where Lightning starts the processes ("auto", a list of devices)."""
    nodes, devices = (size if isinstance(size, int) else 1 for size in (cfg.trainer.num_nodes, cfg.trainer.devices))
    return nodes, devices


def _data_settings(cfg: DictConfig) -> dict[str, str]:
    """Key of each data file, list of files and index folder -> its value as a Hydra override."""
    from omegaconf import OmegaConf

    tree = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    return dict(_leaves(tree["model"].get("data"), "model.data"))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in cast(dict[str, Any], node).items():
            yield from _leaves(value, f"{path}.{key}")
    elif "file_path" in path or "data_prefix" in path or path.endswith(_INDEX):
        many = isinstance(node, list)
        items = [_value(item) for item in cast(list[Any], node if many else [node])]
        yield path, f"[{','.join(items)}]" if many else items[0]


def _value(item: Any) -> str:
    return in_quotes(item) if isinstance(item, str) else str(item)
