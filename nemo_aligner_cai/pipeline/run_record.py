# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The record of what a run is made from, for `cai report` and `cai compare`.

Output: ``run.json``: {"settings": {"seed": 1, ...}, "constitution": {"name": "tiny", "principles": [{"id": "harm",
        "critique": "find ...", "revision": "write ...", "judge": "which ..."}]},
        "steps": [{"name": "1_data", "title": "Step 1: ...", "settings_hash": "5b1c..."}],
        "versions": {"nemo_aligner_cai": "0.1.0", ...}}

It is written before the first step. Nothing in it decides which steps run again: that is in each ``step.json``. The
hashes tell which ``step.json`` is of these settings; see `records.py`.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nemo_aligner_cai import __version__
from nemo_aligner_cai.constitution.loading import load_constitution
from nemo_aligner_cai.files import write_json
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.records import RUN_RECORD
from nemo_aligner_cai.pipeline.step_cache import Step, settings_hash

_PACKAGES = ("nemo_toolkit", "nemo_aligner", "megatron-core", "torch")


def write_run_record(folder: Path, config: RunConfig, constitution: Path, steps: Sequence[Step]) -> None:
    """Write ``run.json`` into the run's folder."""
    loaded = load_constitution(constitution)
    record = {
        "settings": config.model_dump(mode="json"),
        "constitution": {
            "name": loaded.name,
            "principles": [{"id": one.id, **one.requests} for one in loaded.principles],
        },
        "steps": [
            {"name": step.name, "title": step.title, "settings_hash": settings_hash(step, folder)} for step in steps
        ],
        "versions": versions(),
    }
    write_json(folder / RUN_RECORD, record, overwrite=True)


def versions() -> dict[str, Any]:
    """The versions of this package, of Python and of the training stack."""
    own = {"nemo_aligner_cai": __version__, "python": platform.python_version()}
    return own | {name: metadata.version(name) for name in _PACKAGES}
