# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The calls of journals that count: those of the same model, and replies that had enough room."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.engine.engine import Engine, Outcome, Step
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import Completion, Request, Sampling, ScriptedClient
from nemo_aligner_cai.models.base import Usage
from nemo_aligner_cai.prompts import Prompt
from tests.unit.journals import MODEL, call, done, found, write


def test_journals_of_two_models_under_one_name_are_not_read_together(tmp_path: Path) -> None:
    def served(name: str, *models: dict[str, str]) -> Path:
        async def run() -> None:
            journal = Journal.open(tmp_path / name)
            for model in models:
                journal.append_served_model(MODEL, model)
            await journal.close()

        asyncio.run(run())
        return tmp_path / name

    def read(*paths: Path) -> Journal:
        journal = Journal.open(tmp_path / "own", resume=True, sources=paths)
        asyncio.run(journal.close())
        return journal

    old, again = (served(name, {"fingerprint": "aa"}, {"fingerprint": "bb"}) for name in ("old", "again"))
    new, nameless = served("new", {"fingerprint": "cc"}), served("nameless", {"id": "m"})
    assert len(old.read_bytes().splitlines()) == 2
    assert read(old, again).served_model(MODEL) == {"fingerprint": "aa"}
    assert read(old, nameless).served_model(MODEL) == {"id": "m"}
    assert read().served_model(MODEL) is None and not read(old).had_calls
    with pytest.raises(UsageError, match=rf"{old} and {new}: .* aa and cc"):
        read(old, new)

    async def record() -> None:
        journal = Journal.open(tmp_path / "own", resume=True, sources=[old])
        for _ in range(2):
            journal.append_served_model(MODEL, {"fingerprint": "aa"})
        await journal.close()

    asyncio.run(record())
    assert len((tmp_path / "own").read_bytes().splitlines()) == 2, "the written journal says it itself"
    assert read().served_model(MODEL) == {"fingerprint": "aa"}


def served_and_called(path: Path, *events: str | Call) -> Path:
    """A journal of replies, whose text is the path's name, and of the fingerprints that the server reported."""

    async def run() -> None:
        journal = Journal.open(path, resume=True)
        for event in events:
            if isinstance(event, Call):
                journal.append([done(event, path.name)])
            else:
                journal.append_served_model(MODEL, {"fingerprint": event})
        await journal.close()

    asyncio.run(run())
    return path


def test_calls_count_if_the_next_report_of_the_server_confirms_the_model(tmp_path: Path) -> None:
    calls = [call(str(number)) for number in range(5)]
    one, two, three, four, _ = calls
    cases: list[tuple[str, tuple[str | Call, ...], str]] = [
        ("confirmed", ("A", one, "A", two, "A"), "12"),
        ("not checked yet", ("A", one, "A", two), "12"),
        ("resumed", ("A", one, "A", "A", two, "A"), "12"),
        ("before the first report", (one, "A", two), "12"),
        ("replaced and back", ("A", one, "B", two, "A", three), "3"),
        ("written behind the report", ("A", one, "A", two, "B", three), "1"),
        ("replaced by several", ("A", one, "A", two, "B", three, "C", four, "A"), "1"),
        ("replaced twice", ("A", "B", one, "A", two, "A", three, "B", four, "A"), "2"),
        ("found by the next run", ("A", one, "A", two, "B", "A"), "1"),
    ]
    for name, events, counted in cases:
        texts = found(served_and_called(tmp_path / name, *events), *calls)
        assert "".join(str(n) for n, text in enumerate(texts, start=1) if text) == counted, name


def test_a_report_about_another_client_changes_nothing(tmp_path: Path) -> None:
    def other(fingerprint: str) -> None:
        journal.append_served_model({"server": "other"}, {"fingerprint": fingerprint})

    async def run() -> None:
        for fingerprint in "AB":
            other(fingerprint)
            journal.append_served_model(MODEL, {"fingerprint": "M"})
            journal.append([done(call(fingerprint))])
        await journal.close()

    journal = Journal.open(tmp_path / "j")
    asyncio.run(run())
    assert found(tmp_path / "j", call("A"), call("B")) == ["x", "x"]


@pytest.mark.parametrize("order", [("good", "uncertain"), ("uncertain", "good")])
def test_an_uncertain_call_hides_none_of_another_journal(tmp_path: Path, order: tuple[str, ...]) -> None:
    served_and_called(tmp_path / "good", "A", call("1"), "A")
    served_and_called(tmp_path / "uncertain", "A", call("1"), "B", "A", call("2"), "A")
    journal = Journal.open_to_read(*(tmp_path / name for name in order))
    texts = [completion and completion.text for completion in map(journal.lookup, (call("1").key, call("2").key))]
    asyncio.run(journal.close())
    assert texts == ["good", "uncertain"]


def test_an_uncertain_batch_is_dropped_whole_and_the_next_one_is_found(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal.open(tmp_path / "j")
        for model, batch in (("A", "a"), ("B", "b"), ("A", "c")):
            journal.append_served_model(MODEL, {"fingerprint": model})
            journal.append([done(call(f"{batch}{number}", shared=2)) for number in range(3)], batch=batch)
        await journal.close()

    asyncio.run(run())
    expected = {"a": None, "b": None, "c": "x"}
    for batch, text in expected.items():
        assert found(tmp_path / "j", *(call(f"{batch}{number}", shared=2) for number in range(3))) == [text] * 3


def test_a_new_journal_does_not_begin_with_another_model_than_those_it_reads(tmp_path: Path) -> None:
    source, own = served_and_called(tmp_path / "source", "A", call("1"), "A"), tmp_path / "own"

    def run(*reports: str, adopted: bool = False) -> bytes:
        async def open_and_report() -> None:
            journal = Journal.open(own, resume=True, sources=[source])
            if adopted:
                journal.adopt_served_model(MODEL)
            for report in reports:
                journal.append_served_model(MODEL, {"fingerprint": report})
            await journal.close()

        asyncio.run(open_and_report())
        return own.read_bytes()

    assert run("B") == b""
    assert run("A", "B").count(b"\n") == 2
    own.unlink()
    assert [json.loads(line)["served"]["fingerprint"] for line in run("B", adopted=True).splitlines()] == ["A", "B"]
    assert run("A", adopted=True).count(b"\n") == 3, "it has a record of its own"


def vote(number: int, *, room: int) -> Call:
    return Call("vote", str(number), 0, Request(Conversation.of_user(f"Q{number}"), Sampling(), room=room), MODEL)


def replied(one: Call, finish_reason: str) -> tuple[str, Call, Completion]:
    return one.key, one, Completion(f"{finish_reason} {one.request.room}", finish_reason)


def votes_found(journal: Journal, room: int) -> list[str | None]:
    found = [journal.lookup(vote(number, room=room).key, room=room) for number in range(2)]
    return [completion and completion.text for completion in found]


def test_a_reply_counts_for_another_room_unless_a_smaller_one_has_cut_it(tmp_path: Path) -> None:
    assert len({vote(1, room=room).key for room in (0, 1024, 4096)}) == 1
    path = tmp_path / "j"
    write(path, (None, [replied(vote(0, room=1024), "stop"), replied(vote(1, room=1024), "length")]))
    journal = Journal.open_to_read(path)
    for room in (0, 512, 1024):
        assert votes_found(journal, room) == ["stop 1024", "length 1024"]
    assert votes_found(journal, 1025) == ["stop 1024", None]
    # Earlier versions wrote no room: that of these keys was the default one.
    path.write_bytes(path.read_bytes().replace(b',"room":1024', b""))
    assert votes_found(Journal.open_to_read(path), 1024) == ["stop 1024", "length 1024"]
    assert votes_found(Journal.open_to_read(path), 4096) == ["stop 1024", None]


@pytest.mark.parametrize(
    ("text", "tokens", "counts"),
    [
        ("(A) because", 8, True),
        ("(A) because", 1024, False),
        ("<think>Hm, (A) and", 8, False),
        ("<think>Hm</think>(A) because", 8, True),
        ("(A) because", None, False),
    ],
)
def test_a_reply_that_used_no_room_counts_for_every_one(
    tmp_path: Path, text: str, tokens: int | None, counts: bool
) -> None:
    one = Call("vote", "1", 0, Request(Conversation.of_user("Q"), Sampling(max_tokens=8), room=1024), MODEL)
    usage = None if tokens is None else Usage(10, tokens)
    write(tmp_path / "j", (None, [(one.key, one, Completion(text, "length", usage))]))
    assert (Journal.open_to_read(tmp_path / "j").lookup(one.key, room=4096) is not None) == counts


@pytest.mark.parametrize("order", [("small", "large"), ("large", "small")])
def test_a_cut_reply_hides_none_of_a_larger_room(tmp_path: Path, order: tuple[str, ...]) -> None:
    write(tmp_path / "small", (None, [replied(vote(number, room=1024), "length") for number in range(2)]))
    large = [replied(vote(0, room=4096), "length"), replied(vote(1, room=4096), "stop")]
    write(tmp_path / "large", (None, large))
    journal = Journal.open_to_read(*(tmp_path / name for name in order))
    assert votes_found(journal, 4096) == ["length 4096", "stop 4096"]
    assert votes_found(journal, 5000) == [None, "stop 4096"]


def test_a_hidden_call_of_a_batch_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path / "large", (None, [replied(vote(0, room=4096), "length")]))
    write(tmp_path / "small", ("batch", [replied(vote(number, room=1024), "length") for number in range(2)]))
    journal = Journal.open_to_read(tmp_path / "large", tmp_path / "small")
    assert votes_found(journal, 1024) == ["length 4096", "length 1024"]


def test_a_model_that_no_journal_has_is_not_adopted(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    journal.adopt_served_model(MODEL)
    asyncio.run(journal.close())
    assert not (tmp_path / "j").read_bytes()


def test_the_last_of_equal_calls_counts_also_if_it_was_cut_at_the_same_limit(tmp_path: Path) -> None:
    path, one = tmp_path / "j", call("1", max_tokens=8)
    write(path, (None, [replied(one, "stop")]), (None, [replied(one, "length")]))
    assert found(path, one) == ["length 0"]


def test_each_client_has_a_served_model_of_its_own(tmp_path: Path) -> None:
    async def run() -> Journal:
        journal = Journal.open(tmp_path / "j")
        journal.append_served_model(MODEL, {"id": "a"})
        journal.append_served_model({"server": "other"}, {"id": "b"})
        await journal.close()
        return journal

    journal = asyncio.run(run())
    assert len((tmp_path / "j").read_bytes().splitlines()) == 2
    assert (journal.served_model(MODEL), journal.served_model({"server": "other"})) == ({"id": "a"}, {"id": "b"})


def test_a_larger_room_asks_again_for_the_votes_that_were_cut(tmp_path: Path) -> None:
    def reply(request: Request) -> Completion:
        is_cut = request.conversation.messages[0].content == "hard" and request.room < 4096
        return Completion(f"room {request.room}", "length" if is_cut else "stop")

    def run(room: int) -> tuple[int, list[str]]:
        texts: list[str] = []

        def absorb(prompt: Prompt, completions: Sequence[Completion]) -> Prompt:
            texts.extend(completion.text for completion in completions)
            return prompt

        async def vote() -> None:
            journal = Journal.open(tmp_path / "j", resume=True)
            step = Step("vote", client, lambda one: [Request(one.conversation, Sampling(), room=room)], absorb)
            outcomes: list[Outcome[Prompt]] = []
            await Engine(seed=1, journal=journal).run(prompts, [step], outcomes.append)
            await journal.close()

        client = ScriptedClient(reply)
        asyncio.run(vote())
        return len(client.requests), texts

    prompts = [Prompt(name, Conversation.of_user(name)) for name in ("easy", "hard")]
    assert run(1024) == (2, ["room 1024", "room 1024"])
    assert run(4096) == (1, ["room 1024", "room 4096"])
    assert run(4096) == run(1024) == (0, ["room 1024", "room 4096"])
