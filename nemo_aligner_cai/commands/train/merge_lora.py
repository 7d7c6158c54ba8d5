# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai merge-lora BASE ADAPTERS OUTPUT`: merge LoRA adapters into their base model."""

import argparse

from nemo_aligner_cai.commands.common.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai merge-lora`."""
    parser.epilog = "A trainer saves adapters with model.peft.peft_scheme=lora."
    parser.examples = ("cai merge-lora mistral-7b.nemo results/sl_cai/checkpoints/cai_sft.nemo merged.nemo",)
    parser.add_argument("base", metavar="BASE.nemo", help="the base model")
    parser.add_argument("adapters", metavar="ADAPTERS.nemo", help="the trainer's output")
    parser.add_argument("output", metavar="OUTPUT.nemo", help="the file to write; must not exist")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of the config cai_merge_lora")


def run(args: argparse.Namespace) -> int:
    """Merge in this process."""
    from nemo_aligner_cai.training.config import quoted
    from nemo_aligner_cai.training.launch.stage_main import main
    from nemo_aligner_cai.training.merge_lora import STAGE

    paths = {"gpt_model_file": args.base, "adapter_file": args.adapters, "output": args.output}
    return main(STAGE, [*(f"{key}={quoted(path)}" for key, path in paths.items()), *args.overrides])
