# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai doctor`: show what is installed, which steps are ready, and how to fix the others."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.text import Text

from nemo_aligner_cai import __version__
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console
from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.planning.doctor import PARTS, Report, Step, examine


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai doctor`."""
    parser.epilog = "The exit code is 1 if a step is not ready."
    parser.examples = ("cai doctor", "cai doctor --for data")
    parser.add_argument("--for", dest="part", choices=PARTS, default="all", help="steps to check")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Show the report; returns 1 if a requested step is not ready."""
    report = examine(args.part)
    if args.json:
        sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")
    else:
        _show(report, [step for step in report.steps if args.part in ("all", step.part)])
    return 0 if report.ready(args.part) else 1


def _show(report: Report, steps: Sequence[Step]) -> None:
    """Print one line per finding."""
    console = open_console()

    def show(text: str, marked: str = "", style: str = "", rest: str = "") -> None:
        line = Text.assemble(printable(text), (printable(marked), style), printable(rest))
        line.rstrip()
        console.print(line, soft_wrap=True)

    show(f"nemo_aligner_cai {__version__}, Python {report.python}")
    show("")
    for package in report.packages:
        show(f"  {package.name:<20} {package.version or '-':<14} ", package.warning, "yellow")
    show("")
    for line in _machine(report):
        show(f"  {line}")
    show("")
    for stage, entry in report.entries.items():
        show(f"  cai train {stage:<14} starts {entry}")
    show("")
    for step in steps:
        if step.missing:
            show(f"  step {step.name:<28} ", f"lacks {step.missing}", "red", f": {step.fix}")
        else:
            show(f"  step {step.name:<28} ", "ready", "green")


def _machine(report: Report) -> list[str]:
    """Describe the driver, torch's CUDA, the GPUs and the API keys, one line each."""
    lines: list[str] = []
    if (graphics := report.graphics) is not None:
        upto = f" (CUDA up to {graphics.driver_cuda})" if graphics.driver_cuda else ""
        # Some kernels with a driver lack the file with its version (WSL2).
        version = graphics.driver or ("of unknown version" if graphics.devices else "")
        driver = f"NVIDIA driver {version}{upto}" if version else "no NVIDIA driver"
        torch = f"torch for CUDA {graphics.torch_cuda}" if graphics.torch_cuda else "torch without CUDA"
        fit = ": compatible" if graphics.devices else ": not compatible" if graphics.misfit[0] else ""
        lines.append(f"{driver}, {'torch cannot be imported' if graphics.error else torch}{fit}")
        lines += [f"GPU {number}: {name}, {gb:.0f} GB" for number, (name, gb) in enumerate(graphics.devices)]
        lines += [] if graphics.devices else ["torch sees no GPU: trainers use hardware=cpu"]
    return [*lines, f"API keys: {', '.join(report.keys) or 'none'}"]
