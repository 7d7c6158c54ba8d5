# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Conversations, and the chat templates that render them for generation, SFT, reward model, PPO and inference.

Input:  Conversation((Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Hello")))
Output: "<extra_id_0>System\n\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\nHello\n<extra_id_1>"

Upstream renders each stage with its own code, and its comparisons end differently from its SFT texts. Here one
template serves all stages.
"""

from nemo_aligner_cai.chat.control_tokens import CONTROL_TOKENS, JUDGED_TOKENS
from nemo_aligner_cai.chat.messages import Conversation, Message, Role, require_user_last
from nemo_aligner_cai.chat.named import TEMPLATES, template_named
from nemo_aligner_cai.chat.nemo import NEMO_CHAT, ChatTokens, LabelType, NemoChatTemplate, Segment
from nemo_aligner_cai.chat.strings import TEMPLATE_FLAGS, StringTemplate, template_from_flags, unescape
from nemo_aligner_cai.chat.template import ChatTemplate, TokenPolicy, guard

__all__ = [
    "CONTROL_TOKENS",
    "JUDGED_TOKENS",
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
