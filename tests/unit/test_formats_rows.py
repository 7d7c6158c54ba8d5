# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of each format, key by key, and what the readers of records and of prompts take from them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, LabelType, Role
from nemo_aligner_cai.data.formats.all_formats import FORMATS, matching
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, PromptOnly, Rated, Record, Scored, prompt_of
from nemo_aligner_cai.files import Row, RowCounts
from tests.unit.test_fuzz_readers import good_rows

ASK = {"role": "user", "content": "Q"}
RED, DOG = ({"role": "assistant", "content": text} for text in "AB")
ASKED = Conversation.of_user("Q")
ANSWERED = ASKED.with_turn(Role.ASSISTANT, "A")
HEAD = "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"
REWARDS = {"dataset": "hh", "chosen_reward": 1.5, "rejected_reward": -0.25}
LABEL = {"dataset": "hh", "prompt_label": "unsafe"}
TURNS = [{"from": "User", "value": "Q", "label": None}, {"from": "Assistant", "value": "A", "label": None}]
RANKED = [{"rank": 0, "completion": [RED]}, {"rank": 1, "completion": [DOG]}]
SCORES = {
    **{"toxicity": 1.0, "humor": 2.0, "creativity": 3.0, "helpfulness": 4.0},
    **{"correctness": 5.0, "coherence": 6.0, "complexity": 7.0, "verbosity": 8.0},
}
RECORDS: list[Record] = [
    Chat(ANSWERED, "hh"),
    Comparison(ASKED, "A", "B", "hh", 1.5, -0.25),
    PromptOnly(ASKED, "hh", "unsafe"),
    Rated(ASKED, "A", False, "hh"),
    Scored(ANSWERED, (-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0), "hh"),
]
ROWS: dict[str, list[Row]] = {
    "sft-chat": [{"system": "", "conversations": TURNS, "mask": "User", "dataset": "hh"}],
    "messages": [{"messages": [ASK, RED], "dataset": "hh"}],
    "input-output": [{"input": "Q", "output": "A", "dataset": "hh"}],
    "rm-comparisons": [{"text": HEAD + f"{reply}\n<extra_id_1>", **REWARDS} for reply in "AB"],
    "dpo": [{"prompt": HEAD, "chosen_response": "A\n<extra_id_1>", "rejected_response": "B\n<extra_id_1>", **REWARDS}],
    "nemo-rl-preference": [{"context": [ASK], "completions": RANKED, **REWARDS}],
    "nemo-rl-binary-preference": [{"prompt": "Q", "chosen": "A", "rejected": "B", **REWARDS}],
    "trl-preference": [{"prompt": [ASK], "chosen": [RED], "rejected": [DOG], **REWARDS}],
    "openrlhf": [{"prompt": [ASK], "chosen": [RED], "rejected": [DOG], "margin": 1.75, **REWARDS}],
    "trl-preference-implicit": [{"chosen": [ASK, RED], "rejected": [ASK, DOG], **REWARDS}],
    "anthropic-hh": [
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B", **REWARDS}
    ],
    "inverse-cai": [{"input": "Q", "preferred_text": "text_a", "text_a": "A", "text_b": "B", **REWARDS}],
    "ppo-prompts": [{"text": HEAD, **LABEL}],
    "trl-prompts": [{"prompt": [ASK], **LABEL}],
    "plain-prompts": [{"prompt": "Q", "label": "unsafe", "dataset": "hh"}],
    "red-team": [{"transcript": "\n\nHuman: Q\n\nAssistant:", **LABEL}],
    "verl": [
        {
            **{"data_source": "hh", "prompt": [ASK], "ability": "alignment", "extra_info": {"label": "unsafe"}},
            "reward_model": {"style": "model", "ground_truth": ""},
        }
    ],
    "kto": [{"prompt": HEAD, "response": "A\n<extra_id_1>", "preference": "rejected", "dataset": "hh"}],
    "trl-unpaired": [{"prompt": [ASK], "completion": [RED], "label": False, "dataset": "hh"}],
    "rm-regression": [{"text": HEAD + "A\n<extra_id_2>", "label": [-100.0, *SCORES.values()], "dataset": "hh"}],
    "helpsteer": [{"prompt": "Q", "response": "A", **SCORES, "dataset": "hh"}],
}
READ = [name for name in FORMATS if name != "oasst"]


def read(name: str, *rows: Row) -> Any:
    return FORMATS[name].read(rows, NEMO_CHAT)


def test_all_that_is_written_is_listed_here():
    assert ROWS.keys() == {name for name, format in FORMATS.items() if not format.read_only}


@pytest.mark.parametrize("name", ROWS)
def test_a_record_is_written_with_these_keys_and_read_from_them(name: str):
    format = FORMATS[name]
    (record,) = (one for one in RECORDS if isinstance(one, format.kind))
    assert list(format.write(record, NEMO_CHAT)) == ROWS[name]
    assert read(name, *ROWS[name]) == record
    assert matching(ROWS[name][0], FORMATS) is format


@pytest.mark.parametrize("name", READ)
def test_every_format_keeps_the_name_of_the_data_set(name: str):
    key = "data_source" if name == "verl" else "dataset"
    rows = [{**row, key: "of mine"} for row in good_rows(name)[: FORMATS[name].group]]
    record = read(name, *rows)
    assert record.dataset == "of mine"
    if isinstance(record, Judged) and name != "ranked-answers":
        assert {pair.dataset for pair in record.comparisons} == {"of mine"}


@pytest.mark.parametrize(
    ("name", "dataset"), [("cai-revisions", "sl_cai_samples"), ("cai-comparisons", "rl_cai_samples")]
)
def test_raw_data_without_a_name_has_the_name_of_its_stage(name: str, dataset: str):
    record = read(name, *good_rows(name))
    assert record.dataset == dataset
    assert {pair.dataset for pair in getattr(record, "comparisons", ())} <= {dataset}


@pytest.mark.parametrize(
    "keys",
    [("chosen_reward", "rejected_reward"), ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")],
)
@pytest.mark.parametrize("name", [name for name in READ if FORMATS[name].kind is Comparison])
def test_every_comparison_keeps_its_rewards_under_each_name(name: str, keys: tuple[str, str]):
    bare = [{key: value for key, value in row.items() if key not in REWARDS} for row in good_rows(name)]
    record = read(name, *(row | dict(zip(keys, (3, 0.5), strict=True)) for row in bare[: FORMATS[name].group]))
    assert (record.chosen_reward, record.rejected_reward) == (3.0, 0.5)


@pytest.mark.parametrize("name", FORMATS)
def test_the_prompt_of_a_row_is_the_prompt_of_its_record(name: str, tmp_path: Path):
    rows = good_rows(name)[: FORMATS[name].group]
    assert matching(rows[0], FORMATS) is FORMATS[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = [prompt.conversation for prompt in read_prompts(path, counts=RowCounts(), turns="all")]
    expected = ASKED if name == "oasst" else prompt_of(read(name, *rows))
    # `read` has no system message from a column that the format does not know; preference-texts' row has one.
    assert [replace(one, messages=one.turns) for one in prompts] == [expected]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": " Q \n"}, "Q"),
        ({"input": "\tQ", "output": "A"}, "Q"),
        ({"prompt": [{**ASK, "content": " Q "}]}, " Q "),
        ({"system": None, "conversations": TURNS}, "Q"),
        ({"system": "", "conversations": [{**TURNS[0], "label": 4}]}, "Q"),
        ({"prompt": {"text": "Q", "toxicity": 0.1}}, "Q"),
        ({"prompt": {"text": "Q", "replies": []}, "text": "R"}, "Q"),
        ({"prompt": {"text": "Q"}, "message_tree_id": "x", "text": "R"}, "Q"),
        ({"message_id": "a", "parent_id": None, "text": "Q", "role": "prompter"}, "Q"),
        ({"text": HEAD + "A\n<extra_id_1>"}, "Q"),
        ({"prompt": [ASK, RED], "completion": [RED]}, "Q"),
    ],
)
def test_a_prompt_needs_no_reply_and_a_text_loses_the_space_around_it(tmp_path: Path, row: Row, prompt: str):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (read_one,) = read_prompts(tmp_path / "rows.jsonl", counts=RowCounts(), turns="all")
    assert read_one.conversation == Conversation.of_user(prompt)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": None}, "empty prompt"),
        ({"prompt": ""}, "empty prompt"),
        ({"Behavior": None, "goal": ""}, "empty prompt"),
        ({"transcript": None, "prompt": None}, "empty prompt"),
        ({"message_id": "b", "parent_id": "a", "text": "Q", "role": "x"}, "not the first message of its tree"),
    ],
)
def test_a_row_without_a_prompt_is_counted_under_its_reason(tmp_path: Path, row: Row, reason: str):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    counts = RowCounts()
    assert list(read_prompts(tmp_path / "rows.jsonl", counts=counts)) == []
    assert counts.skipped == {reason: 1}


@pytest.mark.parametrize("mask", [None, "User", "Assistant"])
def test_a_row_of_sft_without_a_mask_learns_the_replies(mask: str | None):
    turns = TURNS if mask != "Assistant" else [*TURNS, {**TURNS[0], "value": "R"}]
    row = {"system": "", "conversations": turns} | ({} if mask is None else {"mask": mask})
    assert read("sft-chat", row).mask == (mask or "User")


def test_labels_alone_are_something_to_learn():
    row = {"system": "", "conversations": [{"from": "User", "value": "Q", "label": "toxicity:4"}], "mask": "Assistant"}
    row = {**row, "conversations": [*row["conversations"], TURNS[1]], "type": "TEXT_TO_VALUE"}
    assert read("sft-chat", row).label_type is LabelType.TEXT_TO_VALUE
    assert FORMATS["sft-chat"].write(read("sft-chat", row), NEMO_CHAT) == (row,)
    with pytest.raises(RowError, match="no turn to learn from after the first; NeMo stops at an empty loss mask"):
        read("sft-chat", {**row, "type": "VALUE_TO_TEXT"})


LONGER = ANSWERED.with_turn(Role.USER, "R")
LONGER_TEXT = HEAD + "A\n<extra_id_1>User\nR\n<extra_id_1>Assistant\n"
SEVERAL: list[tuple[str, Record, Row]] = [
    ("messages", Chat(LONGER), {"messages": LONGER.to_messages()}),
    ("dpo", Comparison(LONGER, "B", "C"), {"prompt": LONGER_TEXT, "chosen_response": "B\n<extra_id_1>"}),
    (
        "nemo-rl-binary-preference",
        Comparison(Conversation.of_user("\n\nHuman: Q"), "B", "C"),
        {"prompt": [{**ASK, "content": "\n\nHuman: Q"}]},
    ),
    ("nemo-rl-binary-preference", Comparison(LONGER, "B", "C"), {"prompt": LONGER.to_messages(), "chosen": "B"}),
    (
        "trl-preference-implicit",
        Comparison(LONGER, "B", "C"),
        {"chosen": [*LONGER.to_messages(), {**RED, "content": "B"}]},
    ),
    (
        "anthropic-hh",
        Comparison(LONGER, "B", "C"),
        {"chosen": "\n\nHuman: Q\n\nAssistant: A\n\nHuman: R\n\nAssistant: B"},
    ),
    ("ppo-prompts", PromptOnly(LONGER), {"text": LONGER_TEXT}),
    ("kto", Rated(LONGER, "B", True), {"prompt": LONGER_TEXT, "preference": "chosen"}),
    (
        "helpsteer",
        Scored(LONGER.with_turn(Role.ASSISTANT, "B"), (4.0,) * 9),
        {"prompt": "Q\n<extra_id_1>Assistant\nA\n<extra_id_1>User\nR", "response": "B"},
    ),
]


@pytest.mark.parametrize(("name", "record", "part"), SEVERAL)
def test_a_prompt_of_several_turns_is_written_whole(name: str, record: Record, part: Row):
    (row,) = FORMATS[name].write(record, NEMO_CHAT)
    assert {**row, **part} == row
    assert read(name, row) == record


def test_the_prompt_of_a_row_of_sft_has_its_system_message():
    prompt = FORMATS["sft-chat"].read_prompt({"system": "S", "conversations": TURNS[:1]}, NEMO_CHAT)
    assert prompt == Conversation.of_user("Q", "S")


@pytest.mark.parametrize("label", ["unsafe", 1, True, 0.5])
def test_the_label_of_a_plain_prompt_is_a_text_or_a_number(label: Any):
    assert read("plain-prompts", {"prompt": "Q", "label": label}) == PromptOnly(ASKED, None, str(label))


def test_which_text_is_text_a_depends_on_the_texts_alone():
    pairs = [Comparison(Conversation.of_user(f"Q{number}"), "A", "B") for number in range(20)]
    rows = [FORMATS["inverse-cai"].write(pair, NEMO_CHAT)[0] for pair in pairs]
    assert {(row["preferred_text"], row["text_a"], row["text_b"]) for row in rows} == {
        ("text_a", "A", "B"),
        ("text_b", "B", "A"),
    }
    assert [read("inverse-cai", row) for row in rows] == pairs
    assert [FORMATS["inverse-cai"].write(pair, NEMO_CHAT)[0] for pair in pairs] == rows


def test_cells_of_a_table_are_rewards():
    row = {key: value for key, value in ROWS["inverse-cai"][0].items() if "reward" not in key}
    for keys in (("chosen_reward", "rejected_reward"), ("score_chosen", "score_rejected")):
        assert read("inverse-cai", row | dict(zip(keys, ("1.5", "-0.25"), strict=True))) == RECORDS[1]
        assert read("inverse-cai", row | dict.fromkeys(keys)) == Comparison(ASKED, "A", "B", "hh")


@pytest.mark.parametrize(
    ("rewards", "margin"), [((None, None), 0.0), ((2.0, 2.0), 0.0), ((0.0, -1.5), 1.5), ((1.0, 0.0), 1.0)]
)
def test_a_margin_is_the_difference_of_the_rewards_and_0_without_them(
    rewards: tuple[float | None, float | None], margin: float
):
    record = Comparison(ASKED, "A", "B", None, *rewards)
    (row,) = FORMATS["openrlhf"].write(record, NEMO_CHAT)
    assert row["margin"] == margin
    assert read("openrlhf", row) == record


def test_a_margin_without_rewards_is_the_difference_of_rewards():
    row = {"prompt": [ASK], "chosen": [RED], "rejected": [DOG], "margin": 1.5}
    assert read("openrlhf", row) == Comparison(ASKED, "A", "B", None, 1.5, 0.0)
    assert read("openrlhf", {**row, "margin": None}) == Comparison(ASKED, "A", "B")
    rewarded = {**row, "chosen_reward": 5.0, "rejected_reward": 1.0}
    assert read("openrlhf", rewarded) == Comparison(ASKED, "A", "B", None, 5.0, 1.0)


def test_an_empty_system_message_is_none():
    row = {"messages": [{"role": "system", "content": ""}, ASK, RED]}
    assert read("messages", row) == Chat(ANSWERED)
    assert read("trl-prompts", {"prompt": row["messages"][:2]}) == PromptOnly(ASKED)


def test_the_text_of_sft_ends_with_the_start_of_a_turn_where_the_last_one_is_learned():
    whole = NEMO_CHAT.render(ANSWERED)
    assert sft_text(Chat(ANSWERED), NEMO_CHAT) == whole
    assert sft_text(Chat(ANSWERED, mask="Assistant"), NEMO_CHAT) == whole.removesuffix("<extra_id_1>")
    longer = ANSWERED.with_turn(Role.USER, "R").with_turn(Role.ASSISTANT, "B")
    assert sft_text(Chat(longer), NEMO_CHAT) == NEMO_CHAT.render(longer)
    asked = ANSWERED.with_turn(Role.USER, "R")
    assert sft_text(Chat(asked), NEMO_CHAT) == NEMO_CHAT.render(asked)
    assert sft_text(Chat(asked, mask="Assistant"), NEMO_CHAT) == NEMO_CHAT.render(asked) + "<extra_id_1>"


@pytest.mark.parametrize("label_type", LabelType)
def test_the_text_of_sft_has_labels_where_the_row_has_their_type(label_type: LabelType):
    labeled = ASKED.with_turn(Role.ASSISTANT, "A", "quality:4")
    template = replace(NEMO_CHAT, label_type=label_type)
    assert sft_text(Chat(labeled, label_type=label_type), NEMO_CHAT) == template.render(labeled)
    assert "quality:4" in template.render(labeled)
    assert sft_text(Chat(labeled), template) == NEMO_CHAT.render(ANSWERED)
