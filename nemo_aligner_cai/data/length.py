# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Which rows a trainer will use: exact token counts against each trainer's own limit.

What is too long is never an error at training time: SFT cuts it (with the end of the reply, so that the model never
learns to stop), the reward model skips it (and can run past the end of its data), PPO replaces it by another prompt
with its loss masked, DPO and KTO cut it to a stub. So it is left out before, and counted.

So is what ends the run: SFT, DPO and KTO stop at a row where the tokenizer merges the last letters of the header or
prompt with the first of what follows, as some Hugging Face tokenizers do with line ends. SFT stops, too, where such
merges leave it nothing to learn of a short reply.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVar, cast

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate
from nemo_aligner_cai.data.formats.files import Group, format_named, read_groups, read_records
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat, Comparison, Rated, Record
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, write_jsonl
from nemo_aligner_cai.files.output_paths import check_output

__all__ = [
    "EMPTY_SYSTEM_MERGED",
    "LIMITS",
    "LengthReport",
    "Tokenizer",
    "drop_long",
    "filter_file",
    "limit_of",
    "load_tokenizer",
    "merges_empty_system",
    "predict_use",
    "texts_of",
]

Item = TypeVar("Item")

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
# Letters of a last turn that is learnt, for each turn of the conversation, that cannot all be hidden from SFT by its
# counting: seen are 1.5 tokens too many a turn, in conversations of tokens that merge. The count is slow, and most
# rows are longer.
_LONG_ENOUGH = 32
_MERGED = "the tokenizer merges letters over the end of the prompt or of a turn"
EMPTY_SYSTEM_MERGED = (
    "the tokenizer merges the line ends of an empty system turn, at which SFT stops; give a system message "
    "(--system-message)"
)
_SYSTEM_MERGED = "the tokenizer merges the end of the system message with what follows"
_NOTHING_LEARNT = "the tokenizer's merges leave no token to learn of the short reply"


@dataclass
class LengthReport:
    """What a trainer will do with a file; a record is a row, or the two rows of a comparison."""

    limit: int
    """The most token ids that a text may have."""
    records: int = 0
    tokens: int = 0
    """The ids of all texts together."""
    too_long: list[int] = field(default_factory=list[int])
    """The numbers of the records that are longer, from 1."""
    merged: dict[int, str] = field(default_factory=dict[int, str])
    """The numbers of the records at which the trainer stops, since the tokenizer merges letters over an end -> why."""
    lengths: Counter[int] = field(default_factory=Counter[int])
    """How many records have a longest text of so many ids."""
    pairs: bool = False
    """Whether it is the reward model that reads them: in place of a pair that is too long it takes the second after
    it, and so on, and stops where the file ends."""

    def add(self, length: int, tokens: int, merged: str | None) -> bool:
        """Count the next record; returns whether the trainer uses it as it is."""
        self.records += 1
        self.tokens += tokens
        self.lengths[length] += 1
        if length > self.limit:
            self.too_long.append(self.records)
        if merged is not None:
            self.merged[self.records] = merged
        return length <= self.limit and merged is None

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

    @property
    def counts(self) -> RowCounts:
        """Where the records go when those that the trainer does not use whole are left out."""
        counts = RowCounts(rows_in=self.records, written=self.used)
        if self.too_long:
            counts.skip(f"longer than {self.limit} tokens", len(self.too_long))
        for number in sorted(self.left_out - set(self.too_long)):
            counts.skip(self.merged[number])
        return counts

    @property
    def stops(self) -> list[int]:
        """The numbers of the records at which the trainer stops with an error."""
        if not self.pairs:
            return list(self.merged)
        too_long = set(self.too_long)
        # In the reward model's steps, from the file's end back.
        replaced: set[int] = set()
        for number in reversed(self.too_long):
            if number + 2 <= self.records and (number + 2 not in too_long or number + 2 in replaced):
                replaced.add(number)
        return [number for number in self.too_long if number not in replaced]

    def __str__(self) -> str:
        stops = self.stops
        why = "no pair that it could take instead follows" if self.pairs else next(iter(self.merged.values()), "")
        first = f", the first is record {self.too_long[0]}" if self.too_long else ""
        return (
            f"{self.used} of {self.records} records are used: {len(self.too_long)} are longer than {self.limit} tokens"
            f"{first}; the longest has {self.longest}"
        ) + (f"; the trainer stops at record {stops[0]}: {why}" if stops else "")


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


def limit_of(format_name: str, seq_length: int) -> int:
    """The most token ids that a text of a format may have; raises UsageError where it has no known limit, or none."""
    if format_name not in LIMITS:
        raise UsageError(f"token limits are known for {', '.join(LIMITS)}, not for {format_name}")
    limit = LIMITS[format_name](seq_length)
    if limit < 1:
        raise UsageError(f"--seq-length must be at least 2, it is {seq_length}")
    return limit


class _Measured(NamedTuple):
    length: int
    """The ids of its longest text."""
    total: int
    merged: str | None
    """Why the trainer stops at it."""


def _measure(
    items: Iterable[Item],
    record_of: Callable[[Item], Record],
    format_name: str,
    tokenizer: Tokenizer,
    template: NemoChatTemplate,
) -> Iterator[tuple[Item, _Measured]]:
    # In batches that keep the tokenizer's threads busy.
    stream = iter(items)
    while batch := list(islice(stream, _BATCH)):
        texts = [texts_of(record_of(item), format_name, template) for item in batch]
        starts = [_start_of(record_of(item), format_name, template) for item in batch]
        # Most rows of a file have the same header.
        different = list(dict.fromkeys(starts))
        encoded = iter(tokenizer.encode([*different, *(text for group in texts for text in group)]))
        started = dict(zip(different, encoded, strict=False))
        for item, group, start in zip(batch, texts, starts, strict=True):
            ids = list(islice(encoded, len(group)))
            lengths = [len(one) for one in ids]
            expected = started[start]
            merged = None
            if any(one[: len(expected)] != expected for one in ids):
                merged = _why_merged(record_of(item))
            elif _hides_all(record_of(item), tokenizer, template):
                merged = _NOTHING_LEARNT
            yield item, _Measured(max(lengths), sum(lengths), merged)


def _why_merged(record: Record) -> str:
    if not isinstance(record, Chat):
        return _MERGED
    return _SYSTEM_MERGED if record.conversation.system.strip() else EMPTY_SYSTEM_MERGED


def merges_empty_system(tokenizer: Tokenizer, template: NemoChatTemplate = NEMO_CHAT) -> bool:
    """Whether SFT stops at every row without a system message.

    By the rule of GPT-2 two line ends are one token at the end of a text, and two tokens before a "<".
    """
    header, whole = tokenizer.encode([template.render(Conversation(())), template.render(Conversation.of_user("Q"))])
    return whole[: len(header)] != header


def _hides_all(record: Record, tokenizer: Tokenizer, template: NemoChatTemplate) -> bool:
    """Whether SFT finds no token to learn, since it counts the tokens of each turn apart, where they may be more."""
    if not isinstance(record, Chat):
        return False
    turns = record.conversation.turns
    learnt = record.label_type is None and turns[-1].role.speaker not in record.mask
    if learnt and len(turns[-1].content) > _LONG_ENOUGH * len(turns):
        return False
    return not any(loss_mask(record, template, tokenizer).mask)


def _start_of(record: Record, format_name: str, template: NemoChatTemplate) -> str:
    """The text whose ids the trainer wants to find at the start of the whole text's; "" where it does not look."""
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
    """The items whose records the format's trainer uses whole; a comparison is kept or dropped as one.

    Args:
        items: records, or what `record_of` gets records from.
        format_name: one of `LIMITS`.
        tokenizer: the model's.
        seq_length: the model's.
        counts: receives the items read, those yielded as written, and those dropped.
        template: the model's.
        record_of: the record of an item, of the format's kind.

    Raises:
        UsageError: the format has no known limit, or the sequence length leaves no room.
    """
    limit = limit_of(format_name, seq_length)
    for item, measured in _measure(items, record_of, format_name, tokenizer, template):
        counts.rows_in += 1
        if measured.length > limit:
            counts.skip(f"longer than {limit} tokens")
        elif measured.merged is not None:
            counts.skip(measured.merged)
        else:
            counts.written += 1
            yield item


def _itself(record: Record) -> Record:
    return record


def predict_use(
    path: PathLike,
    format_name: str,
    *,
    tokenizer: Tokenizer,
    seq_length: int,
    template: NemoChatTemplate = NEMO_CHAT,
) -> LengthReport:
    """Which records of a file the format's trainer will use.

    Raises:
        UsageError, FormatError: as `read_records` and `drop_long`.
    """
    use = LengthReport(limit=limit_of(format_name, seq_length), pairs=format_name == "rm-comparisons")
    records = read_records(path, format_name, counts=RowCounts(), template=template)
    for _, measured in _measure(records, _itself, format_name, tokenizer, template):
        use.add(measured.length, measured.total, measured.merged)
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
) -> LengthReport:
    """Copy the rows, as they are, of the records that the format's trainer uses whole.

    Returns:
        What was measured in `source`; `LengthReport.left_out` are the records that `target` lacks.

    Raises:
        UsageError, FormatError: as `predict_use`, or the target exists.
    """
    check_output(target, overwrite=overwrite)
    use = LengthReport(limit=limit_of(format_name, seq_length), pairs=format_name == "rm-comparisons")
    groups = read_groups(source, format_name, counts=RowCounts(), template=template)

    def kept() -> Iterator[Row]:
        for group, measured in _measure(groups, _record_of, format_name, tokenizer, template):
            if use.add(measured.length, measured.total, measured.merged):
                yield from group.rows

    write_jsonl(target, kept(), overwrite=overwrite)
    return use


def _record_of(group: Group) -> Record:
    return group.record
