# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that several commands have."""

import argparse
from collections.abc import Mapping

from nemo_aligner_cai.chat import TEMPLATES, TokenPolicy
from nemo_aligner_cai.commands.common.flag_types import COUNT, system_message
from nemo_aligner_cai.commands.common.parser import FlagGroup, Parser
from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from nemo_aligner_cai.errors import UsageError

NEMO_TEMPLATE_FLAGS = {
    "user_format": r"<extra_id_1>User\n{MESSAGE}\n<extra_id_1>Assistant\n",
    "assistant_format": r"{MESSAGE}\n",
    "system_format": r"<extra_id_0>System\n{MESSAGE}\n",
    "system_default_message": "",
    "bos_token": None,
    "eos_token": "<extra_id_1>",
    "response_extract_pattern": r"<extra_id_1>Assistant\n",
}
"""Upstream's template flags, with the defaults of its scripts that write reward-model and PPO files."""


_TEMPLATE_TEXTS = {
    "user_format": "a user's turn and the beginning of the reply",
    "assistant_format": "a reply and what follows it",
    "system_format": "the system message",
    "system_default_message": "the system message of conversations without one",
    "bos_token": "the text before each conversation",
    "eos_token": "the text that ends each conversation",
    "response_extract_pattern": "the text after which a reply begins",
}


def add_template_format_flags(group: FlagGroup, defaults: Mapping[str, str | None]) -> None:
    """Add upstream's seven flags for the chat template."""
    for name, default in defaults.items():
        group.add_argument(f"--{name}", type=str, metavar="TEXT", default=default, help=_TEMPLATE_TEXTS[name])


def add_chat_template_flag(group: Parser | FlagGroup, *, otherwise: str) -> None:
    """Add ``--chat-template``; `otherwise` completes the help text."""
    names = ", ".join(TEMPLATES)
    help_text = f"{names}, or the folder of a Hugging Face tokenizer {otherwise}"
    group.add_argument("--chat-template", metavar="NAME", help=help_text)


def add_system_message_flag(group: Parser | FlagGroup, which: str) -> None:
    """Add ``--system-message`` for the conversations or prompts named by `which`."""
    group.add_argument(
        "--system-message",
        type=system_message,
        metavar="TEXT",
        default="",
        help=f"system message of {which} without one; SFT with some tokenizers needs it (GPT-2's pre-tokenizer, such "
        "as SmolLM2's)",
    )


def add_template_tokens_flag(parser: Parser) -> None:
    """Add ``--on-template-tokens``."""
    parser.add_argument(
        "--on-template-tokens",
        choices=[policy.value for policy in TokenPolicy],
        default=TokenPolicy.ESCAPE.value,
        help="action for texts that contain tokens of the chat template",
    )


def add_tokenizer_flags(parser: Parser, purpose: str) -> None:
    """Add ``--tokenizer``, ``--seq-length`` and ``--response-length``."""
    parser.add_argument(
        "--tokenizer", help=f"SentencePiece .model file or Hugging Face tokenizer folder of the model, {purpose}"
    )
    parser.add_argument("--seq-length", type=COUNT, help="the model's sequence length; needs --tokenizer")
    parser.add_argument(
        "--response-length",
        type=COUNT,
        help="for PPO's prompts, the part of --seq-length that is the reply's: model.ppo.length_params.max_length "
        "(default: half)",
    )


def requested_tokenizer(args: argparse.Namespace) -> Tokenizer | None:
    """Load the tokenizer of ``--tokenizer``; raises UsageError unless both flags or neither are given."""
    if (args.tokenizer is None) != (args.seq_length is None):
        raise UsageError("give --tokenizer and --seq-length together")
    if args.response_length is not None and args.seq_length is None:
        raise UsageError("--response-length needs --tokenizer and --seq-length")
    return load_tokenizer(args.tokenizer) if args.tokenizer else None
