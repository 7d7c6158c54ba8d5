# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Length filter: exact token counts against each trainer's own limit.

A text that is too long is never an error at training time: SFT cuts it (and the end of the reply, so that the model
never learns to stop), the reward model skips it (and can run past the end of its data), PPO replaces it by another
prompt with its loss masked, DPO and KTO cut it to a stub. The filter drops and counts such rows before training.

It also drops rows that end the run: SFT, DPO and KTO stop at a row where the tokenizer merges the last letters of the
header or prompt with the first letters after it, as some Hugging Face tokenizers do with line ends. SFT also stops if
such merges leave no token of a short reply to learn.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVar, cast

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.data.formats.files import Group, read_groups
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, RowCounts, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output

Item = TypeVar("Item")

LIMITS: dict[str, Callable[[int], int]] = {
    # Inputs and labels are the ids without the last and without the first one.
    "sft-chat": lambda seq_length: seq_length + 1,
    "dpo": lambda seq_length: seq_length + 1,
    "rm-comparisons": lambda seq_length: seq_length,
    "rm-regression": lambda seq_length: seq_length,
    "kto": lambda seq_length: seq_length,
    # RLHFDataset looks for its limit under a key that the configuration never has, and falls back to half the length.
    "ppo-prompts": lambda seq_length: seq_length // 2,
}
"""Format -> the maximum number of token ids of a text for a sequence length (NeMo-Aligner 0.7.0)."""

_BATCH = 512
_LONG_ENOUGH = 32
"""Characters of a learned last turn, per turn of the conversation, from which on some token is always learned.

SFT's count per turn was seen to be up to 1.5 tokens too high. The exact check is slow, and most rows are longer.
"""
_MERGED = "the tokenizer merges letters over the end of the prompt or of a turn"
EMPTY_SYSTEM_MERGED = (
    "the tokenizer merges the line ends of an empty system turn, at which SFT stops; give a system message "
    "(--system-message)"
)
_SYSTEM_MERGED = "the tokenizer merges the end of the system message with what follows"
_NOTHING_LEARNED = "the tokenizer's merges leave no token to learn of the short reply"


class _Measurement(NamedTuple):
    longest: int
    """The token ids of the record's longest text."""
    total: int
    """The token ids of all its texts."""
    merged: str | None
    """The reason why the trainer stops at the record, None if it does not."""


@dataclass
class LengthReport:
    """A trainer's use of a file. A record is one row, or the two rows of a comparison. Records count from 1."""

    limit: int
    """The maximum number of token ids of a text."""
    records: int = 0
    tokens: int = 0
    """The token ids of all texts."""
    too_long: list[int] = field(default_factory=list[int])
    """The records above the limit."""
    merged: dict[int, str] = field(default_factory=dict[int, str])
    """Record at which the trainer stops because of merged tokens -> the reason."""
    lengths: Counter[int] = field(default_factory=Counter[int])
    """Token ids of the longest text -> number of records."""
    pairs: bool = False
    """True for the reward model, which replaces a pair that is too long by the second pair after it, and so on, and
    stops if the file ends before that."""

    def add(self, measurement: _Measurement) -> bool:
        """Count the next record. Returns True if the trainer uses all of it."""
        self.records += 1
        self.tokens += measurement.total
        self.lengths[measurement.longest] += 1
        if measurement.longest > self.limit:
            self.too_long.append(self.records)
        if measurement.merged is not None:
            self.merged[self.records] = measurement.merged
        return measurement.longest <= self.limit and measurement.merged is None

    @property
    def longest(self) -> int:
        """The token ids of the longest text, 0 without records."""
        return max(self.lengths, default=0)

    @property
    def used(self) -> int:
        """The number of records that the trainer uses completely."""
        return self.records - len(self.skipped)

    @property
    def skipped(self) -> set[int]:
        """The records that must not be in the file."""
        return {*self.too_long, *self.merged}

    @property
    def counts(self) -> RowCounts:
        """The row counts of a file without the skipped records."""
        counts = RowCounts(rows_in=self.records, written=self.used)
        if self.too_long:
            counts.skip(f"longer than {self.limit} tokens", len(self.too_long))
        for number in sorted(self.skipped - set(self.too_long)):
            counts.skip(self.merged[number])
        return counts

    @property
    def stops(self) -> list[int]:
        """The records at which the trainer stops with an error."""
        if not self.pairs:
            return list(self.merged)
        too_long = set(self.too_long)
        # The reward model's replacements, from the end of the file backward.
        replaced: set[int] = set()
        for number in reversed(self.too_long):
            if number + 2 <= self.records and (number + 2 not in too_long or number + 2 in replaced):
                replaced.add(number)
        return [number for number in self.too_long if number not in replaced]

    def __str__(self) -> str:
        stops = self.stops
        why = "no pair follows that could replace it" if self.pairs else next(iter(self.merged.values()), "")
        first = f", the first is record {self.too_long[0]}" if self.too_long else ""
        return (
            f"{self.used} of {self.records} records are used: {len(self.too_long)} are longer than {self.limit} tokens"
            f"{first}; the longest has {self.longest}"
        ) + (f"; the trainer stops at record {stops[0]}: {why}" if stops else "")


def texts_of(record: Record, format_name: str, template: NemoChatTemplate = NEMO_CHAT) -> tuple[str, ...]:
    """The texts that the trainer tokenizes for one record of the format's kind."""
    if isinstance(record, Chat):
        return (sft_text(record, template),)
    rows = format_named(format_name).write(record, template)
    if format_name == "dpo":
        return tuple(rows[0]["prompt"] + rows[0][key] for key in ("chosen_response", "rejected_response"))
    if format_name == "kto":
        return (rows[0]["prompt"] + rows[0]["response"],)
    return tuple(row["text"] for row in rows)


def limit_of(format_name: str, seq_length: int) -> int:
    """The maximum number of token ids of a text. Raises UsageError if it is unknown or less than 1."""
    if format_name not in LIMITS:
        raise UsageError(f"token limits are known for {', '.join(LIMITS)}, not for {format_name}")
    limit = LIMITS[format_name](seq_length)
    if limit < 1:
        raise UsageError(f"--seq-length must be at least 2, it is {seq_length}")
    return limit


def _measure(
    items: Iterable[Item],
    record_of: Callable[[Item], Record],
    format_name: str,
    tokenizer: Tokenizer,
    template: NemoChatTemplate,
) -> Iterator[tuple[Item, _Measurement]]:
    # Batches keep the tokenizer's threads busy.
    stream = iter(items)
    while batch := list(islice(stream, _BATCH)):
        texts = [texts_of(record_of(item), format_name, template) for item in batch]
        starts = [_start_of(record_of(item), format_name, template) for item in batch]
        # Most rows of a file have the same start.
        unique_starts = list(dict.fromkeys(starts))
        encoded = iter(tokenizer.encode([*unique_starts, *(text for group in texts for text in group)]))
        start_ids = dict(zip(unique_starts, encoded, strict=False))
        for item, group, start in zip(batch, texts, starts, strict=True):
            ids = list(islice(encoded, len(group)))
            lengths = [len(one) for one in ids]
            expected = start_ids[start]
            merged = None
            if any(one[: len(expected)] != expected for one in ids):
                merged = _merge_reason(record_of(item))
            elif _learns_nothing(record_of(item), tokenizer, template):
                merged = _NOTHING_LEARNED
            yield item, _Measurement(max(lengths), sum(lengths), merged)


def _merge_reason(record: Record) -> str:
    if not isinstance(record, Chat):
        return _MERGED
    return _SYSTEM_MERGED if record.conversation.system.strip() else EMPTY_SYSTEM_MERGED


def merges_empty_system(tokenizer: Tokenizer) -> bool:
    """True if SFT stops at every row without a system message.

    In GPT-2's tokenizer two line ends are one token at the end of a text, and two tokens before a "<".
    """
    header, whole = tokenizer.encode([NEMO_CHAT.render(Conversation(())), NEMO_CHAT.render(Conversation.of_user("Q"))])
    return whole[: len(header)] != header


def _learns_nothing(record: Record, tokenizer: Tokenizer, template: NemoChatTemplate) -> bool:
    """True if SFT masks all tokens. It counts the tokens of each turn separately, which may give more of them."""
    if not isinstance(record, Chat):
        return False
    turns = record.conversation.turns
    is_learned = record.label_type is None and turns[-1].role.speaker not in record.mask
    if is_learned and len(turns[-1].content) > _LONG_ENOUGH * len(turns):
        return False
    return not any(loss_mask(record, template, tokenizer).mask)


def _start_of(record: Record, format_name: str, template: NemoChatTemplate) -> str:
    """The text whose ids the trainer requires at the start of the complete text; "" if it does not check."""
    match record:
        case Chat():
            messages = record.conversation.messages
            return template.render(Conversation(messages[: len(messages) - len(record.conversation.turns)]))
        case Comparison() | Rated() if format_name in ("dpo", "kto"):
            return template.generation_prompt(record.prompt)
        case _:
            return ""


def drop_long(
    items: Iterable[Item],
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    counts: RowCounts,
    template: NemoChatTemplate = NEMO_CHAT,
    record_of: Callable[[Item], Record] = lambda item: cast(Record, item),
) -> Iterator[Item]:
    """Yield the items whose records the format's trainer uses completely.

    Args:
        items: Records, or items from which `record_of` gets records.
        format_name: One of `LIMITS`.
        tokenizer: The model's tokenizer.
        seq_length: The model's sequence length.
        counts: Receives the items read, those yielded as written, and those dropped.
        template: The model's chat template.
        record_of: Returns the record of an item, of the format's kind.

    Raises:
        UsageError: The format has no known limit, or the sequence length is too short.
    """
    limit = limit_of(format_name, seq_length)
    for item, measurement in _measure(items, record_of, format_name, tokenizer, template):
        counts.rows_in += 1
        if measurement.longest > limit:
            counts.skip(f"longer than {limit} tokens")
        elif measurement.merged is not None:
            counts.skip(measurement.merged)
        else:
            counts.written += 1
            yield item


def predict_use(
    path: PathLike,
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    template: NemoChatTemplate = NEMO_CHAT,
) -> LengthReport:
    """Predict which records of a file the format's trainer will use.

    Raises:
        UsageError, FormatError: As `read_groups` and `drop_long`.
    """
    report = _empty_report(format_name, seq_length)
    for _ in _used_groups(path, format_name, report, tokenizer, template):
        pass
    return report


def filter_file(
    source: PathLike,
    target: PathLike,
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    overwrite: bool = False,
) -> LengthReport:
    """Copy the rows of the records that the format's trainer uses completely, unchanged.

    Returns:
        The report on `source`. Its `skipped` are the records that `target` lacks.

    Raises:
        UsageError, FormatError: As `predict_use`, or the target exists.
    """
    check_output(target, overwrite=overwrite)
    report = _empty_report(format_name, seq_length)
    groups = _used_groups(source, format_name, report, tokenizer, NEMO_CHAT)
    write_jsonl(target, (row for group in groups for row in group.rows), overwrite=overwrite)
    return report


def _empty_report(format_name: str, seq_length: int) -> LengthReport:
    return LengthReport(limit=limit_of(format_name, seq_length), pairs=format_name == "rm-comparisons")


def _used_groups(
    source: PathLike, format_name: str, report: LengthReport, tokenizer: Tokenizer, template: NemoChatTemplate
) -> Iterator[Group]:
    """Yield the groups that the trainer uses completely, and report on all."""
    groups = read_groups(source, format_name, counts=RowCounts(), template=template)
    for group, measurement in _measure(groups, lambda group: group.record, format_name, tokenizer, template):
        if report.add(measurement):
            yield group
