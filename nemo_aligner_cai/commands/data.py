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
"""`cai data NAME ...`: make data with a generator or a processor, ours or another package's."""

import argparse
from typing import Any

from nemo_aligner_cai.components import components
from nemo_aligner_cai.errors import UsageError


def add_parser(subparsers: Any) -> None:
    """Declare `cai data`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "data", help="make data with a generator or a processor: cai data rl-cai --help"
    )
    parser.add_argument("name", metavar="NAME", help="sl-cai, rl-cai, anthropic-hh, or see `cai components`")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its own flags")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; returns its exit code."""
    makers = components("generators") | components("processors")
    if args.name not in makers:
        raise UsageError(f"there is no generator or processor {args.name!r}; there are {', '.join(makers)}")
    return int(makers[args.name].load().main(args.arguments))
