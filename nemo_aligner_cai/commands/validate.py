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
"""`cai validate FILE...`: whether a trainer reads every row as it is meant, and how many of them it will use."""

import argparse
import sys
from typing import Any

from nemo_aligner_cai.data.formats import FORMATS, detect_format, validate_file
from nemo_aligner_cai.data.length import LIMITS, load_tokenizer, predict_use
from nemo_aligner_cai.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Declare `cai validate`."""
    parser: argparse.ArgumentParser = subparsers.add_parser("validate", help="check that trainers can read a file")
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.add_argument("--as", dest="format", choices=FORMATS, metavar="FORMAT", help="default: detected")
    parser.add_argument(
        "--tokenizer", help="the model's SentencePiece .model file, or a Hugging Face tokenizer folder"
    )
    parser.add_argument("--seq-length", type=int, help="the model's sequence length; with --tokenizer")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate each file; raises FormatError at the first row that is wrong, and CaiError when rows are too long."""
    if (args.tokenizer is None) != (args.seq_length is None):
        raise UsageError("--tokenizer and --seq-length belong together")
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    unused = 0
    for file in args.files:
        name = args.format or detect_format(file)
        balance = validate_file(file, name)
        line = f"{file}: {name}, {balance.rows_in} rows, all of them valid"
        if tokenizer is not None:
            if name not in LIMITS:
                raise UsageError(f"{file}: token lengths are known for {', '.join(LIMITS)}, not for {name}")
            use = predict_use(file, name, tokenizer=tokenizer, seq_length=args.seq_length)
            unused += len(use.left_out)
            line += f"; {use}"
        sys.stdout.write(line + "\n")
    if unused:
        sys.stderr.write("trainers skip, cut, replace or stop at rows that they cannot use; leave them out before\n")
    return 1 if unused else 0
