# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai doctor`: what is installed, which step is ready, and how to mend one that is not."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from nemo_aligner_cai import __version__
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.planning.doctor import PARTS, Report, Step, examine


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
    report = examine(args.part)
    steps = [step for step in report.steps if args.part in ("all", step.part)]
    if args.json:
        sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")
    elif sys.stdout.isatty():
        _show(report, steps)
    else:
        sys.stdout.write(_text(report, steps))
    return 0 if report.ready(args.part) else 1


def _show(report: Report, steps: Sequence[Step]) -> None:
    """For a terminal: tables that wrap, and colours for what is not as it should be."""
    console = open_console()
    console.print(_title(report))
    packages = table_of(("package", "version"), [])
    packages.add_column("")
    for package in report.packages:
        packages.add_row(package.name, package.version or "-", Text(printable(package.warning), "yellow"))
    console.print(packages)
    for line in (*_machine(report), *_entries(report)):
        console.print(line)
    table = table_of(("step",), [])
    for _ in range(2):
        table.add_column("")
    for step in steps:
        state = Text(f"lacks {printable(step.missing)}", "red") if step.missing else Text("ready", "green")
        table.add_row(step.name, state, Text(printable(step.mend)))
    console.print(table)


def _text(report: Report, steps: Sequence[Step]) -> str:
    """For a file or a pipe: one line for each thing."""
    lines = [_title(report), ""]
    for package in report.packages:
        lines.append(f"  {package.name:<20} {package.version or '-':<14} {package.warning}".rstrip())
    lines += ["", *(f"  {line}" for line in _machine(report)), ""]
    lines += [f"  {line}" for line in _entries(report)]
    lines += [""] if report.entries else []
    for step in steps:
        state = f"lacks {step.missing}: {step.mend}" if step.missing else "ready"
        lines.append(f"  step {step.name:<28} {state}")
    return "\n".join(map(printable, lines)) + "\n"


def _title(report: Report) -> str:
    return f"nemo_aligner_cai {__version__}, Python {report.python}"


def _machine(report: Report) -> list[str]:
    """The driver, torch's CUDA, the GPUs and the API keys, a line each."""
    lines: list[str] = []
    if (graphics := report.graphics) is not None:
        upto = f" (CUDA up to {graphics.driver_cuda})" if graphics.driver_cuda else ""
        # Not every kernel with a driver has the file that says which (WSL2).
        version = graphics.driver or ("of unknown version" if graphics.devices else "")
        driver = f"NVIDIA driver {version}{upto}" if version else "no NVIDIA driver"
        torch = f"torch for CUDA {graphics.torch_cuda}" if graphics.torch_cuda else "torch without CUDA"
        fit = ": they fit" if graphics.devices else ": they do not fit" if graphics.misfit[0] else ""
        lines.append(f"{driver}, {'no torch that can be imported' if graphics.error else torch}{fit}")
        lines += [f"GPU {number}: {name}, {gb:.0f} GB" for number, (name, gb) in enumerate(graphics.devices)]
        lines += [] if graphics.devices else ["no GPU that torch sees: trainers take hardware=cpu"]
    return [*lines, f"API keys: {', '.join(report.keys) or 'none'}"]


def _entries(report: Report) -> list[str]:
    return [f"cai train {stage:<14} starts {entry}" for stage, entry in report.entries.items()]
