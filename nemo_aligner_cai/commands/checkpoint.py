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
"""`cai checkpoint to-nemo | to-hf`: models between Hugging Face's layout and NeMo's.

Where NeMo's own converters and a GPU are at hand (in NVIDIA's container), these are what is started.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import refuse_existing

_CONVERTERS = Path("scripts") / "checkpoint_converters"
_LLAMA31_FACTOR = 8.0
_NAMES = {"llama": "convert_llama", "mistral": "convert_mistral_7b"}


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
    back = directions.add_parser("to-hf", help="a .nemo file into a Hugging Face folder")
    back.add_argument("source", type=Path, metavar="MODEL.nemo")
    back.add_argument("reference", type=Path, metavar="FOLDER", help="the folder that the model came from")
    back.add_argument("target", type=Path, metavar="NEW_FOLDER", help="must not exist")
    for one in (into, back):
        one.add_argument("--print-command", action="store_true", help="say what would be started, and start nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, here or by NeMo's converter."""
    from nemo_aligner_cai.training import checkpoint

    command = upstream_command(args)
    if args.print_command:
        sys.stdout.write(f"{shlex.join(command) if command else 'in this process: no NeMo converter is at hand'}\n")
    elif command:
        os.execv(command[0], command)
    elif args.direction == "to-nemo":
        checkpoint.to_nemo(args.source, args.target, args.precision)
    else:
        checkpoint.to_hf(args.source, args.reference, args.target)
    return 0


def upstream_command(args: argparse.Namespace) -> list[str] | None:
    """The command line of NeMo 2.2's converter; None where it or a GPU is not there.

    Raises:
        UsageError: an output that exists, or a model that NeMo's converter would change without a word.
    """
    from nemo_aligner_cai.training import run as runner
    from nemo_aligner_cai.training.checkpoint import read_settings
    from nemo_aligner_cai.training.hf_layout import model_settings

    folder = args.source if args.direction == "to-nemo" else args.reference
    settings = read_settings(folder)
    wanted = model_settings(settings, str(folder / "config.json"))
    refuse_existing(args.target, overwrite=False)
    name = _NAMES[settings["model_type"]]
    ending = "hf_to_nemo" if args.direction == "to-nemo" else "nemo_to_hf"
    script = Path(os.environ.get("NEMO_HOME", "/opt/NeMo")) / _CONVERTERS / f"{name}_{ending}.py"
    if not script.is_file() or not runner.cuda_available():
        return None
    llama = name == "convert_llama"
    scaled = wanted.get("scale_positional_embedding", False)
    if scaled and wanted["scale_factor"] != _LLAMA31_FACTOR:
        raise UsageError(
            f"{folder}: rope_scaling.factor={wanted['scale_factor']}: NeMo's converter knows {_LLAMA31_FACTOR} alone; "
            "set NEMO_HOME to an empty folder and CUDA_VISIBLE_DEVICES= to convert it on the CPU"
        )
    command = [sys.executable, str(script), "--input_name_or_path", str(args.source), "--output_path"]
    if args.direction == "to-nemo":
        command += [str(args.target), "--precision", args.precision]
        # Its --llama31 is any text but the empty one, and true unless given: it would scale every Llama's positions.
        return [*command, *(["--llama31", ""] if llama and not scaled else [])]
    if llama:
        command += [str(args.target / "pytorch_model.bin"), "--hf_output_path", str(args.target)]
        return [*command, "--hf_input_path", str(args.reference)]
    return [*command, str(args.target), "--hf_model_name", str(args.reference)]
