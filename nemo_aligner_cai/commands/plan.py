# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai plan CONFIG`: estimate the calls, tokens, GPU-hours, disk and memory of a run on GPUs."""

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.planning.estimate import ResourceEstimate, plan
from nemo_aligner_cai.planning.recipe import recipe

_COUNTED = ("model_calls", "judge_calls")
_SUMMED = ("tokens_in", "tokens_out", "gpu_hours", "hours", "disk_gb")


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai plan`."""
    parser.epilog = "Calls are counted; figures with ~ are estimates from the section `plan`."
    parser.examples = (
        "cai plan examples/nlp/cai/mistral_7b.yaml",
        "cai plan examples/nlp/cai/mistral_7b.yaml rl_cai.decoding.num_responses=8 --json",
    )
    parser.add_argument("config", type=Path, help="a YAML file like examples/nlp/cai/mistral_7b.yaml")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values to replace in the configuration")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    # The trainers' settings are composed by Hydra; a plan needs neither torch nor NeMo.
    extras.require("cai plan", extras.COMPOSING, "hydra")
    steps = plan(recipe(load_run_config(args.config, args.overrides)))
    steps.append(_total(steps))
    if args.json:
        rows = [_parts(step) for step in steps]
        sys.stdout.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode() + "\n")
        return 0
    figures = ("calls", "judge calls", "tokens in", "tokens out", "GPU-hours", "hours", "disk GB", "GB per GPU")
    console = open_console()
    console.print(table_of(("step", *figures, ""), [_row(step) for step in steps]))
    console.print("~ estimated from the assumptions in the configuration")
    return 0


def _total(steps: list[ResourceEstimate]) -> ResourceEstimate:
    sums: dict[str, Any] = {name: sum(getattr(step, name) for step in steps) for name in (*_COUNTED, *_SUMMED)}
    memory = max(step.memory_gb for step in steps)
    return ResourceEstimate("all", **sums, memory_gb=memory, fits=all(step.fits for step in steps))


def _parts(step: ResourceEstimate) -> dict[str, Any]:
    values = asdict(step)
    estimated = [field.name for field in fields(step) if field.name not in ("step", *_COUNTED)]
    return {
        "step": step.step,
        "counted": {name: values[name] for name in _COUNTED},
        "estimated": {name: values[name] for name in estimated},
    }


def _row(step: ResourceEstimate) -> tuple[str, ...]:
    return (
        step.step,
        f"{step.model_calls:,}",
        f"{step.judge_calls:,}",
        f"~{step.tokens_in / 1e6:,.0f} M",
        f"~{step.tokens_out / 1e6:,.0f} M",
        f"~{step.gpu_hours:,.1f}",
        f"~{step.hours:,.1f}",
        f"~{step.disk_gb:,.1f}",
        f"~{step.memory_gb:,.1f}" if step.memory_gb else "",
        "" if step.fits else "does not fit",
    )
