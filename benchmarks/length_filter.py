# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""CPU time of the exact length filter of SFT dialogs, as a multiple of one pass of SentencePiece over the same texts.

Each size is one fresh process: `filter_file` at each sequence length, then the pass, which gives the same texts to the
tokenizer's own library in the same batches. CPU time is user and system time of that process, memory its peak (VmHWM)
before the pass. The rows that are kept are compared with the lengths and first ids that the pass counted, row by row.

Dialogs are made up: 2.7 exchanges and 1,100 bytes on average, of a vocabulary of 5,000 words, some of them not ASCII;
or those of Anthropic's HH, repeated (`--source`). The tokenizer is trained on the first ones: BPE with byte fallback.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from benchmarks.memory import process_figure
from benchmarks.table import Figure, show
from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.files import read_records, write_records
from nemo_aligner_cai.data.length import filter_file
from nemo_aligner_cai.data.length_report import UseReport
from nemo_aligner_cai.data.records import Chat, to_kind
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.files import RowCounts

BARS, GROWTH, ROWS = {1024: 1.2, 4096: 0.5}, 0.1, 200_000
_TINY = Path(__file__).parent.parent / "nemo_aligner_cai" / "tiny" / "tokenizer.model"
_PIECES, _TRAINED_ON, _BATCH = 6000, 10_000, 512


def made_up() -> Iterator[Chat]:
    """The same dialogs every time."""
    random_ = random.Random(1)
    syllables = [first + last for first in "bdfgklmnprst" for last in ("a", "e", "i", "o", "u", "\u00e9")]
    vocabulary = ["".join(random_.choices(syllables, k=random_.randint(1, 3))) for _ in range(5000)]

    def words(most: int) -> str:
        return " ".join(random_.choices(vocabulary, k=random_.randint(3, most)))

    while True:
        conversation = Conversation.of_user(f"{words(30)}?")
        for _ in range(int(random_.expovariate(1 / 2.2))):
            conversation = conversation.with_turn(Role.ASSISTANT, f"{words(100)}.").with_turn(Role.USER, words(30))
        yield Chat(conversation.with_turn(Role.ASSISTANT, f"{words(100)}."), "made-up")


def published(source: str) -> Iterator[Chat]:
    """The chosen dialogs of a preference data set, over and over."""
    records = read_records(source, counts=RowCounts())
    return cycle([chat for record in records for chat in to_kind(record, Chat) if isinstance(chat, Chat)])


def train_tokenizer(path: Path, source: Path, pieces: int) -> str:
    """Train a tokenizer of the kind of Llama 2's on the first dialogs, with the template's tokens."""
    from sentencepiece import SentencePieceTrainer

    records = islice(read_records(source, "sft-chat", counts=RowCounts()), _TRAINED_ON)
    lines = (turn.content for one in records if isinstance(one, Chat) for turn in one.conversation.turns)
    with path.open("wb") as model:
        SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="bpe",
            vocab_size=pieces,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"],
            minloglevel=2,
        )
    return str(path)


def run_here(source: Path, tokenizer_file: str, seq_lengths: list[int]) -> dict[str, float]:
    """One run in this process."""
    found, reports = dict[str, float](), dict[int, UseReport]()
    for seq_length in seq_lengths:
        tokenizer, started = load_tokenizer(tokenizer_file), _cpu_seconds()
        target = source.with_name("kept.jsonl")
        report = filter_file(
            source, target, "sft-chat", kind=UseReport, tokenizer=tokenizer, seq_length=seq_length, overwrite=True
        )
        found |= {f"filter {seq_length}": _cpu_seconds() - started, f"kept {seq_length}": report.used}
        reports[seq_length] = report
    found |= {"megabytes": process_figure("status", "VmHWM") * 1024 / 1e6, "bytes": source.stat().st_size}
    seconds, lengths, merged = one_pass(source, tokenizer_file)
    for seq_length, report in reports.items():
        expected = merged | {number for number, length in enumerate(lengths, start=1) if length > report.limit}
        found[f"wrong {seq_length}"] = len(expected ^ report.skipped)
    return found | {"pass": seconds, "tokens": sum(lengths)}


def one_pass(source: Path, tokenizer_file: str) -> tuple[float, list[int], set[int]]:
    """The library's CPU seconds, the ids of each text, and the dialogs whose ids do not start with their header's."""
    from sentencepiece import SentencePieceProcessor

    processor, seconds, lengths, merged = (
        SentencePieceProcessor(model_file=tokenizer_file),
        0.0,
        list[int](),
        set[int](),
    )
    header = processor.encode(NEMO_CHAT.render(Conversation(())))
    records = read_records(source, "sft-chat", counts=RowCounts())
    while texts := [NEMO_CHAT.render(one.conversation) for one in islice(records, _BATCH) if isinstance(one, Chat)]:
        started = _cpu_seconds()
        encoded = processor.encode(texts)
        seconds += _cpu_seconds() - started
        for ids in encoded:
            lengths.append(len(ids))
            if ids[: len(header)] != header:
                merged.add(len(lengths))
    return seconds, lengths, merged


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run_apart(source: Path, tokenizer_file: str, seq_lengths: list[int]) -> dict[str, float]:
    """One run in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.length_filter", "--here", str(source)]
    command += ["--tokenizer", tokenizer_file, "--seq-length", *map(str, seq_lengths)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def figures_of(name: str, rows: int, found: dict[str, float], seq_lengths: list[int], *, bars: bool) -> list[Figure]:
    """The figures of one run."""
    figures = [
        Figure(
            f"{name}: one pass over {rows:,} dialogs, {found['bytes'] / 1e6:.0f} MB",
            f"{found['pass']:.1f} s CPU, {found['tokens'] / rows:.0f} tokens each",
        )
    ]
    for seq_length in seq_lengths:
        ratio, wrong = found[f"filter {seq_length}"] / found["pass"], int(found[f"wrong {seq_length}"])
        bar = BARS.get(seq_length) if bars else None
        figures += [
            Figure(
                f"{name}: filter at {seq_length:,}, {found[f'kept {seq_length}']:,.0f} kept",
                f"{found[f'filter {seq_length}']:.1f} s, {ratio:.2f} passes",
                "" if bar is None else f"<= {bar}",
                bar is None or ratio <= bar,
            ),
            Figure(f"{name}: rows that the pass judges otherwise", str(wrong), "0", not wrong),
        ]
    return figures


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.length_filter", description="SFT dialogs by their exact number of tokens."
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[ROWS // 10, ROWS], help="sizes, the bars are the last's"
    )
    parser.add_argument("--source", help="a preference data set (default: made-up dialogs)")
    parser.add_argument("--tokenizer", help="a SentencePiece .model (default: trained on the first dialogs)")
    parser.add_argument("--pieces", type=int, default=_PIECES, help="size of the vocabulary that is trained")
    parser.add_argument("--seq-length", type=int, nargs="+", default=list(BARS))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        sys.stdout.write(json.dumps(run_here(Path(args.here), args.tokenizer, args.seq_length)))
        return 0
    figures: list[Figure] = []
    first: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        source, tokenizer_file = Path(folder, "sft.jsonl"), args.tokenizer
        for rows in args.rows:
            dialogs = published(args.source) if args.source else made_up()
            write_records(source, islice(dialogs, rows), "sft-chat", overwrite=True)
            tokenizer_file = tokenizer_file or train_tokenizer(Path(folder, "trained.model"), source, args.pieces)
            found, last = run_apart(source, tokenizer_file, args.seq_length), rows == args.rows[-1]
            figures += figures_of(Path(tokenizer_file).stem, rows, found, args.seq_length, bars=last)
            first = first or found["megabytes"]
            growth = found["megabytes"] / first - 1
            figures.append(
                Figure(
                    "peak of memory",
                    f"{found['megabytes']:.0f} MB ({growth:+.0%})",
                    f"+-{GROWTH:.0%}" if last else "",
                    abs(growth) <= GROWTH or not last,
                )
            )
        found = run_apart(source, str(_TINY), args.seq_length)
        figures += figures_of("tiny", args.rows[-1], found, args.seq_length, bars=False)
    return show("Length filter, SFT dialogs", figures)


if __name__ == "__main__":
    sys.exit(main())
