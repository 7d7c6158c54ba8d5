# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations of a run on a Slurm cluster."""

from pathlib import Path
from typing import Any

import yaml

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.pipeline.config import RunConfig, load_run_config
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.layout import SL_CAI

SLURM = {"kind": "slurm", "account": "lab", "partition": "batch", "time": "04:00:00"}
SHARDED = SLURM | {"steps": {SL_CAI: {"shards": 64, "shards_at_once": 16}}}


def config(tmp_path: Path, executor: dict[str, Any], **sections: Any) -> Path:
    """The quickstart's configuration with an executor and other trainers' settings, as a file."""
    tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree | {"executor": executor}), encoding="utf-8")
    return path


def loaded(tmp_path: Path, executor: dict[str, Any], **sections: Any) -> tuple[RunConfig, SlurmExecutor]:
    """The configuration and its executor."""
    run = load_run_config(config(tmp_path, executor, **sections))
    assert isinstance(run.executor, SlurmExecutor)
    return run, run.executor
