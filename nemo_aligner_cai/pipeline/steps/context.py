# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The state that the steps of a run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import MODEL, SFT, Layout
from nemo_aligner_cai.pipeline.serving.clients import Clients
from nemo_aligner_cai.pipeline.serving.model_files import ModelFiles

Calls = Shard | Literal["all", "none"]
"""The calls that a process makes for a data stage: those of one shard; all; or none, to merge the shards' journals."""


@dataclass(frozen=True)
class RunContext:
    """A run's configuration, and where its files and models are.

    Attributes:
        config: the run's.
        layout: of its folder.
        files: of its models.
        clients: of its models.
        calls: of this process, in the data stages.
    """

    config: RunConfig
    layout: Layout
    files: ModelFiles
    clients: Clients
    calls: Calls = "all"

    @property
    def sl_cai_model(self) -> Path:
        """The model that the trainers after SFT start from."""
        return self.layout.file(SFT, MODEL)

    def settings(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that determine a step's result: the run's seed and a section."""
        return {"seed": self.config.seed, **section}
