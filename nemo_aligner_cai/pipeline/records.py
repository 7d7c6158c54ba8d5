# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The records of a run, and the steps whose records are of its current settings.

Input:  run.json: {"steps": [{"name": "3_sft", "settings_hash": "5b1c..."}, ...], ...}, and for each step that is done
        step.json: {"settings_hash": "5b1c...", "reads": {"2_sl_cai/train.jsonl": "9f2a..."},
        "identities": {"model.nemo": "77d0..."}, ...}
Output: {"1_data", "2_sl_cai", "3_sft"}

A run writes run.json before its first step, and a step's record when the step ends. After a change of settings, the
steps that have not run again still have records of the earlier settings. The comparison reads no other file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import read_json

RUN_RECORD, STEP_RECORD = "run.json", "step.json"
STARTED = "started"
"""The marker of a step that was started; its content is the hash of the step's inputs."""


class Origin(BaseModel):
    """The part of a step's record that says what its files were made from.

    Attributes:
        settings_hash: see `step_cache.settings_hash`; None in records of earlier versions.
        reads: the identity that each file of the run had when the step read it, by its path in the run's folder.
        identities: the identity of each output, for the steps that read it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    settings_hash: str | None = None
    reads: dict[str, str] = Field(default_factory=dict[str, str])
    identities: dict[str, str] = Field(default_factory=dict[str, str])


def read_origin(folder: Path) -> Origin | None:
    """Read the record of a step's folder; None if the step is not done, or if the record is damaged."""
    try:
        return Origin.model_validate(read_json(folder / STEP_RECORD))
    except (CaiError, ValidationError):
        return None


def current_steps(planned: Mapping[str, str | None], origins: Mapping[str, Origin]) -> set[str]:
    """Return the steps that are done with the current settings, from files of steps of which this is true too.

    Args:
        planned: the settings hash of each step of the run, in their order; None if run.json has none.
        origins: of the steps that are done.
    """
    found = set[str]()

    def is_unchanged(path: str, identity: str) -> bool:
        maker, _, file = path.partition("/")
        if maker not in planned:  # a file that the user keeps in the run's folder
            return True
        return maker in found and origins[maker].identities.get(file, identity) == identity

    for name, settings_hash in planned.items():
        origin = origins.get(name)
        # Without hashes, all that is known is that the step has ended.
        if origin is not None and (
            None in (settings_hash, origin.settings_hash)
            or (origin.settings_hash == settings_hash and all(is_unchanged(*read) for read in origin.reads.items()))
        ):
            found.add(name)
    return found
