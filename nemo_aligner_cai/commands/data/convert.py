# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai convert IN OUT --to FORMAT`: write a data file in another trainer's format."""

import argparse
import tempfile
from pathlib import Path

from nemo_aligner_cai.chat import TokenPolicy
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.shared_flags import (
    add_system_message_flag,
    add_template_tokens_flag,
    add_tokenizer_flags,
    requested_tokenizer,
)
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.data.formats.all_formats import all_formats, format_named, listed
from nemo_aligner_cai.data.formats.files import convert_file
from nemo_aligner_cai.data.formats.unread_columns import ColumnChoice
from nemo_aligner_cai.data.formats.writers import require_suffix
from nemo_aligner_cai.data.length import filter_file, limit_of
from nemo_aligner_cai.data.length_report import UseReport
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, RowCounts, put_in_place
from nemo_aligner_cai.files.output_paths import check_output, refuse_same
from nemo_aligner_cai.files.sources import data_files


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai convert`."""
    formats, _ = all_formats()
    lines = (f"  {name:<26}{formats[name].description}" for name in listed(formats))
    parser.epilog = "\n".join(["formats:", *lines])
    parser.examples = (
        "cai convert sl_cai.jsonl messages.jsonl --to messages",
        "cai convert rl_cai/cai_comparisons.jsonl dpo.jsonl --to dpo",
    )
    parser.add_argument(
        "source",
        metavar="IN",
        help=".jsonl, .json, .csv, .txt (each also as .gz), .parquet; a folder of .jsonl, .csv and .parquet files; a "
        "data set on the hub as hf://datasets/OWNER/NAME[/FOLDER]",
    )
    parser.add_argument("target", metavar="OUT", help="the file to write; compressed if its name ends in .gz")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="the format to write")
    parser.add_argument("--from", dest="source_format", metavar="FORMAT", help="the format of IN (default: detected)")
    parser.add_argument("--split", help="split of a folder or data set (default: train, or the only one)")
    add_template_tokens_flag(parser)
    add_system_message_flag(parser, "conversations")
    add_tokenizer_flags(parser, "to drop records that the trainer cannot use whole")
    parser.add_argument(
        "--prompt-column", metavar="NAME", help="the column of IN with the prompts; ignores the other columns"
    )
    parser.add_argument(
        "--ignore-columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of IN, or keys of its messages, to ignore (default: none; one that changes the meaning of a row "
        "is an error)",
    )
    parser.add_argument(
        "--drop-refused",
        action="store_true",
        help="drop and count rows that the format cannot represent, in place of an error for the first one",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Convert and print the row counts; raises CaiError if no record fits the sequence length."""
    tokenizer = requested_tokenizer(args)
    sources = data_files(args.source, args.split)
    refuse_same([file for file in sources if isinstance(file, Path)], [args.target])
    if tokenizer is None:
        write_line(f"{args.target}: {args.to}; {_convert(args, args.target)}")
        return 0
    target = Path(args.target)
    require_suffix(target, format_named(args.to))
    lengths = {"seq_length": args.seq_length, "response_length": args.response_length}
    limit_of(args.to, **lengths)
    check_output(target, overwrite=args.overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole, kept = (Path(folder) / f"{name}_{target.name}" for name in ("whole", "kept"))
        counts = _convert(args, whole)
        use = filter_file(whole, kept, args.to, kind=UseReport, tokenizer=tokenizer, **lengths)
        if not use.used:
            raise CaiError(f"{args.source}: nothing is left to write: {use}")
        put_in_place(kept, target)
    write_line(f"{target}: {args.to}; {counts}; of these records: {use.counts}")
    return 0


def _convert(args: argparse.Namespace, target: PathLike) -> RowCounts:
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
