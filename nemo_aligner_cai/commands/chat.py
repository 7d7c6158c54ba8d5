# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai chat`: talk to a model on the terminal."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from nemo_aligner_cai import extras
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.commands.common.flag_types import COUNT, TEMPERATURE
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.shared_flags import add_chat_template_flag
from nemo_aligner_cai.commands.common.terminal import note_line, write_line
from nemo_aligner_cai.models.base import ModelClient, Request, Sampling
from nemo_aligner_cai.models.thinking import strip_reasoning
from nemo_aligner_cai.pipeline.serving.servers import ask, served_chat
from nemo_aligner_cai.training.checks import model_file, model_kind


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai chat`."""
    parser.examples = ("cai chat results/rl_cai/checkpoints/cai_ppo_actor.nemo",)
    parser.epilog = "Each line is one turn; an empty line starts a new conversation."
    parser.add_argument("model", type=Path, help="a .nemo file, served during the conversation")
    parser.add_argument("--temperature", type=TEMPERATURE, default=0.0, help="0 is greedy decoding")
    parser.add_argument("--max-tokens", type=COUNT, default=64, help="maximum length of a reply")
    add_chat_template_flag(parser, otherwise="(default: from the model)")


def run(args: argparse.Namespace) -> int:
    """Serve the model and talk to it."""
    extras.require("cai chat")
    model_kind.check(model_file.nemo_file(args.model, "MODEL"), "MODEL")
    sampling = Sampling(temperature=args.temperature, max_tokens=args.max_tokens, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        note_line(f"loading {args.model} ...")
        with served_chat(args.model, Path(folder) / "server.log", args.chat_template) as client:
            ask(_talk(client, sampling), client)
    return 0


async def _talk(client: ModelClient, sampling: Sampling) -> None:
    """Read turns from standard input and write replies, without thoughts, until the input ends.

    A turn whose reply ends within its thoughts is dropped.
    """
    # asyncio's handler would wait for the line that is being read.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    conversation = Conversation(())
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("you: ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if not line.strip():
            conversation = Conversation(())
            continue
        asked = conversation.with_turn(Role.USER, line.strip())
        answer = strip_reasoning((await client.complete(Request(asked, sampling))).text)
        if answer is None:
            note_line(f"the reply ended within its thoughts; increase --max-tokens {sampling.max_tokens}")
            continue
        write_line(answer.strip(), keep="\n\t")
        sys.stdout.flush()
        # Models are trained on earlier turns without their thoughts.
        conversation = asked.with_turn(Role.ASSISTANT, answer.strip())
