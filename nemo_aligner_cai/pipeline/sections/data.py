# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The input data of a run: files, folders or data sets on the hub, or the tiny world's.

data:
  red_team: {hf: Anthropic/hh-rlhf/red-team-attempts, turns: first, limit: 1000}
  helpful_sft: {path: ultrachat.jsonl}
  helpful_preferences: {path: s3://bucket/hh-rlhf, subsets: [helpful-base]}
  max_prompt_tokens: 512
  sl_share: 0.5
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from nemo_aligner_cai.data.anthropic_hh import SUBSETS
from nemo_aligner_cai.data.prompt_files import Turns
from nemo_aligner_cai.files.reading import is_object
from nemo_aligner_cai.files.sources import HUB
from nemo_aligner_cai.sections import Section, Source

HH = "anthropic-hh"
_TINY = "tiny"
_SHORT = ("red_team_turns", "red_team_limit")
HELPFUL_SUBSETS = tuple(name for name in SUBSETS if name.startswith("helpful"))


class TinyData(Section):
    """Rows of each file of the tiny world; see ``tiny/data.py``."""

    red_team: int = Field(gt=0)
    helpful_sft: int = Field(gt=0)
    helpful_train: int = Field(gt=0)
    helpful_test: int = Field(gt=0)
    measure: int = Field(gt=0)
    measured_split: Literal["test", "validation"]


class DataSource(Section):
    """A file or folder, or the URL of one in an object store, or a data set on the hub; see `files.sources`."""

    path: Source | None = None
    hf: str | None = Field(default=None, pattern=r"^[^/\s]+/[^\s]+$")

    @model_validator(mode="after")
    def _one(self) -> DataSource:
        if (self.path is None) == (self.hf is None):
            raise ValueError("give path, of a file or folder, or hf, a data set on the hub: OWNER/NAME")
        return self

    @property
    def is_object(self) -> bool:
        """True if the path is the URL of an object store."""
        return self.path is not None and is_object(self.path)

    @property
    def source(self) -> Source:
        """The path, or the hub's address."""
        return self.path if self.path is not None else f"{HUB}{self.hf}"


class RedTeam(DataSource):
    """Red-team prompts: Anthropic's red-team attempts or HH, or any known format of prompts.

    Attributes:
        turns: the first user turn, or the conversation up to its last user turn.
        limit: read at most this many prompts.
        column: the column with the prompts; None to detect it.
        system_message: of all prompts and conversations of the run that have none, the helpful ones too.
    """

    turns: Turns = "first"
    limit: int | None = Field(default=None, gt=0)
    column: str | None = None
    system_message: str = ""


class HelpfulSft(DataSource):
    """Helpful conversations that SFT also learns from.

    Attributes:
        format: one of `cai components formats`; None to detect it.
    """

    format: str | None = None


class HelpfulPreferences(DataSource):
    """Human preferences between helpful replies, with files of the splits train and test.

    Attributes:
        format: a format of comparisons; HH's subsets are read only with anthropic-hh.
        subsets: folders of HH.
    """

    format: str = HH
    subsets: tuple[str, ...] = HELPFUL_SUBSETS


def _long_form(value: object) -> object:
    if value == _TINY:
        return None
    return {"path": cast(object, value)} if isinstance(value, str | os.PathLike) else value


class Data(Section):
    """Input data; what is null or `tiny` is the tiny world's, in the sizes of `tiny`.

    `red_team_turns` and `red_team_limit` are short forms of `turns` and `limit` of a red-team file given by its path.
    """

    tiny: TinyData | None = None
    red_team: Annotated[RedTeam | None, BeforeValidator(_long_form)] = None
    red_team_turns: Turns | None = None
    red_team_limit: int | None = Field(default=None, gt=0)
    helpful_sft: Annotated[HelpfulSft | None, BeforeValidator(_long_form)] = None
    helpful_preferences: Annotated[HelpfulPreferences | None, BeforeValidator(_long_form)] = None
    max_prompt_tokens: int = Field(gt=0)  # longer red-team prompts are skipped and counted
    sl_share: float = Field(gt=0, lt=1)  # of the red-team prompts; RL-CAI gets the others

    @property
    def sources(self) -> dict[str, DataSource]:
        """The sources that are not the tiny world's, by key."""
        given = {
            "red_team": self.red_team,
            "helpful_sft": self.helpful_sft,
            "helpful_preferences": self.helpful_preferences,
        }
        return {name: source for name, source in given.items() if source is not None}

    @property
    def system_message(self) -> str:
        """The system message of all training data of the run; empty for none."""
        return self.red_team.system_message if self.red_team else ""

    @property
    def files(self) -> list[Path]:
        """The files and folders of `sources` on this machine."""
        given = [source for source in self.sources.values() if not source.is_object]
        return [Path(source.path) for source in given if source.path is not None]

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        given = dict(cast(Mapping[str, Any], value))
        red_team, short = (
            _long_form(given.get("red_team")),
            {name.removeprefix("red_team_"): given[name] for name in _SHORT if given.get(name) is not None},
        )
        if isinstance(red_team, dict):
            given["red_team"] = short | cast(dict[str, Any], red_team)
        return given

    @model_validator(mode="after")
    def _check_tiny(self) -> Data:
        missing = {"red_team", "helpful_sft", "helpful_preferences"} - self.sources.keys()
        if self.tiny is None and missing:
            raise ValueError(f"give {', '.join(sorted(missing))}, or tiny with the sizes of the tiny world's files")
        return self
