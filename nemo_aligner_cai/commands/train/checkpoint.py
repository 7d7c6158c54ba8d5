# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai checkpoint to-nemo | to-hf`: models between Hugging Face's layout and NeMo's.

Where NeMo's own converter and a GPU are at hand (in NVIDIA's container), it is what is started to make a .nemo file.
Going back, NeMo's rounds to bfloat16 unasked, copies no tokenizer for Llama, leaves a second copy of its weights, and
ties what was untied; reading a .nemo file's weights needs no NeMo, so ours does that everywhere.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.exit_codes import log_to_stderr
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.errors import CaiError, UsageError

_CONVERTERS = Path("scripts") / "checkpoint_converters"
# What NeMo takes where a file says no more than scale_positional_embedding, as those of its converter do.
_LLAMA31 = {"scale_factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "old_context_len": 8192}
_SCRIPTS = {"llama": "convert_llama_hf_to_nemo.py", "mistral": "convert_mistral_7b_hf_to_nemo.py"}


def add_parser(subparsers: Any) -> None:
    """Declare `cai checkpoint`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "checkpoint",
        help="turn a Hugging Face model into a .nemo file, and back",
        description="Convert Llama and Mistral models between a Hugging Face folder and a .nemo file.",
    )
    directions = parser.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    into = directions.add_parser("to-nemo", help="a Hugging Face folder into a .nemo file")
    into.add_argument("source", type=Path, metavar="FOLDER", help="with config.json, weights and tokenizer")
    into.add_argument("target", type=Path, metavar="MODEL.nemo", help="must not exist")
    into.add_argument("--precision", choices=["32", "bf16", "16"], default="bf16", help="of the stored weights")
    into.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="take tokenizer.json, which a .nemo file cannot carry, and let the file name this folder or model on the "
        "hub for it (default: tokenizer.model, or FOLDER where there is none)",
    )
    back = directions.add_parser("to-hf", help="a .nemo file into a Hugging Face folder")
    back.add_argument("source", type=Path, metavar="MODEL.nemo")
    back.add_argument("reference", type=Path, metavar="FOLDER", help="the folder that the model came from")
    back.add_argument("target", type=Path, metavar="NEW_FOLDER", help="must not exist")
    back.add_argument("--precision", choices=["32", "bf16", "16"], help="of the written weights (default: as stored)")
    back.add_argument(
        "--chat-template",
        choices=["auto", "nemo", "reference"],
        default="auto",
        help="of the new folder: nemo, what NeMo's chat datasets render; reference, that of FOLDER (default: nemo for "
        "a model that SFT has trained on chat rows, and what was made from it)",
    )
    into.add_argument("--print-command", action="store_true", help="say what would be started, and start nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, here or by NeMo's converter."""
    extras.require(f"cai checkpoint {args.direction}", ("torch",) if args.direction == "to-hf" else extras.TRAINING)
    from nemo_aligner_cai.training import convert_checkpoint

    log_to_stderr()
    # A batch system's SIGTERM is to end the converter and remove what is unfinished, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.direction == "to-hf":
        convert_checkpoint.to_hf(args.source, args.reference, args.target, args.precision, args.chat_template)
        return 0
    settings, _ = convert_checkpoint.check_folder(args.source, args.target)
    command = upstream_command(args, settings)
    if args.print_command:
        whole = (
            shlex.join([*command, *_into(args.target)]) if command else "in this process: no NeMo converter is at hand"
        )
        write_line(f"{whole}")
    elif command:
        _convert_by_nemo(command, args.target)
    else:
        convert_checkpoint.to_nemo(args.source, args.target, args.precision, args.tokenizer)
    return 0


def _into(target: Path) -> list[str]:
    return ["--output_path", str(target)]


def _convert_by_nemo(command: list[str], target: Path) -> None:
    """Run NeMo's converter into a folder beside the target, which gets its name when all of it is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".convert-") as folder:
        made = Path(folder) / target.name
        code = subprocess.run([*command, *_into(made)], check=False).returncode
        if code or not made.exists():
            raise CaiError(f"{target}: NeMo's converter ended with exit code {code}; what it printed says why")
        made.rename(target)


def upstream_command(args: argparse.Namespace, settings: dict[str, Any]) -> list[str] | None:
    """The command line of NeMo 2.2's converter, without its output; None where it or a GPU is not there.

    Args:
        args: of `to-nemo`.
        settings: the contents of the Hugging Face folder's config.json.

    Raises:
        UsageError: a model that NeMo's converter would change without a word.
    """
    from nemo_aligner_cai.training.checkpoints.hf_layout import model_settings
    from nemo_aligner_cai.training.launch.stage import cuda_available

    wanted = model_settings(settings, "config.json")
    kind = settings["model_type"]
    script = Path(os.environ.get("NEMO_HOME", "/opt/NeMo")) / _CONVERTERS / _SCRIPTS[kind]
    if not script.is_file() or not cuda_available():
        return None
    scaled = wanted.get("scale_positional_embedding", False)
    if scaled and (other := {key: wanted[key] for key in _LLAMA31 if wanted[key] != _LLAMA31[key]}):
        raise UsageError(
            f"{args.source}: rope_scaling: NeMo's converter writes Llama 3.1's, and this model has {other}; convert "
            "it where Apex is not installed (constraints/cpu-py311.txt): the file is for the container as well"
        )
    if args.tokenizer:
        raise UsageError(
            f"--tokenizer={args.tokenizer}: NeMo's converter names the tokenizer by itself; whoever loads the file "
            f"may give ++model.tokenizer.type={args.tokenizer}"
        )
    command = [sys.executable, str(script), "--input_name_or_path", str(args.source), "--precision", args.precision]
    # Its --llama31 is any text but the empty one, and true unless given: it would scale every Llama's positions.
    return [*command, *(["--llama31", ""] if kind == "llama" and not scaled else [])]
