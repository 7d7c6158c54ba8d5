# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest

from examples.nlp.cai.cai_utils import (
    ChatTemplateHelper,
    PromptTemplate,
    UserAssistantPromptTemplate,
    remove_long_dialogs,
)
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import read_jsonl, write_jsonl

EXTRA_ID: dict[str, Any] = {
    "user_format": "<extra_id_1>User\n{MESSAGE}\n<extra_id_1>Assistant\n",
    "assistant_format": "{MESSAGE}\n",
    "system_format": "<extra_id_0>System\n{MESSAGE}\n",
    "system_default_message": "",
    "eos_token": "<extra_id_1>",
    "response_extract_pattern": "<extra_id_1>Assistant\n",
}


def user(text: str) -> dict[str, str]:
    return {"role": "User", "content": text}


def test_formats_a_prompt_with_the_default_system_message():
    template = UserAssistantPromptTemplate(**EXTRA_ID)
    expected = "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n"
    assert template.format_messages(user("Q")) == expected
    assert (
        template.format_messages([template.create_system_message(""), template.create_user_message("Q")]) == expected
    )
    assert template.has_system_role()


def test_an_empty_generation_is_empty_and_not_the_turn_before():
    template = UserAssistantPromptTemplate(**EXTRA_ID)
    prompt = template.format_messages([user("Q1"), template.create_assistant_message("A1"), user("critique please")])
    assert template.extract_response(prompt) == ""
    assert template.extract_response(prompt, prompt=prompt) == ""


def test_an_invented_turn_does_not_replace_the_answer():
    template = UserAssistantPromptTemplate(**EXTRA_ID)
    prompt = template.format_messages(user("Q"))
    text = prompt + "real\n<extra_id_1>User\nmore?\n<extra_id_1>Assistant\ninvented\n<extra_id_1>"
    assert template.extract_response(text, prompt=prompt) == "real"


def test_a_missing_pattern_is_an_error_and_not_the_word_none():
    with pytest.raises(CaiError, match="the pattern"):
        UserAssistantPromptTemplate(**EXTRA_ID).extract_response("hello")
    with pytest.raises(UsageError, match="needs a response_extract_pattern"):
        UserAssistantPromptTemplate("{MESSAGE}", "{MESSAGE}").extract_response("hello")


def test_without_formats_the_message_is_bare():
    template = UserAssistantPromptTemplate(None, None, response_extract_pattern="[/INST]")
    assert template.format_messages(user("Q")) == "Q"
    assert template.extract_response("[INST] Q [/INST] A") == "A"


@pytest.mark.parametrize(
    "make",
    [
        lambda: PromptTemplate({"User": "no place"}),
        lambda: PromptTemplate({"Robot": "{MESSAGE}"}),
        lambda: UserAssistantPromptTemplate("{MESSAGE}", "{MESSAGE}", system_default_message="S"),
        lambda: PromptTemplate({"User": "{MESSAGE}"}).format_messages([{"role": "Assistant", "content": "A"}]),
        lambda: PromptTemplate({"User": "{MESSAGE}"}).format_messages([user("a"), user("b")]),
        lambda: PromptTemplate({"User": "{MESSAGE}"}).create_message("System", "S"),
        lambda: ChatTemplateHelper.collate_chat_messages([]),
        lambda: ChatTemplateHelper.collate_chat_messages(["text"]),
        lambda: ChatTemplateHelper.collate_chat_messages([[user("a")], [user("b"), user("c")]]),
        lambda: ChatTemplateHelper.collate_chat_messages([{"role": "User"}]),
    ],
)
def test_wrong_use_is_a_clear_error(make: Any):
    with pytest.raises(UsageError) as raised:
        make()
    assert str(raised.value)


def test_batches_are_turned_turn_by_turn():
    batch = [[user("a"), {"role": "Assistant", "content": "b"}], [user("c"), {"role": "Assistant", "content": "d"}]]
    assert ChatTemplateHelper.collate_chat_messages(batch) == [
        {"role": ["User", "User"], "content": ["a", "c"]},
        {"role": ["Assistant", "Assistant"], "content": ["b", "d"]},
    ]


def test_long_dialogs_are_removed_under_upstreams_name(tmp_path: Path):
    sentencepiece = pytest.importorskip("sentencepiece")
    source = tmp_path / "cai.jsonl"
    texts = ["short", "long " * 200, "short too"]
    write_jsonl(source, [sft_row(Conversation.of_user("Q").with_turn(Role.ASSISTANT, text)) for text in texts])
    model = tmp_path / "tokenizer.model"
    with model.open("wb") as handle:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["short", "a long text"] * 10),
            model_writer=handle,
            vocab_size=290,
            model_type="bpe",
            byte_fallback=True,
            minloglevel=2,
        )
    done = remove_long_dialogs(source, 256, model, "sentencepiece", tmp_path / "removed_long_dialogs", False)
    assert done["removed_ids"] == [1]
    assert done["output_file"] == str(tmp_path / "removed_long_dialogs" / "cai_remove_long_dialogs_max_seq_256.jsonl")
    kept = [row["conversations"][1]["value"] for _, row in read_jsonl(done["output_file"])]
    assert kept == ["short", "short too"]
    assert sum(done["length_statistics"].values()) == 3
