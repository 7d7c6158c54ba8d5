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
"""`cai components`: everything that is chosen by name, and where it comes from."""

import argparse
from typing import Any

from nemo_aligner_cai.commands.terminal import write_line
from nemo_aligner_cai.components import OURS, components


def add_parser(subparsers: Any) -> None:
    """Declare `cai components`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "components", help="list judges, judge prompts, generators, processors and formats, and their origins"
    )
    parser.add_argument("kind", nargs="?", choices=list(OURS), help="only these")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the components; one that cannot be loaded is an error that names its package."""
    rows = [
        (component.kind, component.name, component.origin, component.describe())
        for kind in ([args.kind] if args.kind else OURS)
        for component in components(kind).values()
    ]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        write_line("  ".join([*cells, row[-1]]))
    return 0
