# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of a run of the engine, which stages and evaluations share."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from nemo_aligner_cai.engine.progress import Prices
from nemo_aligner_cai.engine.seeds import LARGEST_SEED
from nemo_aligner_cai.engine.shards import Shard, find_journals
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.sections import Config, Source


def _shard(value: object) -> object:
    return Shard.parse(value) if isinstance(value, str) else value


ShardField = Annotated[Shard, BeforeValidator(_shard), PlainSerializer(str, return_type=str)]
"""A shard, or its text "K/N"."""


class RunSettings(Config):
    """The settings of a run. Only `seed` and `shard` affect its output.

    Attributes:
        seed: seed of everything that is drawn.
        shard: make only the calls of this shard, and write only the journal; None makes all calls.
        journal_from: other journals whose calls are reused: files, folders and patterns.
        no_calls: contact no server: every call must be in a journal. The run's own journal is read, too, if it exists.
        resume: continue from the existing journal, and replace existing outputs.
        overwrite: start again, and replace existing files.
        max_dropped: share of the prompts that faults may drop.
        price_read: price of a million prompt tokens.
        price_written: price of a million completion tokens.
        progress: show a progress bar or log lines.
        ask_for_models: compare the model that a server reports with the one that produced the journal's replies. Not
            needed for a server that the caller starts itself and whose model has a unique name.
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

    @property
    def replaces(self) -> bool:
        """True if existing outputs are replaced."""
        return self.resume or self.overwrite

    @property
    def prices(self) -> Prices | None:
        """The token prices; None if they are unknown."""
        prices = Prices(self.price_read, self.price_written)
        return prices if prices != Prices() else None

    def other_journals(self, own: PathLike) -> list[Path]:
        """Return the journals that `journal_from` names, without the run's own.

        Raises:
            UsageError: a name has no journal, or names the one that is about to be overwritten.
        """
        named = find_journals(self.journal_from)
        others = [path for path in named if path.resolve() != Path(own).resolve()]
        if self.overwrite and not self.no_calls and len(others) < len(named):
            raise UsageError(f"{own}: is read by --journal-from and deleted by --overwrite; give --resume")
        return others
