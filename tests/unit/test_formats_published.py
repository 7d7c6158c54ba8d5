# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Published rows that look alike are told apart, and each says what its columns mean."""

import json
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS, matching
from nemo_aligner_cai.data.formats.files import read_records
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, Rated
from nemo_aligner_cai.files import Row, RowCounts

ASK = {"role": "user", "content": "Q"}
RED, DOG = ({"role": "assistant", "content": text} for text in "AB")
ASKED = Conversation.of_user("Q")
ANSWERED = ASKED.with_turn(Role.ASSISTANT, "A")
HEAD = "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"


def read(name: str, *rows: Row) -> Any:
    return FORMATS[name].read(rows, NEMO_CHAT)


def test_space_before_a_reply_goes_only_after_a_transcript():
    assert read("alpaca", {"instruction": "Q", "output": " A"}) == Chat(ASKED.with_turn(Role.ASSISTANT, " A"))
    assert read("question-answer", {"prompt": "\n\nHuman: Q\n\nAssistant:", "response": " A\n"}) == Chat(ANSWERED)


HH = "\n\nHuman: Q\n\nAssistant:"
SIMILAR: list[tuple[Row, str]] = [
    ({"prompt": HH, "chosen": HH + " A", "rejected": HH + " B"}, "anthropic-hh"),
    ({"prompt": HH, "chosen": " A", "rejected": " B"}, "preference-texts"),
    ({"prompt": "Q", "chosen": RED, "rejected": DOG}, "preference-texts"),
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "nemo-rl-binary-preference"),
    ({"prompt": "Q", "chosen_response": "A", "rejected_response": "B"}, "preference-texts"),
    ({"prompt": HEAD, "chosen_response": "A", "rejected_response": "B"}, "dpo"),
    ({"prompt": "Q", "safer_response_id": 1}, "plain-prompts"),
    ({"prompt": {"text": "Q"}, "message_tree_id": "x"}, "oasst"),
    ({"prompt": {"text": "Q", "replies": []}}, "oasst"),
    ({"prompt": {"text": "Q"}}, "plain-prompts"),
    ({"text": HEAD}, "ppo-prompts"),
    ({"text": HEAD[:-1]}, "ppo-prompts"),
    ({"text": HEAD + "A\n<extra_id_1>"}, "rm-comparisons"),
    ({"text": HEAD, "label": [1]}, "rm-regression"),
]


@pytest.mark.parametrize(("row", "name"), SIMILAR)
def test_rows_that_look_alike_are_told_apart(row: Row, name: str):
    assert matching(row, FORMATS) is FORMATS[name]


def test_copies_of_hh_with_the_prompt_in_each_reply_are_read_as_hh(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": HH, "chosen": HH + " A", "rejected": HH + " B"}))
    assert list(read_records(path, counts=RowCounts())) == [Comparison(ASKED, "A", "B")]


@pytest.mark.parametrize("history", [None, "", []])
def test_a_history_may_be_empty(history: Any):
    assert read("alpaca", {"instruction": "Q", "output": "A", "history": history}) == Chat(ANSWERED)


def test_turns_of_a_history_come_first():
    row = {"instruction": "R", "output": "B", "history": [["Q", "A"]]}
    longer = ANSWERED.with_turn(Role.USER, "R").with_turn(Role.ASSISTANT, "B")
    assert read("alpaca", row) == Chat(longer)
    assert read("unpaired-texts", {**row, "label": True}) == Rated(Conversation(longer.messages[:3]), "B", True)


@pytest.mark.parametrize("key", ["label", "kto_tag", "is_safe"])
@pytest.mark.parametrize(
    ("value", "good"),
    [(True, True), (False, False), (1, True), (0, False), ("True", True), ("false", False), ("1", True), ("0", False)],
)
def test_a_verdict_is_true_or_false_in_each_spelling(key: str, value: Any, good: bool):
    row = {"instruction": "Q", "output": "A", key: value, "dataset": "hh"}
    assert matching(row, FORMATS) is FORMATS["unpaired-texts"]
    assert read("unpaired-texts", row) == Rated(ASKED, "A", good, "hh")


@pytest.mark.parametrize("value", [2, -1, 0.5, "yes", None, [True]])
def test_a_label_of_another_kind_is_no_verdict(value: Any):
    assert matching({"instruction": "Q", "output": "A", "label": value}, FORMATS) is FORMATS["alpaca"]


@pytest.mark.parametrize(("chosen", "rejected"), [("A", "B"), (RED, DOG), ([RED], [DOG])])
def test_replies_to_a_question_are_texts_or_messages(chosen: Any, rejected: Any):
    row = {"question": "Q", "chosen": chosen, "rejected": rejected}
    assert matching(row, FORMATS) is FORMATS["preference-texts"]
    assert read("preference-texts", row) == Comparison(ASKED, "A", "B")


def test_whole_conversations_next_to_a_question_are_read_as_conversations():
    row = {"question": "Q", "chosen": [ASK, RED], "rejected": [ASK, DOG]}
    assert matching(row, FORMATS) is FORMATS["trl-preference-implicit"]


@pytest.mark.parametrize(
    ("key", "text", "order"), [("answers", "answer", "rank"), ("completions", "response", "overall_score")]
)
def test_answers_are_compared_where_one_is_better(key: str, text: str, order: str):
    better, worse = (1, 3) if order == "rank" else (3, 1)
    answers = [
        {text: "A", order: better},
        {text: "B", order: worse},
        {text: "C", order: better},
        {text: "A", order: 2},
    ]
    record = read("ranked-answers", {"prompt": "Q", key: answers})
    assert {(pair.chosen, pair.rejected) for pair in record.comparisons} == {("A", "B"), ("C", "B"), ("C", "A")}
    assert all(pair.prompt == ASKED for pair in record.comparisons)


def test_one_answer_alone_is_compared_with_nothing():
    row = {"prompt": "Q", "answers": [{"answer": "A", "rank": 1}]}
    assert matching(row, FORMATS) is FORMATS["ranked-answers"]
    assert read("ranked-answers", row) == Judged(ASKED, ())


@pytest.mark.parametrize("change", [{"safer_response_id": "0"}, {"better_response_id": 0}, {"safer_response_id": "1"}])
def test_one_of_two_choices_is_enough(change: Row):
    texts = "AB" if 0 in map(int, change.values()) else "BA"
    row = {"prompt": "Q", "response_0": texts[0], "response_1": texts[1], **change}
    assert matching(row, FORMATS) is FORMATS["pku-saferlhf"]
    assert read("pku-saferlhf", row) == Comparison(ASKED, "A", "B")
