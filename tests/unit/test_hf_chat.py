# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The chat template in the Hugging Face folder of a NeMo-trained model (fault A10)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jinja2
import pytest

pytest.importorskip("tokenizers", reason="the training extra is not installed")

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTokens, Conversation, Message, NemoChatTemplate, Role, template_named
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checkpoints import hf_chat
from tests.conversations import conversation

# NeMo's own defaults are control characters; quotes, backslashes and braces are Jinja's.
OTHER = NemoChatTemplate(ChatTokens("\x00", "\x11", "\x12", "\n", "\n"))
QUOTED = NemoChatTemplate(ChatTokens("\"{{'s'}}\\n", "<turn 😀>", "<label>", "é\\\n", "{% name %}"))
TEMPLATES = {"tutorial": NEMO_CHAT, "default": OTHER, "quoted": QUOTED}


def folder_with(folder: Path, template: NemoChatTemplate, **files: Any) -> Path:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens(["</s>", AddedToken("<extra_id_1>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(json.dumps(content), encoding="utf-8")
    hf_chat.write(folder, template)
    return folder


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a10_the_folder_renders_as_nemo_does(name: str, tmp_path: Path) -> None:
    ours = TEMPLATES[name]
    folder = folder_with(tmp_path, ours, tokenizer_config__json={"eos_token": "</s>", "chat_template": "base's"})
    theirs, random_ = template_named(str(folder)), random.Random(name)
    for _ in range(300):
        made = conversation(random_, any_order=True)
        made = Conversation(tuple(Message(turn.role, turn.content) for turn in made.messages))
        assert theirs.render(made) == ours.render(made)
        if made.messages[-1].role is Role.USER:
            assert theirs.generation_prompt(made) == ours.generation_prompt(made)
    empty = Conversation.of_user("Q")
    assert theirs.generation_prompt(empty) == ours.generation_prompt(empty)
    assert ours.tokens.turn_start in theirs.stop or name == "quoted"


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a10_what_nemo_has_no_place_for_is_refused(role: str, tmp_path: Path) -> None:
    template: Any = template_named(str(folder_with(tmp_path, NEMO_CHAT, tokenizer_config__json={"eos_token": None})))
    messages = [{"role": "user", "content": "Q"}, {"role": role, "content": "S"}]
    with pytest.raises(jinja2.TemplateError, match=role):
        template._program.render(messages=messages, add_generation_prompt=True)


def test_a10_no_other_template_of_the_folder_is_left(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("base's")
    named = [{"name": "default", "template": "base's"}, {"name": "tool_use", "template": "base's"}]
    config = {"chat_template": named, "eos_token": "</s>", "model_max_length": 9}
    folder = folder_with(
        tmp_path, NEMO_CHAT, tokenizer_config__json=config, chat_template__json={"chat_template": "b"}
    )
    assert sorted(file.name for file in folder.glob("chat_template*")) == []
    written = read(folder / "tokenizer_config.json")
    assert written == config | {"chat_template": NEMO_CHAT.jinja}


@pytest.mark.parametrize(("library", "written"), [("huggingface", "PreTrainedTokenizerFast"), ("sentencepiece", "L")])
def test_a10_tokenizer_json_is_read_as_nemo_has_read_it(library: str, written: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, NEMO_CHAT, tokenizer_config__json={"tokenizer_class": "L"})
    hf_chat.write(folder, NEMO_CHAT, library)
    assert read(folder / "tokenizer_config.json")["tokenizer_class"] == written


@pytest.mark.parametrize("normalization", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("own", [[], ["<extra_id_0>", "<extra_id_1>", "▁of", "."]])
def test_a10_tokenizer_model_alone_is_written_as_tokenizer_json_with_the_same_ids(
    kind: str, own: list[str], normalization: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="the training extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the training extra is not installed")
    random_ = random.Random(kind)
    made = [_without_labels(conversation(random_)) for _ in range(400)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for one in made for line in NEMO_CHAT.render(one).split("\n") if line),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=900,
        model_type=kind,
        byte_fallback=True,
        character_coverage=0.99,
        hard_vocab_limit=False,
        normalization_rule_name=normalization,
        remove_extra_whitespaces=False,
        user_defined_symbols=own,
        minloglevel=2,
    )
    hf_chat.write(tmp_path, NEMO_CHAT, "sentencepiece")
    config = read(tmp_path / "tokenizer_config.json")
    if normalization != "identity":
        assert config["tokenizer_class"] == "LlamaTokenizer" and not (tmp_path / "tokenizer.json").exists()
        return
    assert (config["tokenizer_class"], config["eos_token"]) == ("PreTrainedTokenizerFast", "</s>")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for one in made:
        assert theirs.apply_chat_template(one.to_messages()) == ours.encode(NEMO_CHAT.render(one))
    assert ours.encode("") == theirs("")["input_ids"] == []


def _without_labels(made: Conversation) -> Conversation:
    return Conversation(tuple(Message(turn.role, NEMO_CHAT.escape(turn.content)) for turn in made.messages))


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"generation_config__json": {"eos_token_id": 0, "temperature": 0.6}}, [0, 1]),
        ({"generation_config__json": {"eos_token_id": [0, 7]}}, [0, 7, 1]),
        ({"config__json": {"eos_token_id": 0, "bos_token_id": None, "vocab_size": 2}}, [0, 1]),
        ({}, 1),
    ],
)
def test_a10_generation_stops_at_the_next_turn(files: dict[str, Any], ends: Any, tmp_path: Path) -> None:
    written = read(folder_with(tmp_path, NEMO_CHAT, **files) / "generation_config.json")
    assert written["eos_token_id"] == ends
    assert written["stop_strings"] == ["<extra_id_1>"]
    assert written.get("temperature") == files.get("generation_config__json", {}).get("temperature")
    assert "vocab_size" not in written


def test_a10_a_stop_string_of_several_tokens_is_no_end_of_sequence(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, QUOTED, generation_config__json={"eos_token_id": 0})
    assert read(folder / "generation_config.json")["eos_token_id"] == 0


TOKENS = {"system_turn_start": "\x00", "turn_start": "\x11", "label_start": "\x12", "end_of_turn": "\n"}


@pytest.mark.parametrize(
    ("stored", "choice", "expected"),
    [
        ({"data": {"chat": True, "chat_prompt_tokens": TOKENS}}, "auto", OTHER),
        ({"data": {"chat": True}}, "auto", NEMO_CHAT),
        ({"data": {"chat": False, "chat_prompt_tokens": TOKENS}}, "auto", None),
        ({"data": {"chat_prompt_tokens": TOKENS}}, "auto", None),
        ({"data": {"chat_prompt_tokens": TOKENS}}, "nemo", OTHER),
        ({"data": None}, "auto", None),
        ({}, "nemo", NEMO_CHAT),
        ({"data": {"chat": True}}, "reference", None),
    ],
)
def test_a10_the_template_is_that_of_the_models_training(stored: Any, choice: str, expected: Any) -> None:
    assert hf_chat.training_template(stored, choice, Path("a.nemo")) == expected


@pytest.mark.parametrize("tokens", [{"turn_start": 1}, {"turn_start": ""}, [], {"unknown": "a"}])
def test_a10_tokens_that_are_no_texts_are_refused(tokens: Any) -> None:
    with pytest.raises(UsageError, match="chat_prompt_tokens"):
        hf_chat.training_template({"data": {"chat": True, "chat_prompt_tokens": tokens}}, "auto", Path("a.nemo"))
