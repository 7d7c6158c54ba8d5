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
"""`cai doctor`: what is installed, which step is ready, and how to mend one that is not."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from nemo_aligner_cai import __version__
from nemo_aligner_cai.doctor import PARTS, Report, examine


def add_parser(subparsers: Any) -> None:
    """Declare `cai doctor`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor", help="say what is installed, which step is ready, and how to mend one that is not"
    )
    parser.add_argument(
        "--for", dest="part", choices=PARTS, default="all", help="the steps that matter (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Report; 0 where every step of the asked part is ready, else 1."""
    report = examine()
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n" if args.json else _text(report, args.part))
    return 0 if report.ready(args.part) else 1


def _text(report: Report, part: str) -> str:
    lines = [f"nemo_aligner_cai {__version__}, Python {report.python}", ""]
    for package in report.packages:
        lines.append(f"  {package.name:<20} {package.version or '-':<14} {package.warning}".rstrip())
    lines += ["", *(f"  GPU {number}: {name}, {gb:.0f} GB" for number, (name, gb) in enumerate(report.devices))]
    lines += [] if report.devices else ["  no GPU that torch sees: trainers take hardware=cpu"]
    lines += [f"  API keys: {', '.join(report.keys) or 'none'}", ""]
    lines += [f"  cai train {stage:<14} starts {entry}" for stage, entry in report.entries.items()]
    lines += [""] if report.entries else []
    for step in report.steps:
        if part in ("all", step.part):
            lines.append(f"  step {step.name:<28} {f'lacks {step.missing}: {step.mend}' if step.missing else 'ready'}")
    return "\n".join(lines) + "\n"
