# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Random conversations that look for trouble: any Unicode, nothing at all, template tokens whole and in pieces."""

import random

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, Message, Role

# What tokenizers have words for, what they take apart, and what stands in templates.
SENTENCES = (
    "how do i open the door please thanks no yes . , ! ? a b I'm sorry can't 12 2.5 User Assistant System",
    "é Système 中文 🎈 ﬁ ﷺ <extra_id_ <extra_id_1> <extra_id_0> > < _1 id ]] ) '",
)
_SPACES = ("\n", "\n\n", " ", "  \t", '"', "\u2028", "\u00a0", "\x00", "\x11", "<extra_id_1>Assistant\n")
_WORDS = (*(word for sentence in SENTENCES for word in sentence.split()), *_SPACES)
_PLANES = (0x80, 0x250, 0x3000, 0xFFFF, 0x1FFFF, 0x10FFFF)


def text(random_: random.Random, *, rare: float = 0.125) -> str:
    """Up to a dozen words, a share of them characters from anywhere in Unicode but the halves of surrogate pairs."""
    words = [random_.choice(_WORDS) for _ in range(random_.randrange(12))]
    for position in range(len(words)):
        if random_.random() < rare:
            words[position] = chr(random_.randrange(random_.choice(_PLANES)))
    return random_.choice(["", " "]).join(words).encode("utf-8", "ignore").decode()


def conversation(
    random_: random.Random, *, template: ChatTemplate | None = None, labels: bool = False, any_order: bool = False
) -> Conversation:
    """One to three exchanges, now and then with a user turn at the end.

    Args:
        random_: decides everything.
        template: whose tokens are escaped; None to leave them in.
        labels: give some messages a label, and escape NeMo's tokens, by which labels are found.
        any_order: let anybody speak at any time, one conversation in eight.
    """
    template = template or (NEMO_CHAT if labels else None)

    def message(role: Role) -> Message:
        label = f"quality:{random_.randrange(5)}" if labels and random_.random() < 0.6 else None
        said = text(random_)
        return Message(role, template.escape(said) if template else said, label)

    start = (message(Role.SYSTEM),) if random_.random() < 0.5 else ()
    turns = [message(role) for _ in range(random_.randint(1, 3)) for role in (Role.USER, Role.ASSISTANT)]
    if random_.random() < 0.1:
        turns.append(message(Role.USER))
    if any_order and random_.random() < 0.125:
        random_.shuffle(turns)
    return Conversation((*start, *turns))
