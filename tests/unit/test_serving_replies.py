# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Where a generated reply ends, and what of it is streamed (D1)."""

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.training.serving.replies import Ending, Reply, Stream

CHAT = Ending((), NEMO_CHAT)


@pytest.mark.parametrize(
    ("ending", "text", "ended", "reply"),
    [
        (CHAT, "i will\n<extra_id_1>User\nand", False, Reply("i will", "stop")),
        (CHAT, "i will\n", True, Reply("i will", "stop")),
        (CHAT, "i will\n", False, Reply("i will\n", "length")),
        (CHAT, "", True, Reply("", "stop")),
        (Ending(("help",), NEMO_CHAT), "i will help\n<extra_id_1>", False, Reply("i will ", "stop")),
        (Ending(("User",), NEMO_CHAT), "i will\n<extra_id_1>User", False, Reply("i will", "stop")),
        (Ending(("b", "a")), "xxabxx", False, Reply("xx", "stop")),
        (Ending(()), "i will\n<extra_id_1>", False, Reply("i will\n<extra_id_1>", "length")),
        (Ending(()), "i will", True, Reply("i will", "stop")),
    ],
)
def test_d1_a_reply_ends_at_the_first_of_its_strings(ending: Ending, text: str, ended: bool, reply: Reply) -> None:
    assert ending.reply(text, ended=ended) == reply


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("ending", "text", "ended"),
    [
        (CHAT, "i will\n\nhelp\n<extra_id_1>", True),
        (CHAT, "i will < help <extra\n", True),
        (CHAT, "i will\n", False),
        (Ending(("stop here",)), "do not stop at once, but stop here", False),
        (Ending(("aab",)), "aaaab", False),
        (Ending(()), "caf\u00e9", True),
    ],
)
def test_d1_the_pieces_of_a_stream_are_the_reply(ending: Ending, text: str, ended: bool, size: int) -> None:
    stream = Stream(ending)
    pieces = [stream.feed(text[:end]) for end in range(size, len(text) + 1, size)]
    reply = ending.reply(text, ended=ended)
    pieces.append(stream.finish(reply))
    assert "".join(pieces) == reply.text


def test_d1_half_a_character_waits_for_its_other_half() -> None:
    stream = Stream(Ending(()))
    assert [stream.feed("caf\ufffd"), stream.feed("caf\u00e9s")] == ["caf", "\u00e9s"]
