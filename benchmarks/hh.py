# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Time and memory of turning Anthropic's HH into prompts and comparisons, next to plain Python.

Both ways read the same packed file in a fresh process of their own and write the same two files. The plain way is what
one writes in ten minutes: the json module, a regular expression, everything in lists; like upstream's script it says
nothing of the rows that it leaves out. Time is the command's, from its start to its end; memory is its peak (VmHWM).

Rows are made up in the shape of HH, or are those of a real file, repeated with changed texts (``--source``).
"""

import argparse
import gzip
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.memory import process_figure
from benchmarks.table import Figure, show
from nemo_aligner_cai.commands.data import anthropic_hh
from nemo_aligner_cai.files import read_jsonl, sha256_file, write_jsonl

SECONDS, MEGABYTES, ROWS = 5.0, 200.0, 160_000
_WORDS = ("how", "do", "i", "can't", "the", "of", "in", "is", "that", "with", "what", "people", "it\u2019s", "think")
_OUTPUTS = [f"anthropic_hh_train_{kind}_with_chat_prompt.jsonl" for kind in ("prompts", "comparisons")]


def made_up(rows: int) -> Iterator[dict[str, str]]:
    """Rows like HH's: five turns and 650 letters on average, and one row in 500 whose reply is empty."""
    random_ = random.Random(1)

    def words(most: int) -> str:
        return " ".join(random_.choices(_WORDS, k=random_.randint(3, most)))

    for number in range(rows):
        rounds = [f"\n\nHuman: {words(40)}?\n\nAssistant: {words(70)}." for _ in range(random_.choice((0, 1, 2, 3)))]
        start = "".join(rounds) + f"\n\nHuman: {number} {words(40)}?\n\nAssistant:"
        good = "" if number % 500 == 0 else f" {words(60)}."
        yield {"chosen": start + good, "rejected": f"{start} {number} {words(60)}."}


def repeated(source: Path, rows: int) -> Iterator[dict[str, str]]:
    """The rows of a real file, over and over; the first words tell one time from another."""
    real = [row for _, row in read_jsonl(source)]
    for number in range(rows):
        time_ = f"\n\nHuman: {number // len(real)}"
        yield {key: text.replace("\n\nHuman:", time_, 1) for key, text in real[number % len(real)].items()}


def plain(source: Path, folder: Path) -> None:
    """The plain Python way."""
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    prompts: list[str] = []
    comparisons: list[str] = []
    for row in rows:
        turns = [re.split(r"\n\n(Human|Assistant):", row[key])[1:] for key in ("chosen", "rejected")]
        texts: list[tuple[str, str]] = []
        for names, contents in ((side[::2], [content.strip() for content in side[1::2]]) for side in turns):
            if names != ["Human", "Assistant"] * (len(names) // 2) or not all(contents):
                break
            text = "<extra_id_0>System\n\n"
            for name, content in zip(names, contents, strict=True):
                text += f"<extra_id_1>{'User' if name == 'Human' else 'Assistant'}\n{content}\n"
            texts.append((text[: -len(contents[-1]) - 1], text + "<extra_id_1>"))
        if len(texts) == 2 and texts[0][0] == texts[1][0] and texts[0] != texts[1]:
            prompts.append(texts[0][0])
            comparisons += [texts[0][1], texts[1][1]]
    for name, kept in zip(_OUTPUTS, (prompts, comparisons), strict=True):
        with (folder / name).open("w", encoding="utf-8") as out:
            for text in kept:
                out.write(json.dumps({"text": text}, ensure_ascii=False, separators=(",", ":")) + "\n")


def run_apart(way: str, source: Path, folder: Path) -> dict[str, float]:
    """One way in a fresh process: seconds, seconds of CPU time, megabytes."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.hh", "--here", way, str(source), str(folder)]
    started = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return {"seconds": time.monotonic() - started, **json.loads(done.stdout.splitlines()[-1])}


def _run_here(way: str, source: Path, folder: Path) -> None:
    if way == "plain":
        plain(source, folder)
    elif anthropic_hh.main(["--input", str(source), "--output-dir", str(folder)]):
        raise RuntimeError("the command failed")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    megabytes = process_figure("status", "VmHWM") * 1024 / 1e6
    sys.stdout.write(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "megabytes": megabytes}) + "\n")


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hh", description="HH into prompts and comparisons.")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"default: {ROWS}, as many as all of HH has")
    parser.add_argument("--source", type=Path, help="a real .jsonl.gz file of HH to repeat; default: made-up rows")
    parser.add_argument("--here", nargs=3, metavar=("WAY", "SOURCE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        _run_here(args.here[0], Path(args.here[1]), Path(args.here[2]))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = repeated(args.source, args.rows) if args.source else made_up(args.rows)
        write_jsonl(folder / "train.jsonl.gz", rows)
        ours, theirs = (run_apart(way, folder / "train.jsonl.gz", folder / way) for way in ("ours", "plain"))
        (manifest,) = (folder / "ours").glob("*.manifest.json")
        counts = json.loads(manifest.read_bytes())["splits"]["train"]
        same = all(sha256_file(folder / "ours" / name) == sha256_file(folder / "plain" / name) for name in _OUTPUTS)
        kept = sum(1 for _ in (folder / "plain" / _OUTPUTS[0]).open("rb"))
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in counts["left_out"].items())
    accounted = counts["rows_in"] == args.rows == counts["written"] + sum(counts["left_out"].values())
    return show(
        f"Anthropic HH, {args.rows:,} rows",
        [
            Figure("time", _times(ours), f"<= {SECONDS:.0f} s", ours["seconds"] <= SECONDS),
            Figure("peak of memory", _memory(ours), f"<= {MEGABYTES:.0f} MB", ours["megabytes"] <= MEGABYTES),
            Figure("rows kept", f"{counts['written']:,}", "all accounted for", accounted),
            Figure("rows left out", left_out or "none"),
            Figure("plain Python: time", _times(theirs)),
            Figure("plain Python: peak of memory", _memory(theirs)),
            Figure("plain Python: rows kept", f"{kept:,}, {'the same bytes' if same else 'other bytes'}"),
        ],
    )


def _times(found: dict[str, float]) -> str:
    return f"{found['seconds']:.1f} s ({found['cpu']:.1f} s CPU)"


def _memory(found: dict[str, float]) -> str:
    return f"{found['megabytes']:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
