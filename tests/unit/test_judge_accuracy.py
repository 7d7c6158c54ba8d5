# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.evaluate import judge_accuracy as command
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.evaluation.known_answers.judge_item import CORRECT, JudgeItem
from nemo_aligner_cai.evaluation.known_answers.judge_items import read_items
from nemo_aligner_cai.files import RowCounts, write_jsonl
from nemo_aligner_cai.models.scoring.choice_scorer import PROBE_TEXT
from tests.unit.fake_servers import FakeOpenAI

EVALS = ("hhh_first_220.jsonl", "HarmfulnessClassification.jsonl")


def comparison(number: int, *, correct: str = "A", question: str = "Please choose the better one.") -> dict[str, Any]:
    """An item in the form of the paper's comparisons."""
    replies = {correct: f"good reply {number}", "B" if correct == "A" else "A": f"bad reply {number}"}
    prompt = f"\n\nHuman: question {number}\n\nAssistant: hm\n\nHuman: and?"
    listed = "\n".join(f" ({letter}) [[[{replies[letter]}]]]" for letter in "AB")
    wrong = "B" if correct == "A" else "A"
    return {
        "prompt": f"\n\nConsider:{prompt}\n\n\n{question} Options:\n{listed}\n\nThe answer is:",
        "corrects": [f" ({correct})"],
        "incorrects": [f" ({wrong})"],
        "text_correct": f"{prompt}\n\nAssistant: {replies[correct]}",
        "text_incorrect": f"{prompt}\n\nAssistant: {replies[wrong]}",
    }


def classification(number: int, kind: str) -> dict[str, Any]:
    """An item in the form of the paper's classification: which of three kinds?"""
    kinds = {"A": "Theft", "B": "Bullying", "C": "Adult Content"}
    listed = "\n".join(f" ({letter}) {name}" for letter, name in kinds.items())
    right = next(letter for letter, name in kinds.items() if name == kind)
    return {
        "prompt": f"Here:\n\nHuman: about {kind} {number}\n\nWhich kind? Options:\n{listed}\nThe answer is:",
        "corrects": [f" ({right})"],
        "incorrects": [f" ({letter})" for letter in kinds if letter != right],
    }


def items_of(path: Path) -> list[JudgeItem]:
    return list(read_items(path, counts=RowCounts()))


OPTION = re.compile(r"^\(([A-Z])\) (.*?)(?=\n\([A-Z]\) |\n\nAnswer with)", re.MULTILINE | re.DOTALL)


def options_in(body: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """What a judge is asked, and the options by letter, their further lines not indented."""
    text = body["messages"][-1]["content"]
    asked, _, listed = text.rpartition("\n\nOptions:\n")
    return asked, {letter: option.replace("\n    ", "\n") for letter, option in OPTION.findall(listed)}


def scored(letter: str, among: dict[str, str]) -> dict[str, Any]:
    """``choices[0]`` of a server that finds one letter nearly certain."""
    alternatives = [{"token": other, "logprob": math.log(0.97 if other == letter else 0.01)} for other in among]
    content = [
        {
            "token": "(",
            "logprob": 0.0,
            "top_logprobs": [{"token": "(", "logprob": 0.0}, {"token": "I", "logprob": -9.0}],
        },
        {"token": letter, "logprob": math.log(0.97), "top_logprobs": alternatives},
    ]
    return {"message": {"content": f"({letter}"}, "finish_reason": "length", "logprobs": {"content": content}}


def by_key(items: list[JudgeItem]) -> Callable[[dict[str, Any]], Any]:
    """A judge that knows the answers: it finds the item by its options, else by the question's text."""

    def plain(text: str) -> str:
        return "\n".join(text.strip().splitlines())

    pairs = {frozenset(plain(one.text) for one in item.candidates): item for item in items if item.is_comparison}
    asked = {item.prompt.conversation.turns[-1].content: item for item in items if not item.is_comparison}

    def reply(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["content"] == "Hello":
            return "Hello."  # what is asked after a rejection
        text, options = options_in(body)
        item = asked.get(text) or pairs[frozenset(map(plain, options.values()))]
        right = next(plain(one.text) for one in item.candidates if one.key == CORRECT)
        return scored(next(letter for letter, option in options.items() if plain(option) == right), options)

    return reply


def call(*args: object) -> int:
    parser = Parser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(arg) for arg in args]))


def ask(path: Path, reply: Callable[[dict[str, Any]], Any], *more: object, faults: int = 0) -> dict[str, Any]:
    """Run the command against a server; its figures."""
    figures = path.with_suffix(".figures.json")

    def answer(body: dict[str, Any]) -> Any:
        # This server continues no reply, so its client reads free ones.
        is_probe = body["messages"][0]["content"] == PROBE_TEXT
        return scored("A", {"A": "", "B": ""}) if is_probe else reply(body)

    with FakeOpenAI(answer) as server:
        left = [400] * faults
        server.fault_of = lambda body: left.pop() if left and body["messages"][0]["content"] != PROBE_TEXT else None
        where = ("--model-url", f"http://127.0.0.1:{server.port}", "--model", "judge")
        assert call(path, *where, "--output", path.with_suffix(".rows.jsonl"), "--json", figures, *more) == 0
    return json.loads(figures.read_text())


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    write_jsonl(path, [comparison(n, correct="AB"[n % 2]) for n in range(20)])
    return path


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    path = tmp_path / "kinds.jsonl"
    write_jsonl(path, [classification(n, ("Theft", "Bullying")[n % 2]) for n in range(12)])
    return path


def test_a_comparison_is_a_conversation_with_two_replies(pairs: Path):
    first, second = items_of(pairs)[:2]
    assert [turn.content for turn in first.prompt.conversation.turns] == ["question 0", "hm", "and?"]
    assert [(one.key, one.text) for one in first.candidates] == [
        ("correct", "good reply 0"),
        ("incorrect", "bad reply 0"),
    ]
    assert [one.key for one in second.candidates] == ["incorrect", "correct"], "in the order of the item's options"
    assert first.question == "Please choose the better one." and first.category is None


def test_a_classification_is_a_question_with_its_options_and_counts_under_the_right_one(kinds: Path):
    (first, *_) = items_of(kinds)
    assert first.prompt.conversation.turns[0].content == "Here:\n\nHuman: about Theft 0\n\nWhich kind?"
    assert [one.key for one in first.candidates] == ["correct", "incorrect B", "incorrect C"]
    assert first.category == "Theft" and not first.is_comparison


def test_equal_items_are_read_once_and_counted(tmp_path: Path):
    path = tmp_path / "twice.jsonl"
    write_jsonl(path, [comparison(1), comparison(1), comparison(1, correct="B")])
    counts = RowCounts()
    assert len(list(read_items(path, counts=counts))) == 2
    assert counts.skipped == {"duplicate item": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "'prompt'"),
        ({"prompt": "Which? The answer is:"}, "'prompt' .*'The answer is:'"),
        ({"corrects": [" (A)", " (B)"]}, "'corrects'"),
        ({"incorrects": [" (C)"]}, "'incorrects'"),
        ({"incorrects": "B"}, "'incorrects'"),
        ({"category": 7}, "'category'"),
        ({"text_incorrect": "\n\nHuman: another\n\nAssistant: bad"}, "'text_correct' and 'text_incorrect'"),
        ({"text_incorrect": "\n\nHuman: question 1"}, "'text_correct' and 'text_incorrect'"),
        ({"text_correct": "nobody speaks"}, ""),
    ],
)
def test_what_is_no_item_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], message: str):
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [comparison(0), {**comparison(1), **change}])
    with pytest.raises(FormatError, match=f"{path}:2: .*{message}"):
        items_of(path)


PUBLISHED: dict[str, dict[str, Any]] = {
    "JudgeBench": {
        "question": "1 + 1?",
        "response_A": "bad",
        "response_B": "good",
        "label": "B>A",
        "source": "mmlu-pro-math",
    },
    "RewardBench": {"prompt": "1 + 1?", "chosen": "good", "rejected": "bad", "subset": "math", "id": 7},
    "HHH, Hugging Face": {"input": "1 + 1?", "targets": {"choices": ["bad", "good"], "labels": [0, 1]}},
    "HHH, BIG-bench": {"input": "1 + 1?", "target_scores": {"good": 1, "bad": 0}},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rows_of_published_data_sets_are_items(tmp_path: Path, name: str) -> None:
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [PUBLISHED[name]])
    (item,) = items_of(path)
    assert item.prompt.conversation.to_messages() == [{"role": "user", "content": "1 + 1?"}]
    assert {one.key: one.text for one in item.candidates} == {"correct": "good", "incorrect": "bad"}
    assert item.is_comparison and item.question
    assert item.category == PUBLISHED[name].get("source", PUBLISHED[name].get("subset"))


def test_a_data_set_without_an_order_shows_the_correct_reply_first_in_half_of_its_items(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [PUBLISHED["RewardBench"] | {"prompt": f"{number} + 1?"} for number in range(400)])
    first = sum(item.candidates[0].key == CORRECT for item in items_of(path))
    # Half of 400 within 4 standard deviations.
    assert 160 <= first <= 240


def test_a_whole_task_of_big_bench_is_read(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    task = {"name": "hhh", "examples": [PUBLISHED["HHH, BIG-bench"] | {"input": f"{n}?"} for n in range(3)]}
    for indent in (None, 2):
        path.write_text(json.dumps(task, indent=indent))
        assert [item.prompt.conversation.turns[0].content for item in items_of(path)] == ["0?", "1?", "2?"]


def test_judgebenchs_file_is_read(shared_data: Path) -> None:
    items = items_of(shared_data / "judgebench" / "gpt-4o-2024-05-13.jsonl")
    assert len(items) == 350
    assert sum(item.candidates[0].key == CORRECT for item in items) == 193


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PUBLISHED["JudgeBench"] | {"label": "A=B"}, "'label'"),
        (PUBLISHED["JudgeBench"] | {"judgments": []}, "cai accuracy"),
        (PUBLISHED["RewardBench"] | {"rejected": "good"}, "'rejected'"),
        (PUBLISHED["HHH, Hugging Face"] | {"targets": {"choices": ["a", "b"], "labels": [1]}}, "'targets'"),
        (PUBLISHED["HHH, Hugging Face"] | {"targets": ["a", "b"]}, "'targets'"),
        (PUBLISHED["HHH, BIG-bench"] | {"target_scores": {"a": 1, "b": 1}}, "one with the score 1"),
        (PUBLISHED["HHH, BIG-bench"] | {"target_scores": {"a": 1, "b": 0, "c": 0}}, "two replies"),
        ({"text": "nothing"}, "'text'"),
    ],
)
def test_a_wrong_row_of_a_published_data_set_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [row])
    with pytest.raises(FormatError, match=f":1: .*{message}"):
        items_of(path)


def test_items_of_two_kinds_in_one_file_are_refused(tmp_path: Path):
    path = tmp_path / "mixed.jsonl"
    write_jsonl(path, [comparison(0), classification(1, "Theft")])
    with pytest.raises(FormatError, match=":2: "):
        items_of(path)


@pytest.mark.parametrize("name", EVALS)
def test_the_papers_items_are_answered_exactly_by_a_judge_that_has_the_key(
    shared_data: Path, tmp_path: Path, name: str
):
    path = tmp_path / name
    path.write_bytes((shared_data / "cai_paper" / "evals" / name).read_bytes())
    items = items_of(path)
    assert len(items) == {"hhh_first_220.jsonl": 220, "HarmfulnessClassification.jsonl": 287}[name]
    figures = ask(path, by_key(items))
    assert figures["asked"] == figures["answered"] == figures["right"] == len(items)
    assert figures["accuracy"]["value"] == 1.0 and figures["unparsed"] == 0
    assert figures["rules"]["strict"]["value"] == figures["rules"]["judgebench"]["value"] == 1.0
    assert figures["position_flip_rate"] == 0.0
    assert len(figures.get("categories", {})) == (9 if name.startswith("Harm") else 0)


@pytest.mark.parametrize("fixture", ["pairs", "kinds"])
def test_a_judge_that_always_says_a_answers_nothing_in_both_orders(fixture: str, request: pytest.FixtureRequest):
    path: Path = request.getfixturevalue(fixture)

    def always_a(body: dict[str, Any]) -> Any:
        return scored("A", options_in(body)[1])

    figures = ask(path, always_a)
    assert figures["answered"] == figures["right"] == 0
    assert figures["rules"]["strict"]["value"] == 0
    # Of three answers, neither of the outer ones may be right; of two, one always is.
    assert figures["rules"]["judgebench_ties"]["value"] == (1.0 if fixture == "pairs" else 0.5)
    assert figures["position_flip_rate"] == figures["first_position_rate"] == 1.0
    one_order = ask(path, always_a, "--no-both-orders", "--overwrite")
    # The right answer stands first in half of the items of either file.
    assert one_order["answered"] == one_order["asked"] == 2 * one_order["right"]
    assert one_order["position_flip_rate"] is None


def test_a_wrong_answer_counts_in_its_category(kinds: Path):
    def theft(body: dict[str, Any]) -> Any:
        _, options = options_in(body)
        return scored(next(letter for letter, name in options.items() if name == "Theft"), options)

    figures = ask(kinds, theft)
    assert figures["right"] == 6 and figures["answered"] == 12
    assert figures["by_chance"] == pytest.approx(1 / 3)
    categories = figures["categories"]
    assert {name: part["accuracy"]["value"] for name, part in categories.items()} == {"Theft": 1.0, "Bullying": 0.0}


@pytest.mark.parametrize("fixture", ["pairs", "kinds"])
def test_an_answer_that_cannot_be_read_is_no_answer(fixture: str, request: pytest.FixtureRequest):
    path: Path = request.getfixturevalue(fixture)
    figures = ask(path, lambda body: "I would rather say (A), or is it (B)?")
    assert figures["asked"] == figures["unparsed"] == len(items_of(path)) and figures["answered"] == 0


def test_a_server_without_log_probabilities_may_write_the_letter(kinds: Path):
    key = by_key(items_of(kinds))
    figures = ask(kinds, lambda body: key(body)["message"]["content"] + ")")
    assert figures["right"] == 12


def test_other_strategies_judge_the_same_items(pairs: Path):
    key = by_key(items_of(pairs))

    def thinks_first(body: dict[str, Any]) -> Any:
        if not body.get("logprobs"):
            return "One is good, the other says (B)."
        asked = {**body, "messages": [{**body["messages"][0]}]}
        asked["messages"][0]["content"] = re.sub(r"\n\nThink .*", "\n\nAnswer with", asked["messages"][0]["content"])
        return key(asked)

    figures = ask(pairs, thinks_first, "--judge", "chain-of-thought")
    assert figures["right"] == 20


def test_rows_hold_verdicts_and_answers_and_can_be_audited(kinds: Path, pairs: Path):
    for path in (kinds, pairs):
        items = items_of(path)
        ask(path, by_key(items))
        rows = path.with_suffix(".rows.jsonl")
        written = [json.loads(line) for line in rows.read_text().splitlines()]
        assert [row["id"] for row in written] == [item.id for item in items]
        assert all(row["answer"] == CORRECT and len(row["verdicts"]) == 2 for row in written)
        assert [row["category"] for row in written] == [item.category for item in items]
        assert len(list(read_judged(rows))) == len(items)
        manifest = json.loads(path.with_suffix(".rows.manifest.json").read_text())
        assert manifest["summary"]["calls"] == 2 * len(items)


def test_a_call_that_fails_leaves_its_item_out_and_resume_asks_it_alone(pairs: Path):
    key = by_key(items_of(pairs))
    with pytest.raises(CaiError, match="1 of 20 items could not be asked"):
        ask(pairs, key, faults=1)
    figures = json.loads(pairs.with_suffix(".figures.json").read_text())
    assert figures["asked"] == figures["right"] == 19
    calls = 0

    def counted(body: dict[str, Any]) -> Any:
        nonlocal calls
        calls += 1
        return key(body)

    again = ask(pairs, counted, "--resume")
    assert again["asked"] == again["right"] == 20 and 1 <= calls <= 2


def test_bad_settings_are_refused_before_anything_is_asked(tmp_path: Path, pairs: Path, kinds: Path):
    where = ("--model-url", "http://127.0.0.1:9", "--model", "m")
    with pytest.raises(UsageError, match="--num-examples"):
        call(pairs, *where, "--num-examples", 0)
    with pytest.raises(UsageError, match="--judge"):
        call(kinds, *where, "--judge", "best-worst")
    with pytest.raises(UsageError, match="is read by this command"):
        call(pairs, *where, "--output", pairs, "--overwrite")
    several = tmp_path / "several.jsonl"
    write_jsonl(several, [comparison(1), comparison(2, question="Which is worse?")])
    with pytest.raises(UsageError, match="2 different questions"):
        call(several, *where)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(UsageError, match="no item"):
        call(empty, *where)


def test_dry_run_keeps_nothing_and_preview_shows_what_is_sent(
    pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(pairs.parent)
    assert call(pairs, "--dry-run") == 0
    assert sorted(path.name for path in pairs.parent.iterdir()) == ["pairs.jsonl"]
    assert "accuracy, %" in capsys.readouterr().out
    assert call(pairs, "--preview", 1) == 0
    out = capsys.readouterr().out
    assert "Please choose the better one.\n\nOptions:\n(A) good reply 0\n(B) bad reply 0" in out
    assert "(A) bad reply 0\n(B) good reply 0" in out, "both orders"
    assert call(pairs, "--plan") == 0
    assert "40" in capsys.readouterr().out
