# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of leaving out what a trainer would cut: exact token counts of SFT dialogs.

Dialogs are made up: three messages and 600 letters on average, of a vocabulary of 5,000 words, some of them not ASCII.
Each size is one run of `filter_file` in a fresh process, with all of its tokenizer's threads. CPU time is user and
system time of that process; memory is its peak (VmHWM). Every hundredth dialog is counted again by the tokenizer's own
library, straight from the text that SFT teaches.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.memory import process_figure
from benchmarks.table import Figure, show
from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.files import read_records, write_records
from nemo_aligner_cai.data.length import filter_file
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.files import RowCounts

CPU_SECONDS, GROWTH, ROWS = 60.0, 0.1, 200_000
_TOKENIZER = Path(__file__).parent.parent / "nemo_aligner_cai" / "tiny" / "tokenizer.model"
_EVERY = 100


def dialogs(rows: int) -> Iterator[Chat]:
    """The same dialogs every time; about one in ten is too long for 1,000 tokens of the tiny assistant's tokenizer."""
    random_ = random.Random(1)
    syllables = [first + last for first in "bdfgklmnprst" for last in ("a", "e", "i", "o", "u", "\u00e9")]
    vocabulary = ["".join(random_.choices(syllables, k=random_.randint(1, 3))) for _ in range(5000)]

    def words(most: int) -> str:
        return " ".join(random_.choices(vocabulary, k=random_.randint(3, most)))

    for _ in range(rows):
        conversation = Conversation.of_user(f"{words(40)}?")
        for _ in range(random_.choice((0, 0, 1, 2))):
            conversation = conversation.with_turn(Role.ASSISTANT, f"{words(70)}.").with_turn(Role.USER, words(40))
        yield Chat(conversation.with_turn(Role.ASSISTANT, f"{words(70)}."), "made-up")


def run_here(source: Path, tokenizer_file: str, seq_length: int) -> dict[str, float]:
    """One run in this process."""
    tokenizer = load_tokenizer(tokenizer_file)
    target, started = source.with_name("kept.jsonl"), time.monotonic()
    use = filter_file(source, target, "sft-chat", tokenizer=tokenizer, seq_length=seq_length)
    seconds, usage = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "megabytes": process_figure("status", "VmHWM") * 1024 / 1e6,
        "rows": use.records,
        "kept": use.used,
        "tokens": use.tokens,
        "wrong": _wrong(source, use.skipped, tokenizer_file, use.limit),
    }


def _wrong(source: Path, left_out: set[int], tokenizer_file: str, limit: int) -> int:
    """Dialogs of every hundred that the tokenizer's own library would treat otherwise."""
    from sentencepiece import SentencePieceProcessor

    processor, wrong = SentencePieceProcessor(model_file=tokenizer_file), 0
    for number, record in enumerate(read_records(source, "sft-chat", counts=RowCounts()), start=1):
        if number % _EVERY == 0 and isinstance(record, Chat):
            length = len(processor.encode(NEMO_CHAT.render(record.conversation)))
            wrong += (length > limit) != (number in left_out)
    return wrong


def run_apart(rows: int, tokenizer_file: str, seq_length: int) -> dict[str, float]:
    """One run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "sft.jsonl")
        write_records(source, dialogs(rows), "sft-chat")
        command = [sys.executable, "-m", "benchmarks.length_filter", "--here", str(source)]
        command += ["--tokenizer", tokenizer_file, "--seq-length", str(seq_length)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.length_filter", description="SFT dialogs by their exact number of tokens."
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[ROWS // 10, ROWS], help="sizes, the bar is the last's")
    parser.add_argument("--tokenizer", default=str(_TOKENIZER), help="a SentencePiece .model (default: the tiny one)")
    parser.add_argument("--seq-length", type=int, default=1000)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        sys.stdout.write(json.dumps(run_here(Path(args.here), args.tokenizer, args.seq_length)))
        return 0
    figures: list[Figure] = []
    first: float | None = None
    for rows in args.rows:
        found = run_apart(rows, args.tokenizer, args.seq_length)
        first = first or found["megabytes"]
        growth = found["megabytes"] / first - 1
        last = rows == args.rows[-1]
        bar = CPU_SECONDS * rows / ROWS
        figures += [
            Figure(
                f"{rows:,} dialogs: CPU time",
                f"{found['cpu']:.1f} s ({found['seconds']:.1f} s by the clock)",
                f"<= {bar:.0f} s" if last else "",
                found["cpu"] <= bar or not last,
            ),
            Figure(
                f"{rows:,} dialogs: peak of memory",
                f"{found['megabytes']:.0f} MB ({growth:+.0%})",
                f"+-{GROWTH:.0%}" if last else "",
                abs(growth) <= GROWTH or not last,
            ),
            Figure(f"{rows:,} dialogs: kept", f"{found['kept']:,} ({found['tokens'] / rows:.0f} tokens each)"),
            Figure(
                f"{rows:,} dialogs: judged otherwise by the library",
                f"{found['wrong']} of {rows // _EVERY:,}",
                "0",
                not found["wrong"],
            ),
        ]
    return show("Length filter, SFT dialogs", figures)


if __name__ == "__main__":
    sys.exit(main())
