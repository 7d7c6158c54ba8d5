# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Conversations, and the one renderer of every stage: generation, SFT, reward model, PPO and inference.

Input:  Conversation((Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Hello")))
Output: "<extra_id_0>System\n\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\nHello\n<extra_id_1>"

Upstream renders the stages by different code, and its comparisons end unlike what its SFT teaches. Here a template
knows how to render a whole conversation as SFT trains on it, how to stop right where the assistant speaks, and how to
find the reply again in what a server returns; the first is always the second plus the reply plus a fixed ending.
"""

from nemo_aligner_cai.chat.control_tokens import CONTROL_TOKENS
from nemo_aligner_cai.chat.messages import Conversation, Message, Role, require_user_last
from nemo_aligner_cai.chat.named import CHATML, LLAMA3, MISTRAL_INSTRUCT, TEMPLATES, template_named
from nemo_aligner_cai.chat.nemo import NEMO_CHAT, ChatTokens, LabelType, NemoChatTemplate
from nemo_aligner_cai.chat.strings import TEMPLATE_FLAGS, StringTemplate, template_from_flags, unescape
from nemo_aligner_cai.chat.template import ChatTemplate, Segment, TokenPolicy, guard

__all__ = [
    "CHATML",
    "CONTROL_TOKENS",
    "LLAMA3",
    "MISTRAL_INSTRUCT",
    "NEMO_CHAT",
    "TEMPLATES",
    "TEMPLATE_FLAGS",
    "ChatTemplate",
    "ChatTokens",
    "Conversation",
    "LabelType",
    "Message",
    "NemoChatTemplate",
    "Role",
    "Segment",
    "StringTemplate",
    "TokenPolicy",
    "guard",
    "require_user_last",
    "template_from_flags",
    "template_named",
    "unescape",
]
