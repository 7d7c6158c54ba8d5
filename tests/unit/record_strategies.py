# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Records for property tests: any that a format could meet, and some that every format of their kind can hold."""

from hypothesis import strategies as st

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Message, Role
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Rated, Record, Scored

TEXTS = st.text(max_size=20).map(NEMO_CHAT.escape)
DATASETS = st.none() | st.sampled_from(["hh", "sl_cai_samples", "Système 中文 🎈"])
REWARDS = st.just((None, None)) | st.tuples(st.floats(-10, 10), st.floats(-10, 10))


@st.composite
def prompts(draw: st.DrawFn) -> Conversation:
    """One to three user turns with replies between them, and a system message or none."""
    system = draw(TEXTS)
    turns = [Message(Role.SYSTEM, system)] if system else []
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        turns += [Message(Role.USER, draw(TEXTS)), Message(Role.ASSISTANT, draw(TEXTS))]
    return Conversation((*turns, Message(Role.USER, draw(TEXTS))))


@st.composite
def records(draw: st.DrawFn, kind: type) -> Record:
    """Any record of a kind; a chat has neither labels nor a mask of its own, for which only one format has room."""
    prompt, reply, dataset = draw(prompts()), draw(TEXTS), draw(DATASETS)
    if kind is Comparison:
        rejected = draw(TEXTS.filter(lambda text: text != reply))
        return Comparison(prompt, reply, rejected, dataset, *draw(REWARDS))
    if kind is PromptOnly:
        return PromptOnly(prompt, dataset, draw(st.none() | st.sampled_from(["safe", "unsafe"])))
    if kind is Rated:
        return Rated(prompt, reply, draw(st.booleans()), dataset)
    whole = prompt.with_turn(Role.ASSISTANT, reply)
    if kind is Scored:
        scores = draw(st.lists(st.integers(0, 4).map(float) | st.just(-100.0), min_size=9, max_size=9))
        return Scored(whole, (4.0, *scores[1:]), dataset)
    return Chat(whole, dataset)


_ASKED = [Conversation.of_user(text) for text in ("Q", 'a "b", c\n\td\u2028é', "Où est « 中文 » 🎈?\r\nHuman: me")]
_REPLIES = ["A", "non,\nnever\\n", "Système: 不行 🙅"]


def held_by_all(kind: type) -> list[Record]:
    """Records that every format of the kind can hold: one user turn, replies with words, text of many scripts."""
    asked = list(zip(_ASKED, _REPLIES, strict=True))
    whole = [prompt.with_turn(Role.ASSISTANT, reply) for prompt, reply in asked]
    made: dict[type, list[Record]] = {
        Chat: [Chat(conversation, "hh") for conversation in whole],
        Comparison: [Comparison(prompt, reply, f"{reply}, no", "Système", 1.5, -0.25) for prompt, reply in asked],
        PromptOnly: [PromptOnly(prompt, "xs", "unsafe") for prompt, _ in asked],
        Rated: [Rated(prompt, reply, len(reply) == 1, "hh") for prompt, reply in asked],
        Scored: [Scored(conversation, (-100.0, 1.0, *[4.0] * 7), "hh") for conversation in whole],
    }
    return made[kind]
