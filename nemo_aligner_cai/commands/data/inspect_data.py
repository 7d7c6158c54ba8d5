# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai inspect FILE`: statistics of a data file, and its first records as the trainer sees them."""

import argparse
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from typing import Any

from rich.console import Console
from rich.text import Text

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, NemoChatTemplate, Role
from nemo_aligner_cai.commands.common.flag_types import Number
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.data.formats.all_formats import detect_format
from nemo_aligner_cai.data.formats.files import read_records
from nemo_aligner_cai.data.records import (
    ATTRIBUTES,
    MASKED_SCORE,
    Chat,
    Comparison,
    PromptOnly,
    Rated,
    Record,
    Scored,
    conversations_of,
    record_id,
    record_prompt_id,
)
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.files.compact_sets import CompactSet

_BATCH = 512
_BUCKETS = 10
_BAR = 40
"""Characters of the longest bar."""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai inspect`."""
    parser.examples = ("cai inspect sl_cai.jsonl", "cai inspect hf://datasets/Anthropic/hh-rlhf/helpful-base --rows 5")
    parser.add_argument("file", metavar="FILE", help="a file, a folder, or a data set as hf://datasets/OWNER/NAME")
    parser.add_argument("--as", dest="format", metavar="FORMAT", help="the format of the file (default: detected)")
    parser.add_argument("--split", help="split of a folder or data set (default: train, or the only one)")
    parser.add_argument("--tokenizer", help="tokenizer for lengths in tokens (default: in characters)")
    parser.add_argument("--rows", type=Number(int, 0), default=2, help="number of records to render")


@dataclass
class Statistics:
    """Counts over the records of a file.

    Attributes:
        labels: records by verdict, by the data set's label, or by attributes that have a score.
        chosen_longer: comparisons by whether the chosen reply has more characters than the rejected one.
        lengths: records by the length of their longest text, in tokens or characters.
    """

    records: int = 0
    turns: Counter[int] = field(default_factory=Counter[int])
    datasets: Counter[str] = field(default_factory=Counter[str])
    labels: Counter[str] = field(default_factory=Counter[str])
    chosen_longer: Counter[bool] = field(default_factory=Counter[bool])
    lengths: Counter[int] = field(default_factory=Counter[int])
    prompts: CompactSet = field(default_factory=CompactSet)
    distinct: CompactSet = field(default_factory=CompactSet)

    def add(self, record: Record, length: int) -> None:
        """Count a record."""
        self.records += 1
        self.lengths[length] += 1
        first, *_ = conversations_of(record)
        self.turns[len(first.turns)] += 1
        self.datasets[record.dataset or "(no origin)"] += 1
        self.prompts.add(int(record_prompt_id(record), 16))
        self.distinct.add(int(record_id(record), 16))
        match record:
            case Rated():
                self.labels["good" if record.good else "bad"] += 1
            case PromptOnly(label=str(label)):
                self.labels[label] += 1
            case Scored():
                known = zip(ATTRIBUTES, record.scores, strict=True)
                self.labels.update(name for name, score in known if score != MASKED_SCORE)
            case Comparison():
                self.chosen_longer[len(record.chosen) > len(record.rejected)] += 1
            case _:
                pass


def collect(records: Iterable[Record], tokenizer: Tokenizer | None = None) -> Statistics:
    """Count over all records; lengths are those of the rendered texts."""
    statistics = Statistics()
    stream = iter(records)
    while batch := list(islice(stream, _BATCH)):
        texts = [
            [_render(conversation, _template_of(record)) for conversation in conversations_of(record)]
            for record in batch
        ]
        flat = [text for group in texts for text in group]
        lengths = iter([len(ids) for ids in tokenizer.encode(flat)] if tokenizer else [len(text) for text in flat])
        for record, group in zip(batch, texts, strict=True):
            statistics.add(record, max(islice(lengths, len(group))))
    return statistics


def _template_of(record: Record) -> NemoChatTemplate:
    return replace(NEMO_CHAT, label_type=record.label_type) if isinstance(record, Chat) else NEMO_CHAT


def _is_prompt(conversation: Conversation) -> bool:
    return bool(conversation.turns) and conversation.turns[-1].role is Role.USER


def _render(conversation: Conversation, template: NemoChatTemplate) -> str:
    """Render a prompt for PPO, or a whole conversation for SFT."""
    return template.generation_prompt(conversation) if _is_prompt(conversation) else template.render(conversation)


def colored(conversation: Conversation, template: NemoChatTemplate) -> Text:
    """Render a conversation with the text that SFT trains on in green, the rest dim, and visible line ends."""
    if _is_prompt(conversation):
        return Text(_visible(template.generation_prompt(conversation)), style="dim")
    return Text.assemble(
        *(
            (_visible(segment.text), "green" if segment.trained else "dim")
            for segment in template.segments(conversation)
        )
    )


def _visible(text: str) -> str:
    return printable(text, keep="\n\t").replace("\n", "⏎\n")


def histogram(lengths: Counter[int]) -> list[tuple[str, int]]:
    """Return ("from-to", records) for up to ten equal steps from the shortest to the longest."""
    low, high = min(lengths), max(lengths)
    step = math.ceil((high - low + 1) / _BUCKETS)
    counts = Counter((length - low) // step for length in lengths.elements())
    return [
        (f"{low + index * step}-{low + (index + 1) * step - 1}", counts[index])
        for index in range((high - low) // step + 1)
    ]


def run(args: argparse.Namespace) -> int:
    """Show the statistics and the first records."""
    console = open_console()
    name = args.format or detect_format(args.file, split=args.split)
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    counts = RowCounts()
    statistics = collect(read_records(args.file, name, counts=counts, split=args.split), tokenizer)
    counts.require_written(args.file)
    console.print(f"{args.file}: {name}")
    console.print(table_of(("", ""), _summary(counts, statistics)))
    _print_histogram(console, statistics.lengths, "tokens" if tokenizer else "characters")
    records = read_records(args.file, name, counts=RowCounts(), split=args.split)
    for number, record in enumerate(islice(records, args.rows), start=1):
        for title, conversation in zip(("", " (rejected)"), conversations_of(record), strict=False):
            console.rule(f"record {number}{title}", align="left", style="dim")
            console.print(colored(conversation, _template_of(record)), soft_wrap=True)
    return 0


def _summary(counts: RowCounts, statistics: Statistics) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("rows", str(counts)),
        ("records", statistics.records),
        ("different prompts", len(statistics.prompts)),
        ("repeated records", statistics.records - len(statistics.distinct)),
        ("turns", _counts(statistics.turns)),
        ("origins", _counts(statistics.datasets)),
    ]
    if statistics.labels:
        rows.append(("labels", _counts(statistics.labels)))
    if pairs := statistics.chosen_longer.total():
        rows.append(("chosen is longer", f"{statistics.chosen_longer[True]} of {pairs}"))
    return rows


def _counts(counter: Counter[Any]) -> str:
    return ", ".join(f"{key}: {count}" for key, count in sorted(counter.items()))


def _print_histogram(console: Console, lengths: Counter[int], unit: str) -> None:
    rows = histogram(lengths)
    most = max(count for _, count in rows)
    width = max(len(label) for label, _ in rows)
    for label, count in rows:
        console.print(f"{label:>{width}} {unit}  {'█' * round(_BAR * count / most)} {count}")
    shares = ((50, "half"), (95, "95 %"), (100, "all"))
    console.print(", ".join(f"{name} up to {percentile(lengths, share)}" for share, name in shares))


def percentile(lengths: Counter[int], share: int) -> int:
    """Return the length that `share` percent of the records do not exceed."""
    ordered = sorted(lengths)
    counts = accumulate(lengths[length] for length in ordered)
    return next(
        length for length, count in zip(ordered, counts, strict=True) if 100 * count >= share * lengths.total()
    )
