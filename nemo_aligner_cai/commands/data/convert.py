# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai convert IN OUT --to FORMAT`: a file's records in the format of another trainer."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import TokenPolicy
from nemo_aligner_cai.commands.common.flag_types import COUNT, system_message
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.commands.data.validate import tokenizer_asked_for
from nemo_aligner_cai.data.formats.columns import ColumnChoice
from nemo_aligner_cai.data.formats.files import convert_file, format_named
from nemo_aligner_cai.data.formats.table import all_formats
from nemo_aligner_cai.data.formats.table import listed as listed_names
from nemo_aligner_cai.data.formats.writers import require_suffix
from nemo_aligner_cai.data.length import filter_file, limit_of
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, RowCounts, put_in_place
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.files.same_files import refuse_same
from nemo_aligner_cai.files.sources import data_files


def add_parser(subparsers: Any) -> None:
    """Declare `cai convert`."""
    formats, _ = all_formats()
    listed = "\n".join(f"  {name:<26}{formats[name].description}" for name in listed_names(formats))
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "convert",
        help="write a data file in another trainer's format",
        epilog=f"formats:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="IN",
        help=".jsonl, .json, .csv, .txt, each also as .gz, .parquet; a folder of them; a data set on the hub as "
        "hf://datasets/OWNER/NAME[/FOLDER]",
    )
    parser.add_argument("target", metavar="OUT", help="the file to write; packed where its name ends in .gz")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="the format to write")
    parser.add_argument("--from", dest="source_format", metavar="FORMAT", help="default: detected")
    parser.add_argument("--split", default="train", help="of a folder or data set with splits (default: train)")
    parser.add_argument(
        "--on-template-tokens",
        choices=[policy.value for policy in TokenPolicy],
        default=TokenPolicy.ESCAPE.value,
        help="texts that contain the chat template's tokens are escaped, left out or refused (default: escape)",
    )
    parser.add_argument(
        "--system-message",
        type=system_message,
        metavar="TEXT",
        default="",
        help="system message of the conversations that have none; some tokenizers (GPT-2's rule, such as SmolLM2's) "
        "need one for SFT",
    )
    parser.add_argument(
        "--tokenizer",
        help="the model's SentencePiece .model file, or a Hugging Face tokenizer folder: what the trainer cannot use "
        "whole is left out, by its exact number of tokens",
    )
    parser.add_argument("--seq-length", type=COUNT, help="the model's sequence length; with --tokenizer")
    parser.add_argument(
        "--prompt-column", metavar="NAME", help="the column of IN that holds the prompts; the others are not read"
    )
    parser.add_argument(
        "--ignore-columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of IN, or keys of its messages, that are not read: one that changes what a row means is "
        "otherwise an error",
    )
    parser.add_argument(
        "--drop-refused",
        action="store_true",
        help="leave out the rows that cannot be carried, and count them; default: the first one is an error",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert and say where the rows went; returns 1 where none fits the sequence length."""
    tokenizer = tokenizer_asked_for(args)
    sources = data_files(args.source, args.split)
    refuse_same([file for file in sources if isinstance(file, Path)], [args.target])
    if tokenizer is None:
        write_line(f"{args.target}: {args.to}; {_converted(args, args.target)}")
        return 0
    target = Path(args.target)
    require_suffix(target, format_named(args.to))
    limit_of(args.to, args.seq_length)
    check_output(target, overwrite=args.overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole, kept = (Path(folder) / f"{name}_{target.name}" for name in ("whole", "kept"))
        counts = _converted(args, whole)
        use = filter_file(whole, kept, args.to, tokenizer=tokenizer, seq_length=args.seq_length)
        if not use.used:
            raise CaiError(f"{args.source}: nothing is left to write: {use}")
        put_in_place(kept, target)
    write_line(f"{target}: {args.to}; {counts}; of these records: {use.counts}")
    return 0


def _converted(args: argparse.Namespace, target: PathLike) -> RowCounts:
    return convert_file(
        args.source,
        target,
        to=args.to,
        source_format=args.source_format,
        policy=TokenPolicy(args.on_template_tokens),
        split=args.split,
        system_message=args.system_message,
        columns=ColumnChoice(frozenset(args.ignore_columns), args.prompt_column),
        drop_refused=args.drop_refused,
        overwrite=args.overwrite,
    )
