# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings that both data stages share."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate
from nemo_aligner_cai.data.prompt_files import Turns, read_prompts
from nemo_aligner_cai.engine.run_settings import RunSettings
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
        self,
        counts: RowCounts,
        *,
        template: ChatTemplate = NEMO_CHAT,
        first: int | None = None,
        replies: bool = True,
    ) -> Iterator[Prompt]:
        """Read the prompts, or only the `first` ones; prompts that contain tokens of `template` are rejected.

        Without `replies`, prompts with earlier replies of the assistant are skipped.
        """
        return read_prompts(
            self.path,
            counts=counts,
            turns=self.turns,
            limit=self.limit if first is None else first,
            column=self.column,
            template=template,
            system_message=self.system_message,
            replies=replies,
        )

    def count(self, *, replies: bool = True) -> int:
        """Return the number of prompts; raises UsageError if there are none or the file is invalid."""
        counts = RowCounts()
        count = sum(1 for _ in self.read(counts, replies=replies))
        if not count:
            raise UsageError(f"{self.path}: no usable prompt: {counts}")
        return count


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
