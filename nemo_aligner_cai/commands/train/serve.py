# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai serve MODEL.nemo`: serve a model with NeMo's text-generation server."""

import argparse

from nemo_aligner_cai.commands.common.flag_types import Number
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.shared_flags import add_chat_template_flag


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai serve`."""
    parser.epilog = "Endpoints: PUT /generate, POST /v1/completions, POST /v1/chat/completions, GET /v1/models."
    parser.examples = (
        "cai serve results/sl_cai/checkpoints/cai_sft.nemo",
        "cai serve mistral-7b.nemo --port 1427 trainer.devices=8 tensor_model_parallel_size=8",
    )
    parser.add_argument("model", metavar="MODEL.nemo", help="a .nemo file, or the folder of an extracted one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 opens the server to the network"
    )
    parser.add_argument(
        "--port", type=Number(int, 0, 65535), default=5656, help="port to listen on; 0 uses a free one"
    )
    add_chat_template_flag(parser, otherwise="(default: from the model)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides of the config cai_inference, such as trainer.devices=8 tensor_model_parallel_size=8",
    )


def run(args: argparse.Namespace) -> int:
    """Serve in this process until SIGINT or SIGTERM."""
    from nemo_aligner_cai.training.config import quoted
    from nemo_aligner_cai.training.inference_server import STAGE
    from nemo_aligner_cai.training.launch.stage_main import exit_process, main

    settings = [f"gpt_model_file={quoted(args.model)}", f"host={args.host}", f"port={args.port}"]
    if args.chat_template:
        settings.append(f"chat_template={quoted(args.chat_template)}")
    code = main(STAGE, [*settings, *args.overrides])
    if code:
        exit_process(code)
    return code
