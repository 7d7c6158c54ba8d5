# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings that both data stages share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate
from nemo_aligner_cai.data.prompt_files import Turns, read_prompts
from nemo_aligner_cai.engine.progress import Prices
from nemo_aligner_cai.engine.run_stage import RunOptions
from nemo_aligner_cai.engine.seeds import LARGEST_SEED
from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.models.base import Sampling
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.sections import Config, Source

BlendPosition = Literal["first", "last"]
"""Position of a stage's own file among the files of a blend, which determines the order of the blended rows."""


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
        """Read the prompts, or only the `first` ones; prompts that contain tokens of `template` are rejected."""
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
        """Return the number of prompts; raises UsageError if there are none or the file is invalid."""
        counts = RowCounts()
        count = sum(1 for _ in self.read(counts))
        if not count:
            raise UsageError(f"{self.path}: no usable prompt: {counts}")
        return count


def _shard(value: object) -> object:
    return Shard.parse(value) if isinstance(value, str) else value


ShardField = Annotated[Shard, BeforeValidator(_shard), PlainSerializer(str, return_type=str)]
"""A shard, or its text "K/N"."""


class RunSettings(Config):
    """The options of a run; see `engine.run_stage.RunOptions`. Prices are per million tokens.

    `journal_from` names journals whose calls are reused: files, folders and patterns (`engine.shards.find_journals`).
    """

    seed: int = Field(default=1234, ge=0, le=LARGEST_SEED)
    shard: ShardField | None = None
    journal_from: tuple[Source, ...] = ()
    no_calls: bool = False
    resume: bool = False
    overwrite: bool = False
    max_dropped: float = Field(default=0.01, ge=0, le=1)
    price_read: float = Field(default=0.0, ge=0)
    price_written: float = Field(default=0.0, ge=0)
    progress: bool = False
    ask_for_models: bool = True

    @model_validator(mode="after")
    def _check_exclusive(self) -> "RunSettings":
        if self.resume and self.overwrite:
            raise UsageError("--resume continues a run and --overwrite starts again: give one of them")
        if self.shard is not None and self.no_calls:
            raise UsageError("--shard makes a shard's calls and --no-calls makes none: give one of them")
        return self

    def options(self, total: int, sources: Sequence[Path] = ()) -> RunOptions:
        """Return the options of a run with `total` prompts; `sources` are the journals that `journal_from` names."""
        prices = Prices(self.price_read, self.price_written)
        return RunOptions(
            seed=self.seed,
            shard=self.shard,
            sources=tuple(sources),
            no_calls=self.no_calls,
            resume=self.resume,
            overwrite=self.overwrite,
            progress=self.progress,
            total=total,
            prices=prices if prices != Prices() else None,
            ask_for_models=self.ask_for_models,
        )


class StageConfig(Config):
    """The settings that both stages share.

    Attributes:
        prompts: the red-team prompts.
        sampling: parameters of the replies.
        run: seed, shard, resume, overwrite and others.
        record: the settings as the manifest records them; None records this configuration.
    """

    prompts: PromptSource
    sampling: Sampling = Sampling()
    run: RunSettings = RunSettings()
    record: dict[str, Any] | None = Field(default=None, exclude=True)
