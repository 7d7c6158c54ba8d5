# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai checkpoint to-nemo | to-hf`: convert models between Hugging Face's layout and NeMo's.

If NeMo's own converter and a GPU are available (in NVIDIA's container), it makes the .nemo file. The other direction
always uses this package, because reading a .nemo file's weights needs no NeMo, and NeMo's converter rounds to
bfloat16, copies no tokenizer for Llama, leaves a second copy of its weights, and ties weights that were not tied.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import log_to_stderr, write_line
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.training.checkpoints import hf_chat
from nemo_aligner_cai.training.checkpoints.architectures import ARCHITECTURES, architecture_of, read_settings

# The settings that NeMo uses for scale_positional_embedding.
_LLAMA31 = {"scale_factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "old_context_len": 8192}


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai checkpoint`."""
    parser.epilog = "Supported: " + "; ".join(architecture.models for architecture in ARCHITECTURES.values()) + "."
    parser.examples = ("cai checkpoint to-nemo mistral-7b mistral-7b.nemo",)
    directions = parser.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    into = directions.add_parser("to-nemo", help="convert a Hugging Face folder to a .nemo file")
    into.examples = parser.examples
    into.add_argument("source", type=Path, metavar="FOLDER", help="a folder with config.json, weights and tokenizer")
    into.add_argument("target", type=Path, metavar="MODEL.nemo", help="the file to write; must not exist")
    into.add_argument(
        "--precision", choices=["32", "bf16", "16"], default="bf16", help="precision of the stored weights"
    )
    into.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="use tokenizer.json, which a .nemo file cannot contain, and record this folder or hub model as source "
        "(default: tokenizer.model, or FOLDER if there is none)",
    )
    into.add_argument("--print-command", action="store_true", help="print the command without running it")
    back = directions.add_parser("to-hf", help="convert a .nemo file to a Hugging Face folder")
    back.examples = (
        "cai checkpoint to-hf results/rl_cai/checkpoints/cai_ppo_actor.nemo mistral-7b mistral-7b-rl-cai",
    )
    back.add_argument("source", type=Path, metavar="MODEL.nemo", help="the file to convert")
    back.add_argument("reference", type=Path, metavar="FOLDER", help="the folder of the original model")
    back.add_argument("target", type=Path, metavar="NEW_FOLDER", help="the folder to write; must not exist")
    back.add_argument(
        "--precision", choices=["32", "bf16", "16"], help="precision of the written weights (default: as stored)"
    )
    back.add_argument(
        "--chat-template",
        choices=hf_chat.CHOICES,
        default="auto",
        help="chat template of the new folder: nemo is that of NeMo's chat datasets, reference that of FOLDER, "
        "auto is nemo for a model trained by SFT on chat rows, and for models derived from it",
    )


def run(args: argparse.Namespace) -> int:
    """Convert in this process, or with NeMo's converter."""
    if args.direction == "to-nemo":
        # Needs neither torch nor weights, so that a laptop can tell before a model is downloaded.
        architecture_of(read_settings(args.source), str(args.source / "config.json"))
    extras.require(f"cai checkpoint {args.direction}", ("torch",) if args.direction == "to-hf" else extras.TRAINING)
    from nemo_aligner_cai.training import convert_checkpoint

    log_to_stderr()
    # A batch system's SIGTERM must end the converter and remove unfinished files like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.direction == "to-hf":
        convert_checkpoint.to_hf(args.source, args.reference, args.target, args.precision, args.chat_template)
        return 0
    settings, _ = convert_checkpoint.check_folder(args.source, args.target)
    command = upstream_command(args, settings)
    if command is None:
        # Also for --print-command, which does not call `to_nemo`.
        convert_checkpoint.check_layers(args.source, settings["model_type"])
    if args.print_command:
        write_line(shlex.join([*command, str(args.target)]) if command else "in this process: no NeMo converter found")
    elif command:
        _run_converter(command, args.target)
    else:
        convert_checkpoint.to_nemo(args.source, args.target, args.precision, args.tokenizer)
    return 0


def _run_converter(command: list[str], target: Path) -> None:
    """Run NeMo's converter into a temporary folder, and rename its complete output."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".convert-") as folder:
        made = Path(folder) / target.name
        code = subprocess.run([*command, str(made)], check=False).returncode
        if code or not made.exists():
            raise CaiError(f"{target}: NeMo's converter ended with exit code {code}; its output gives the reason")
        made.rename(target)


def upstream_command(args: argparse.Namespace, settings: dict[str, Any]) -> list[str] | None:
    """Build the command line of NeMo 2.2's converter, without the path of its output.

    Args:
        args: arguments of `to-nemo`.
        settings: the contents of the Hugging Face folder's config.json.

    Returns:
        The words up to ``--output_path``; None if the converter or a GPU is missing.

    Raises:
        UsageError: NeMo's converter would change the model silently.
    """
    from nemo_aligner_cai.training.checkpoints.hf_config import model_settings
    from nemo_aligner_cai.training.convert_checkpoint import nemo_converter

    wanted = model_settings(settings, "config.json")
    kind = settings["model_type"]
    script = nemo_converter(kind)
    if script is None:
        return None
    scaled = wanted.get("scale_positional_embedding", False)
    if scaled and (other := {key: wanted[key] for key in _LLAMA31 if wanted[key] != _LLAMA31[key]}):
        raise UsageError(
            f"{args.source}: rope_scaling: NeMo's converter writes Llama 3.1's settings, but this model has {other}; "
            "convert it without Apex (constraints/cpu.txt): the file also works in the container"
        )
    if args.tokenizer:
        raise UsageError(
            f"--tokenizer={args.tokenizer}: NeMo's converter sets the tokenizer itself; to load the file, give "
            f"++model.tokenizer.type={args.tokenizer}"
        )
    command = [sys.executable, str(script), "--input_name_or_path", str(args.source), "--precision", args.precision]
    # --llama31 is true by default and for any text but the empty one: it would scale every Llama's positions.
    llama31 = ["--llama31", ""] if kind == "llama" and not scaled else []
    return [*command, *llama31, "--output_path"]
