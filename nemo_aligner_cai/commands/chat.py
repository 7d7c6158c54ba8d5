# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``cai chat``: talk to a model from the terminal."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from nemo_aligner_cai import extras
from nemo_aligner_cai.chat import TEMPLATES, Conversation, Role
from nemo_aligner_cai.commands.common.flag_types import COUNT, TEMPERATURE
from nemo_aligner_cai.commands.common.terminal import note_line, write_line
from nemo_aligner_cai.models.base import ModelClient, Request, Sampling
from nemo_aligner_cai.models.thinking import strip_reasoning
from nemo_aligner_cai.pipeline.serving import ask, served_chat
from nemo_aligner_cai.training.checks import model_file, model_kind


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add ``cai chat``."""
    parser = subparsers.add_parser(
        "chat",
        help="talk to a model from the terminal",
        description="One line is one turn; an empty line starts anew.",
    )
    parser.add_argument("model", type=Path, help="a .nemo file; it is served for as long as you talk")
    parser.add_argument(
        "--temperature", type=TEMPERATURE, default=0.0, help="0, the default, takes the likeliest words"
    )
    parser.add_argument("--max-tokens", type=COUNT, default=64, help="longest reply, in tokens")
    parser.add_argument(
        "--chat-template",
        metavar="NAME",
        help=f"{', '.join(TEMPLATES)}, or the folder of a Hugging Face tokenizer (default: what the model names)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    extras.require("cai chat")
    model_kind.check(model_file.nemo_file(args.model, "MODEL"), "MODEL")
    sampling = Sampling(temperature=args.temperature, max_tokens=args.max_tokens, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        note_line(f"loading {args.model} ...")
        with served_chat(args.model, Path(folder) / "server.log", args.chat_template) as client:
            ask(_talk(client, sampling), client)
    return 0


async def _talk(client: ModelClient, sampling: Sampling) -> None:
    """Read lines from standard input and write replies, without thoughts, to standard output until it ends.

    A line whose reply ends within its thoughts is forgotten.
    """
    # asyncio's own handler would wait for the line that is being read.
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
            note_line(
                f"the reply was cut within its thoughts, at --max-tokens {sampling.max_tokens}; ask again with more"
            )
            continue
        write_line(answer.strip(), keep="\n\t")
        sys.stdout.flush()
        # Models are trained on turns without the thoughts before them.
        conversation = asked.with_turn(Role.ASSISTANT, answer.strip())
