# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Which rows a trainer will use: exact token counts against each trainer's own limit.

What is too long is never an error at training time: SFT cuts it (with the end of the reply, so that the model never
learns to stop), the reward model skips it (and can run past the end of its data), PPO replaces it by another prompt
with its loss masked, DPO and KTO cut it to a stub. So it is left out before, and counted.

So is what ends the run: SFT, DPO and KTO stop at a row where the tokenizer merges the last letters of the header or
prompt with the first of what follows, as some Hugging Face tokenizers do with line ends.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from nemo_aligner_cai.conversation import NEMO_CHAT, NemoChatTemplate
from nemo_aligner_cai.data.formats import format_named, read_records
from nemo_aligner_cai.data.formats_nemo import sft_text
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Balance, PathLike, Row, read_jsonl, refuse_existing, write_jsonl

__all__ = ["LIMITS", "Tokenizer", "Use", "drop_long", "filter_file", "load_tokenizer", "predict_use", "texts_of"]

LIMITS: dict[str, Callable[[int], int]] = {
    # Tokens and labels are the ids without the last and without the first.
    "sft-chat": lambda seq_length: seq_length + 1,
    "dpo": lambda seq_length: seq_length + 1,
    "rm-comparisons": lambda seq_length: seq_length,
    "rm-regression": lambda seq_length: seq_length,
    "kto": lambda seq_length: seq_length,
    # Looks for its limit in a place of the configuration where it never is, and falls back to half the length.
    "ppo-prompts": lambda seq_length: seq_length // 2,
}
"""The most token ids that a text of the format may have, by the model's sequence length (NeMo-Aligner 0.7.0)."""

_BATCH = 512
_MERGED = "the tokenizer merges letters over the end of the prompt"


@dataclass
class Use:
    """What a trainer will do with a file; a record is a row, or the two rows of a comparison."""

    limit: int
    """The most token ids that a text may have."""
    records: int = 0
    tokens: int = 0
    """The ids of all texts together."""
    too_long: list[int] = field(default_factory=list[int])
    """The numbers of the records that are longer, from 1."""
    merged: list[int] = field(default_factory=list[int])
    """The numbers of the records at which the trainer stops, since the tokenizer merges over the end of the prompt."""
    lengths: Counter[int] = field(default_factory=Counter[int])
    """How many records have a longest text of so many ids."""

    @property
    def longest(self) -> int:
        """The ids of the longest text; 0 where there are no records."""
        return max(self.lengths, default=0)

    @property
    def used(self) -> int:
        """The records that the trainer uses as they are."""
        return self.records - len(self.left_out)

    @property
    def left_out(self) -> set[int]:
        """The numbers of the records that must not be in the file."""
        return {*self.too_long, *self.merged}

    def __str__(self) -> str:
        first = f", the first is record {self.too_long[0]}" if self.too_long else ""
        return (
            f"{self.used} of {self.records} records are used: {len(self.too_long)} are longer than {self.limit} tokens"
            f"{first}; the longest has {self.longest}"
        ) + (f"; the trainer stops at record {self.merged[0]}: {_MERGED}" if self.merged else "")


def texts_of(record: Record, format_name: str, template: NemoChatTemplate = NEMO_CHAT) -> tuple[str, ...]:
    """The texts that the trainer tokenizes for one record, of the format's kind."""
    if isinstance(record, Chat):
        return (sft_text(record, template),)
    rows = format_named(format_name).write(record, template)
    if format_name == "dpo":
        return tuple(rows[0]["prompt"] + rows[0][key] for key in ("chosen_response", "rejected_response"))
    if format_name == "kto":
        return (rows[0]["prompt"] + rows[0]["response"],)
    return tuple(row["text"] for row in rows)


def _limit(format_name: str, seq_length: int) -> int:
    if format_name not in LIMITS:
        raise UsageError(f"token limits are known for {', '.join(LIMITS)}, not for {format_name}")
    limit = LIMITS[format_name](seq_length)
    if limit < 1:
        raise UsageError(f"--seq-length must be at least 2, it is {seq_length}")
    return limit


@dataclass(frozen=True)
class _Measured:
    record: Record
    length: int
    """The ids of its longest text."""
    total: int
    merged: bool


def _measure(
    records: Iterable[Record], format_name: str, tokenizer: Tokenizer, template: NemoChatTemplate
) -> Iterator[_Measured]:
    # In batches that keep the tokenizer's threads busy.
    stream = iter(records)
    while batch := list(islice(stream, _BATCH)):
        texts = [texts_of(record, format_name, template) for record in batch]
        starts = [_start_of(record, format_name, template) for record in batch]
        encoded = iter(tokenizer.encode([text for group in texts for text in group]))
        started = tokenizer.encode(starts)
        for record, group, start in zip(batch, texts, started, strict=True):
            ids = list(islice(encoded, len(group)))
            lengths = [len(one) for one in ids]
            merged = any(one[: len(start)] != start for one in ids)
            yield _Measured(record, max(lengths), sum(lengths), merged)


def _start_of(record: Record, format_name: str, template: NemoChatTemplate) -> str:
    """The text whose ids the trainer wants to find at the start of the whole text's; "" where it does not look."""
    match record:
        case Chat():
            return template.segment_groups(record.conversation)[0][0].text
        case Comparison() | Rated() if format_name in ("dpo", "kto"):
            return template.generation_prompt(record.prompt)
        case _:
            return ""


def drop_long(
    records: Iterable[Record],
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    balance: Balance,
    template: NemoChatTemplate = NEMO_CHAT,
) -> Iterator[Record]:
    """The records that the format's trainer uses whole; a comparison goes or stays as one.

    Args:
        records: of the format's kind.
        format_name: one of `LIMITS`.
        tokenizer: the model's.
        seq_length: the model's.
        balance: receives the records read, those yielded as written, and those left out.
        template: the model's.

    Raises:
        UsageError: the format has no known limit, or the sequence length leaves no room.
    """
    limit = _limit(format_name, seq_length)
    for measured in _measure(records, format_name, tokenizer, template):
        balance.rows_in += 1
        if measured.length > limit:
            balance.leave_out(f"longer than {limit} tokens")
        elif measured.merged:
            balance.leave_out(_MERGED)
        else:
            balance.written += 1
            yield measured.record


def predict_use(
    path: PathLike,
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    template: NemoChatTemplate = NEMO_CHAT,
) -> Use:
    """Which records of a file the format's trainer will use.

    Raises:
        UsageError, FormatError: as `read_records` and `drop_long`.
    """
    use = Use(limit=_limit(format_name, seq_length))
    records = read_records(path, format_name, balance=Balance(), template=template)
    for number, measured in enumerate(_measure(records, format_name, tokenizer, template), start=1):
        use.records += 1
        use.tokens += measured.total
        use.lengths[measured.length] += 1
        if measured.length > use.limit:
            use.too_long.append(number)
        if measured.merged:
            use.merged.append(number)
    return use


def filter_file(
    source: PathLike,
    target: PathLike,
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    template: NemoChatTemplate = NEMO_CHAT,
    overwrite: bool = False,
) -> Use:
    """Copy the rows, as they are, of the records that the format's trainer uses whole.

    Returns:
        What was measured in `source`; `Use.left_out` are the records that `target` lacks.

    Raises:
        UsageError, FormatError: as `predict_use`, or the target exists.
    """
    refuse_existing(target, overwrite=overwrite)
    use = predict_use(source, format_name, tokenizer=tokenizer, seq_length=seq_length, template=template)
    group, left_out = format_named(format_name).group, use.left_out

    def kept() -> Iterator[Row]:
        for position, (_, row) in enumerate(read_jsonl(source)):
            if position // group + 1 not in left_out:
                yield row

    write_jsonl(target, kept(), overwrite=overwrite)
    return use
