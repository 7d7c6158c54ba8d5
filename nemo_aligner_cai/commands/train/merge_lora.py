# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai merge-lora BASE ADAPTERS OUTPUT`: a whole model of a base model and LoRA adapters."""

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Declare `cai merge-lora`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "merge-lora",
        help="merge LoRA adapters into their base model",
        description="Merge the adapters that a trainer saved with model.peft.peft_scheme=lora into their base model.",
    )
    parser.add_argument("base", metavar="BASE.nemo", help="the model that was trained")
    parser.add_argument("adapters", metavar="ADAPTERS.nemo", help="what the trainer saved")
    parser.add_argument("output", metavar="OUTPUT.nemo", help="must not exist")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the config cai_merge_lora")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge in this process."""
    from nemo_aligner_cai.training.config import quoted
    from nemo_aligner_cai.training.launch.stage import main
    from nemo_aligner_cai.training.merge_lora import STAGE

    paths = {"gpt_model_file": args.base, "adapter_file": args.adapters, "output": args.output}
    return main(STAGE, [*(f"{key}={quoted(path)}" for key, path in paths.items()), *args.overrides])
