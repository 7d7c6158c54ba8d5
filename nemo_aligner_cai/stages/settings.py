# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The sections that both data stages have: where prompts come from, and how a run is driven."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate
from nemo_aligner_cai.data.prompt_files import Turns, read_prompts
from nemo_aligner_cai.engine.progress import Prices
from nemo_aligner_cai.engine.seeds import LARGEST_SEED
from nemo_aligner_cai.engine.stage import RunOptions
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.sections import Config, Source

Own = Literal["first", "last"]
"""Where a stage's own file stands among those that it is blended with, which decides the order of the blend."""


class PromptSource(Config):
    """A file, a folder or a data set on the hub; see `data.prompt_files.read_prompts`."""

    path: Source
    turns: Turns = "first"
    limit: int | None = Field(default=None, gt=0)
    column: str | None = None
    system_message: str = ""

    def read(
        self, counts: RowCounts, *, template: ChatTemplate = NEMO_CHAT, first: int | None = None
    ) -> Iterator[Prompt]:
        """The prompts, or the `first` ones; `template` is the one whose tokens must not be in a prompt."""
        return read_prompts(
            self.path,
            counts=counts,
            turns=self.turns,
            limit=self.limit if first is None else first,
            column=self.column,
            template=template,
            system_message=self.system_message,
        )

    def count(self) -> int:
        """The number of prompts; raises UsageError where there are none, or for what is wrong in the file."""
        counts = RowCounts()
        count = sum(1 for _ in self.read(counts))
        if not count:
            raise UsageError(f"{self.path}: no usable prompt: {counts}")
        return count


class RunSettings(Config):
    """How a stage is driven; see `generate.stage.RunOptions`. Prices are of a million tokens."""

    seed: int = Field(default=1234, ge=0, le=LARGEST_SEED)
    resume: bool = False
    overwrite: bool = False
    max_dropped: float = Field(default=0.01, ge=0, le=1)
    price_read: float = Field(default=0.0, ge=0)
    price_written: float = Field(default=0.0, ge=0)
    progress: bool = False
    ask_for_models: bool = True

    @model_validator(mode="after")
    def _one_of(self) -> "RunSettings":
        if self.resume and self.overwrite:
            raise UsageError("--resume goes on and --overwrite starts anew: give one of them")
        return self

    def options(self, total: int) -> RunOptions:
        """The options of a run on so many prompts."""
        prices = Prices(self.price_read, self.price_written)
        return RunOptions(
            seed=self.seed,
            resume=self.resume,
            overwrite=self.overwrite,
            total=total,
            prices=prices if prices != Prices() else None,
            progress=self.progress,
            ask_for_models=self.ask_for_models,
        )
