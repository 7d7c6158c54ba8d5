# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The formats that are not JSON lines: verl's parquet and inverse-cai's CSV."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import NemoChatTemplate
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.base import Format, metadata_keys
from nemo_aligner_cai.data.formats.fields import PROMPT, QUESTION, TEXT, Field, FieldFormat
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Comparison, PromptOnly, Record
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row, content_hash

_REWARDS = ("chosen_reward", "rejected_reward")


class Verl(Format):
    """Prompts for verl. verl chooses the reward by the data source, so the key is required, but may be empty."""

    name = "verl"
    description = "verl PPO and GRPO (parquet): data source, prompt messages, reward model"
    kind = PromptOnly
    suffix = ".parquet"
    keys = frozenset({"data_source", "prompt", "extra_info"})
    columns: ClassVar[Mapping[str, Any]] = {
        "data_source": str,
        "prompt": [{"role": str, "content": str}],
        "ability": str,
        "reward_model": {"style": str, "ground_truth": str},
        "extra_info": {"label": str},
    }

    def matches(self, row: Row) -> bool:
        return "data_source" in row and isinstance(row.get("prompt"), list)

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> PromptOnly:
        row = rows[0]
        information: object = row.get("extra_info")
        label = row_values.optional_text(cast(Row, information), "label") if isinstance(information, dict) else None
        return PromptOnly(PROMPT.read(row, "prompt"), row_values.text(row, "data_source") or None, label)

    def write(self, record: PromptOnly, template: NemoChatTemplate) -> tuple[Row, ...]:
        row: Row = {
            "data_source": record.dataset or "",
            "prompt": PROMPT.write(record.prompt),
            "ability": "alignment",
            "reward_model": {"style": "model", "ground_truth": ""},
            "extra_info": {"label": record.label},
        }
        return (row,)


class InverseCai(FieldFormat):
    """Comparisons from which inverse-cai infers principles.

    A hash of the texts decides which one is `text_a`, because a judge may prefer a position. Empty texts are refused,
    because CSV does not distinguish them from missing ones.
    """

    name = "inverse-cai"
    description = "inverse-cai (CSV): input, text_a, text_b and which of them is preferred"
    kind = Comparison
    lenient = True
    suffix = ".csv"
    fields = (
        Field("input", QUESTION, "prompt"),
        Field("preferred_text", TEXT),
        Field("text_a", TEXT),
        Field("text_b", TEXT),
    )
    columns: ClassVar[Mapping[str, Any]] = {
        **{field.key: str for field in fields},
        "dataset": str,
        **dict.fromkeys(_REWARDS, float),
    }

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Record:
        row = rows[0]
        # All cells are strings.
        numbers = {key: _number(row, key) for key in row.keys() & (metadata_keys(self.kind) - {"dataset"})}
        return super().read([{**row, **numbers}], template)

    def write(self, record: Comparison, template: NemoChatTemplate) -> tuple[Row, ...]:
        (row,) = super().write(record, template)
        if any(isinstance(value, str) and (not value or "\0" in value) for value in row.values()):
            raise UsageError(f"{self.name} cannot hold this record: a text is empty or has a NUL character")
        return (row,)

    def record(self, parts: dict[str, Any]) -> Record:
        preferred, *texts = (parts.pop(key) for key in ("preferred_text", "text_a", "text_b"))
        if preferred not in ("text_a", "text_b"):
            raise RowError("preferred_text", f"must be 'text_a' or 'text_b', it is {preferred!r}")
        chosen, rejected = texts if preferred == "text_a" else texts[::-1]
        return super().record({**parts, "chosen": chosen, "rejected": rejected})

    def parts(self, record: Comparison) -> Mapping[str, Any]:
        texts = (record.chosen, record.rejected)
        if int(content_hash([record.prompt.to_messages(), *texts]), 16) % 2:
            return {**vars(record), "preferred_text": "text_b", "text_a": texts[1], "text_b": texts[0]}
        return {**vars(record), "preferred_text": "text_a", "text_a": texts[0], "text_b": texts[1]}


def _number(row: Row, key: str) -> float | None:
    value: Any = row.get(key)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise RowError(key, f"must be a number, it is {value!r}") from None
    return row_values.optional_number({key: value}, key)
