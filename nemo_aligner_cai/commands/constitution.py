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
"""`cai constitution check FILE`: what a constitution file says, or the line where it goes wrong."""

import argparse
import sys
from typing import Any

from nemo_aligner_cai.constitution import load_constitution


def add_parser(subparsers: Any) -> None:
    """Declare `cai constitution`."""
    parser: argparse.ArgumentParser = subparsers.add_parser("constitution", help="check a constitution file")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="read a constitution and list its principles")
    check.add_argument("file", help="our YAML, or one of Anthropic's JSON files")
    check.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the principles with what each can be used for; raises UsageError where the file is wrong."""
    constitution = load_constitution(args.file)
    revising, judging = constitution.for_revision, constitution.for_judging
    lines = [
        f"{args.file}: {constitution.name}, {len(constitution.principles)} principles, "
        f"{len(revising)} of them critique and revise, {len(judging)} judge"
    ]
    for principle in constitution.principles:
        uses = [name for name, group in (("revise", revising), ("judge", judging)) if principle in group]
        request = principle.critique_request or principle.judge_request or ""
        lines.append(f"  {principle.id}  [{', '.join(uses)}]  {request[:80]}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
