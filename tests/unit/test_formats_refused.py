# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What each format refuses, to read and to write: the message names the key, what is wrong, and the fix."""

import re
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Chat, Comparison, PromptOnly, Record, Scored
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from tests.unit.test_fuzz_readers import good_rows

ASK = {"role": "user", "content": "Q"}
RED = {"role": "assistant", "content": "A"}
ASKED = Conversation.of_user("Q")
HEAD = "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"
RANKED = [{"rank": rank, "completion": [{**RED, "content": text}]} for rank, text in enumerate("AB")]
LABELED = {"type": "VALUE_TO_TEXT", "conversations": [{"from": "User", "value": "Q"}]}


def test_a_good_row_of_each_format_is_read():
    for name, format in FORMATS.items():
        if name != "oasst":
            assert isinstance(format.read(good_rows(name)[: format.group], NEMO_CHAT), format.kind)


# Format, what is changed in a good row (`...` takes a key away), the key that is named, and how the problem begins.
ROWS: list[tuple[str, Row, str, str]] = [
    ("sft-chat", {"system": ...}, "system", "is missing; the row has 'conversations'"),
    ("sft-chat", {"system": None}, "system", "must be a string, it is null"),
    ("sft-chat", {"conversations": ...}, "conversations", "is missing; the row has 'system'"),
    ("sft-chat", {"conversations": "Q"}, "conversations", "must be a non-empty list"),
    ("sft-chat", {"conversations": []}, "conversations", "must be a non-empty list"),
    ("sft-chat", {"conversations": ["Q"]}, "conversations", "must be a list of objects, it has .* type str"),
    ("sft-chat", {"conversations": [{"from": "gpt", "value": "Q"}]}, "from", "must be 'User' .* it is 'gpt'"),
    ("sft-chat", {"conversations": [{"from": "User", "value": "Q"}]}, "conversations", "no turn to learn from after"),
    ("sft-chat", {"mask": "System"}, "mask", "'System' has no turn in 'conversations'"),
    ("sft-chat", {"mask": "User,Assistant"}, "conversations", "no turn to learn from after the first"),
    ("sft-chat", {"type": "TEXT"}, "type", "must be null, 'VALUE_TO_TEXT' or 'TEXT_TO_VALUE', it is 'TEXT'"),
    ("sft-chat", {"type": 7}, "type", "must be a string, it is int"),
    (
        "sft-chat",
        {**LABELED, "conversations": [{"from": "User", "value": "Q", "label": 4}]},
        "label",
        "must be null or a string .*, it is int",
    ),
    (
        "rm-regression",
        {"text": HEAD + "A\n<extra_id_1>"},
        "text",
        "must end with '<extra_id_2>', .*A\\\\n<extra_id_1>'",
    ),
    (
        "rm-regression",
        {"text": HEAD[:20] + HEAD[-22:] + "A\n<extra_id_2>"},
        "text",
        "must end with a user turn and the assistant's",
    ),
    ("rm-regression", {"text": HEAD.replace("\n\n", "\n") + "A\n<extra_id_2>"}, "text", ".*with `cai convert`"),
    ("rm-regression", {"label": "good"}, "label", "must be a list of 9 numbers, -100 for an unknown one"),
    ("rm-regression", {"label": [1.0] * 8}, "label", "must be a list of 9 numbers"),
    ("rm-regression", {"label": [1.0] * 8 + [True]}, "label", "must hold numbers, it holds bool"),
    ("rm-regression", {"label": [1.0] * 8 + [None]}, "label", "must hold numbers, it holds null"),
    ("rm-regression", {"label": [-100] * 9}, "label", "all scores are masked; remove the row"),
    ("ppo-prompts", {"text": "Q"}, "text", "must end with '<extra_id_1>Assistant\\\\n', which starts the assistant's"),
    ("ppo-prompts", {"text": HEAD[:20] + HEAD[-22:]}, "text", "a prompt must have a user turn before"),
    ("dpo", {"prompt": "Q"}, "prompt", "must end with '<extra_id_1>Assistant\\\\n'"),
    ("dpo", {"chosen_response": "A"}, "chosen_response", "must end with '\\\\n<extra_id_1>' as SFT .* ends with 'A'"),
    ("dpo", {"rejected_response": "<extra_id_1>\n<extra_id_1>"}, "rejected_response", "contains .*; escape them"),
    ("dpo", {"rejected_response": "A\n<extra_id_1>"}, "rejected_response", "chosen and rejected are the same text"),
    ("dpo", {"prompt": [ASK], "chosen_response": "A"}, "chosen_response", "must be a list of objects"),
    ("dpo", {"prompt": [ASK], "chosen_response": RED}, "rejected_response", "must be a list of objects"),
    ("dpo", {"prompt": [ASK, RED]}, "prompt", "must end with a user turn; move the assistant's last turn"),
    ("kto", {"prompt": "Q"}, "prompt", "must end with '<extra_id_1>Assistant\\\\n'"),
    ("kto", {"prompt": ...}, "prompt", "is missing; the row has 'response', 'preference', 'dataset'$"),
    ("kto", {"preference": "good"}, "preference", "must be 'chosen' or 'rejected', it is 'good'"),
    ("kto", {"response": "A"}, "response", "must end with '\\\\n<extra_id_1>' as SFT teaches"),
    ("messages", {"messages": [{"role": "robot", "content": "Q"}]}, "messages", ".*unknown role 'robot'"),
    (
        "input-output",
        {"input": "\n\nHuman: Q\n\nAssistant: A"},
        "input",
        "is a transcript that must .*; move the last",
    ),
    ("input-output", {"input": "\n\nHuman: \n\nAssistant: A"}, "input", "empty turn"),
    ("input-output", {"output": 7}, "output", "must be a string, it is int"),
    ("nemo-rl-preference", {"completions": [*RANKED, RANKED[0]]}, "completions", "must be two completions"),
    ("nemo-rl-preference", {"completions": 2 * RANKED[:1]}, "completions", "must be two .* with different ranks"),
    ("nemo-rl-preference", {"completions": [RANKED[0], {**RANKED[1], "rank": None}]}, "completions", "must be two"),
    ("nemo-rl-preference", {"completions": [{**RANKED[0], "rank": None}, RANKED[1]]}, "completions", "must be two"),
    (
        "nemo-rl-preference",
        {"completions": [{**RANKED[0], "rank": "0"}, RANKED[1]]},
        "rank",
        "must be a number, .* str",
    ),
    ("nemo-rl-preference", {"completions": [{"rank": 2}, RANKED[1]]}, "completion", "is missing; the row has 'rank'"),
    ("nemo-rl-preference", {"context": [ASK, RED]}, "context", "must end with a user turn; move"),
    ("nemo-rl-binary-preference", {"prompt": [ASK, RED]}, "prompt", "must end with a user turn; move"),
    ("trl-preference", {"chosen": [ASK, RED]}, "chosen", "must be one assistant message"),
    ("trl-preference", {"rejected": [ASK]}, "rejected", "must be one assistant message"),
    ("trl-preference", {"rejected": [RED]}, "rejected", "chosen and rejected are the same text; remove the pair"),
    ("openrlhf", {"margin": True}, "margin", "must be a number, it is bool"),
    ("openrlhf", {"margin": float("inf")}, "margin", "must be a finite number, it is inf"),
    ("trl-preference-implicit", {"rejected": [{**ASK, "content": "R"}, RED]}, "rejected", "has another prompt than"),
    ("anthropic-hh", {"chosen": "\n\nHuman: Q\n\nAssistant:"}, "chosen", "has an empty last reply"),
    ("anthropic-hh", {"rejected": "\n\nHuman: Q\n\nAssistant:"}, "rejected", "has an empty last reply"),
    ("trl-unpaired", {"label": 1}, "label", "must be true or false"),
    ("red-team", {"transcript": "Q"}, "transcript", "transcript without a turn"),
    ("helpsteer", {"prompt": "<extra_id_1>"}, "prompt", "turn "),
    ("helpsteer", {"prompt": 7}, "prompt", "must be a string"),
    ("helpsteer", {"humor": "4"}, "humor", "must be a number, it is str"),
    ("helpsteer", dict.fromkeys([*good_rows("helpsteer")[0]][2:10]), "quality", "no attribute has a score"),
    ("verl", {"data_source": None}, "data_source", "must be a string, it is null"),
    ("verl", {"extra_info": {"label": 7}}, "label", "must be a string, it is int"),
    ("verl", {"prompt": [ASK, RED]}, "prompt", "must end with a user turn; move"),
    ("inverse-cai", {"preferred_text": "tie"}, "preferred_text", "must be 'text_a' or 'text_b', it is 'tie'"),
    ("inverse-cai", {"chosen_reward": "high"}, "chosen_reward", "must be a number, it is 'high'"),
    ("inverse-cai", {"rejected_reward": "nan"}, "rejected_reward", "must be a finite number, it is nan"),
    ("alpaca", {"history": [["Q"]]}, "history", "must be a list of pairs \\[user's text, reply\\]"),
    ("alpaca", {"history": {"Q": "A"}}, "history", "must be a list of pairs"),
    ("alpaca", {"history": 7}, "history", "must be a list of pairs"),
    ("question-answer", {"prompt": "Q", "question": "R"}, "question", "and 'prompt' are both a prompt; .* --from"),
    ("question-answer", {"prompt": "Q", "answer": "B"}, "answer", "and 'response' are both a reply; remove one"),
    ("unpaired-texts", {"is_safe": "maybe"}, "is_safe", "must be true or false"),
    ("unpaired-texts", {"is_safe": 2}, "is_safe", "must be true or false"),
    ("unpaired-texts", {"kto_tag": True}, "is_safe", "and 'kto_tag' are both a verdict; remove one"),
    ("preference-texts", {"rejected": "A"}, "rejected", "chosen and rejected are the same text"),
    ("sharegpt", {"items": ["Q", "B"]}, "items", "and 'conversations' are both a conversation; remove one"),
    ("sharegpt-preference", {"messages": [ASK, RED]}, "messages", "must end with a user turn that the two replies"),
    ("sharegpt-preference", {"messages": [{**ASK, "role": "system"}]}, "messages", "must end with a user turn that"),
    ("sharegpt-preference", {"rejected": RED}, "rejected", "chosen and rejected are the same text"),
    ("sharegpt-preference", {"chosen": ASK}, "chosen", "must be one assistant message"),
    ("unpaired-conversations", {"kto_tag": "true"}, "kto_tag", "must be true or false"),
    ("unpaired-conversations", {"label": True}, "label", "and 'kto_tag' are both a verdict; remove one"),
    ("unpaired-conversations", {"conversations": ["Q"]}, "conversations", "must end with a user turn and the"),
    ("trl-prompt-completion", {"prompt": [ASK, RED]}, "prompt", "must end with a user turn; move"),
    ("trl-prompt-completion", {"completion": [ASK]}, "completion", "must be one assistant message"),
    ("ranked-answers", {"completions": []}, "answers", "is missing; a list of answers with ranks or scores"),
    ("ranked-answers", {"prompt": "R"}, "instruction", "and 'prompt' are both a prompt; remove one"),
    ("shp", {"human_ref_A": "A"}, "human_ref_A", "chosen and rejected are the same text"),
    ("shp", {"labels": ...}, "labels", "must be 0 or 1"),
    ("pku-saferlhf", {"response_1": "B"}, "response_1", "chosen and rejected are the same text"),
    ("pku-saferlhf", {"safer_response_id": ..., "better_response_id": ...}, "safer_response_id", "is missing, and so"),
    ("pku-saferlhf", {"safer_response_id": 0}, "safer_response_id", "is another reply than .*; --ignore-columns"),
    ("prompt-columns", {"Behavior": ""}, "Behavior", "empty prompt"),
    ("prompt-columns", {"goal": "G"}, "goal", "and 'Behavior' are both a prompt; remove one"),
    ("prompt-columns", {"ContextString": 7}, "ContextString", "must be a string, it is int"),
    ("oasst", {}, "parent_id", 'belongs to a tree of messages, .* \\{"messages": \\[...\\]\\}'),
    ("oasst", {"prompt": {"text": "Q", "replies": []}}, "prompt", "belongs to a tree of messages"),
    ("cai-revisions", {"revision": " "}, "revision", "is empty; remove the row"),
    ("cai-revisions", {"dataset": 7}, "dataset", "must be a string, it is int"),
]


def changed(name: str, change: Row) -> list[Row]:
    """Good rows of a format, with a change in the first."""
    first, *others = good_rows(name)[: FORMATS[name].group]
    return [{key: value for key, value in {**first, **change}.items() if value is not ...}, *others]


@pytest.mark.parametrize(("name", "change", "key", "problem"), ROWS)
def test_a_row_that_cannot_be_read_is_refused_by_key(name: str, change: Row, key: str, problem: str):
    with pytest.raises(RowError, match=f"^key '{key}': {problem}") as raised:
        FORMATS[name].read(changed(name, change), NEMO_CHAT)
    assert raised.value.position == 0


@pytest.mark.parametrize("value", [None, 2, -1, True, "2", "", 0.5, [0]])
@pytest.mark.parametrize(("name", "key"), [("shp", "labels"), ("pku-saferlhf", "better_response_id")])
def test_a_preferred_reply_is_0_or_1(name: str, key: str, value: Any):
    with pytest.raises(RowError, match=f"^key '{key}': must be 0 or 1$"):
        FORMATS[name].read(changed(name, {key: value}), NEMO_CHAT)


@pytest.mark.parametrize("turns", [[ASK], [RED], [ASK, ASK], [RED, RED], [ASK, RED, RED], [RED, ASK]])
@pytest.mark.parametrize("key", ["chosen", "rejected"])
def test_a_whole_conversation_ends_with_a_user_turn_and_its_reply(key: str, turns: list[Row]):
    with pytest.raises(RowError, match=f"^key '{key}': must end with a user turn and the assistant's reply to it$"):
        FORMATS["trl-preference-implicit"].read(changed("trl-preference-implicit", {key: turns}), NEMO_CHAT)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": 7}, "key 'text': must be a string"),
        ({"text": "Q"}, "key 'text': .*with `cai convert`"),
        ({"text": HEAD[:20] + HEAD[-22:] + "A\n<extra_id_1>"}, "key 'text': must end with a user turn"),
    ],
)
def test_the_line_of_a_pair_that_cannot_be_read_is_known(position: int, change: Row, problem: str):
    rows = good_rows("rm-comparisons")[:2]
    rows[position] |= change
    with pytest.raises(RowError, match=f"^{problem}") as raised:
        FORMATS["rm-comparisons"].read(rows, NEMO_CHAT)
    assert raised.value.position == position


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"text": HEAD.replace("Q", "R") + "B\n<extra_id_1>"}, "key 'text': has another prompt than the line before"),
        ({"text": HEAD + "A\n<extra_id_1>"}, "key 'text': chosen and rejected are the same text"),
        ({"dataset": "other"}, "key 'dataset': differs between the two lines of one pair"),
        ({"rejected_reward": 0.5}, "key 'rejected_reward': differs between the two lines of one pair"),
    ],
)
def test_what_does_not_fit_the_line_before_is_said_of_the_second_line(change: Row, problem: str):
    first, second = good_rows("rm-comparisons")[:2]
    with pytest.raises(RowError, match=f"^{problem}") as raised:
        FORMATS["rm-comparisons"].read([first, second | change], NEMO_CHAT)
    assert raised.value.position == 1


@pytest.mark.parametrize("key", ["chosen_reward", "score_chosen", "chosen_score", "rejected_reward", "rejected_score"])
def test_a_reward_of_one_reply_alone_is_refused(key: str):
    rows = changed("preference-texts", {key: 1.0})
    with pytest.raises(RowError, match=f"^key '{key}': only one reply has a reward; .* --ignore-columns {key}$"):
        FORMATS["preference-texts"].read(rows, NEMO_CHAT)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("alpaca", {"input": ""}, "has no prompt in 'input'; remove the row"),
        ("alpaca", {"output": ""}, "has no reply in 'output'; remove the row"),
        ("question-answer", {"response": ...}, "has no reply in 'input'; remove the row"),
        ("preference-texts", {"rejected": None}, "has no reply in 'rejected'; remove the row"),
        ("ranked-answers", {"instruction": "", "prompt": None}, "has no prompt in 'prompt', 'instruction'; remove"),
        ("unpaired-texts", {"is_safe": None}, "has no verdict in 'is_safe'; remove the row"),
        ("unpaired-conversations", {"kto_tag": None}, "has no verdict in 'kto_tag'; remove the row"),
        ("sharegpt", {"conversations": []}, "has no conversation in 'conversations'; remove the row"),
    ],
)
def test_a_row_in_which_a_column_is_empty_says_which(name: str, change: Row, message: str):
    with pytest.raises(UsageError, match=f"^{message}"):
        FORMATS[name].read(changed(name, change), NEMO_CHAT)


@pytest.mark.parametrize("scores", ["answers", "completions"])
def test_an_answer_without_its_rank_or_score_is_refused(scores: str):
    text, order = {"answers": ("answer", "rank"), "completions": ("response", "overall_score")}[scores]
    row = {"prompt": "Q", scores: [{text: "A", order: 1.0}, {text: "B", order: None}]}
    with pytest.raises(RowError, match=f"^key '{order}': of one of the {scores} is missing; remove the row"):
        FORMATS["ranked-answers"].read([row], NEMO_CHAT)


def pair(chosen: str, rejected: str) -> Comparison:
    return Comparison(ASKED, chosen, rejected)


FORGED_TURNS = "Q\n<extra_id_1>Assistant\nA\n<extra_id_1>User\nR"
LONGER = ASKED.with_turn(Role.ASSISTANT, "A").with_turn(Role.USER, "R")
TRANSCRIPT = Conversation.of_user("\n\nHuman: Q")
ONE_TURN, FORGED = (
    "its prompt has a system message or more than one user turn",
    "its prompt would be read as a transcript",
)
UNWRITTEN: list[tuple[str, Record, str]] = [
    ("input-output", Chat(LONGER.with_turn(Role.ASSISTANT, "B")), ONE_TURN),
    ("input-output", Chat(Conversation.of_user("Q", "S").with_turn(Role.ASSISTANT, "B")), ONE_TURN),
    ("input-output", Chat(TRANSCRIPT.with_turn(Role.ASSISTANT, "A")), FORGED),
    ("input-output", Chat(LONGER), "key 'conversation': must end with a user turn and the assistant's reply to it"),
    ("plain-prompts", PromptOnly(LONGER), ONE_TURN),
    ("plain-prompts", PromptOnly(TRANSCRIPT), FORGED),
    ("inverse-cai", Comparison(LONGER, "A", "B"), ONE_TURN),
    ("inverse-cai", pair("", "B"), "a text is empty or has a NUL character"),
    ("inverse-cai", pair("A", ""), "a text is empty or has a NUL character"),
    ("inverse-cai", pair("A", "B\0"), "a text is empty or has a NUL character"),
    ("anthropic-hh", pair("", "B"), "a reply is empty"),
    ("anthropic-hh", pair("A", ""), "a reply is empty"),
    ("anthropic-hh", pair(" A", "B"), "a transcript cannot represent this conversation"),
    ("red-team", PromptOnly(LONGER), ONE_TURN),
    ("red-team", PromptOnly(Conversation.of_user(" Q")), "a transcript cannot represent this conversation"),
    (
        "helpsteer",
        Scored(Conversation.of_user("Q", "S").with_turn(Role.ASSISTANT, "A"), (1.0,) * 9),
        "its prompt has a system message, or template tokens in a text",
    ),
    (
        "helpsteer",
        Scored(Conversation.of_user(FORGED_TURNS).with_turn(Role.ASSISTANT, "A"), (1.0,) * 9),
        "its prompt has a system message, or template tokens in a text",
    ),
]


@pytest.mark.parametrize(("name", "record", "reason"), UNWRITTEN)
def test_a_record_that_a_format_cannot_hold_is_refused_with_the_reason(name: str, record: Record, reason: str):
    with pytest.raises(UsageError, match=re.escape(f"{name} cannot hold this record: {reason}")):
        FORMATS[name].write(record, NEMO_CHAT)


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.read_only])
def test_no_record_is_written_as_what_no_trainer_reads(name: str):
    with pytest.raises(UsageError, match=f"^{name} is read-only: its rows are .*; choose another format$"):
        FORMATS[name].write(Chat(LONGER.with_turn(Role.ASSISTANT, "B")), NEMO_CHAT)
