# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai serve MODEL.nemo`: NeMo's text-generation server."""

import argparse
from typing import Any

from nemo_aligner_cai.chat import TEMPLATES
from nemo_aligner_cai.commands.common.flag_types import Number


def add_parser(subparsers: Any) -> None:
    """Declare `cai serve`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="serve a .nemo model with NeMo's text-generation server",
        description="Serve a .nemo model: PUT /generate, POST /v1/completions, POST /v1/chat/completions, GET "
        "/v1/models.",
    )
    parser.add_argument("model", metavar="MODEL.nemo", help="a .nemo file or an extracted one's folder")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    parser.add_argument("--port", type=Number(int, 0, 65535), default=5656, help="default: 5656; 0 takes a free one")
    parser.add_argument(
        "--chat-template",
        metavar="NAME",
        help=f"{', '.join(TEMPLATES)}, or the folder of a Hugging Face tokenizer (default: what the model names)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="overrides of the config cai_inference, on one side of the flags: tensor_model_parallel_size=8 ...",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve in this process until SIGINT or SIGTERM."""
    from nemo_aligner_cai.training.config import quoted
    from nemo_aligner_cai.training.inference_server import STAGE
    from nemo_aligner_cai.training.launch.stage import exit_process, main

    settings = [f"gpt_model_file={quoted(args.model)}", f"host={args.host}", f"port={args.port}"]
    if args.chat_template:
        settings.append(f"chat_template={quoted(args.chat_template)}")
    code = main(STAGE, [*settings, *args.overrides])
    if code:
        exit_process(code)
    return code
