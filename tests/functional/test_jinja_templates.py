# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates of Hugging Face folders against transformers' own ``apply_chat_template``: texts and ids."""

import random
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import Role, template_named
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import UsageError
from tests.chat_templates import SHAPES, Shape
from tests.conversations import SENTENCES, conversation

CONVERSATIONS = 800
"""For each shape; 9,600 in all, each as it is trained and, where a user speaks last, as it is asked."""


def save_tokenizer(shape: Shape, folder: Path, *, own_file: bool) -> Any:
    """A small tokenizer with the shape's template, written and read by transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    named = {name: token for name, token in (("bos_token", shape.bos), ("eos_token", shape.eos)) if token}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=list(shape.more), **named)
    fast.chat_template = shape.source
    fast.save_pretrained(str(folder), save_raw_chat_template=own_file)
    assert (folder / "chat_template.jinja").is_file() == own_file
    return AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize("own_file", [False, True], ids=["tokenizer_config.json", "chat_template.jinja"])
@pytest.mark.parametrize("name", SHAPES)
def test_texts_and_ids_are_those_of_transformers(name: str, own_file: bool, tmp_path: Path):
    import jinja2

    theirs = save_tokenizer(SHAPES[name], tmp_path, own_file=own_file)
    ours, tokenizer = template_named(str(tmp_path)), load_tokenizer(tmp_path)
    random_ = random.Random(f"{name} {own_file}")
    same, refused = 0, 0
    for _ in range(CONVERSATIONS // 2):
        made = conversation(random_, any_order=True)
        messages = made.to_messages()
        try:
            expected = theirs.apply_chat_template(messages, tokenize=False)
        except jinja2.TemplateError:
            with pytest.raises(UsageError, match="cannot render a conversation of"):
                ours.render(made)
            refused += 1
            continue
        if name == "mistral-0.3" and made.system:
            # Not what it asks with, nor what it trains on: see the template.
            with pytest.raises(UsageError, match="remove the message"):
                ours.render(made)
            refused += 1
            continue
        assert ours.render(made) == expected
        assert tokenizer.encode([expected])[0] == theirs.apply_chat_template(messages)
        same += 1
        if made.messages[-1].role is Role.USER:
            asked = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            assert ours.generation_prompt(made) == asked
    assert same + refused == CONVERSATIONS // 2
    assert same > CONVERSATIONS // 8
    assert bool(refused) == (name in ("gemma", "mistral-0.2", "mistral-0.3"))


def test_the_prompt_is_a_prefix_of_the_trained_ids(tmp_path: Path):
    save_tokenizer(SHAPES["llama-3"], tmp_path, own_file=False)
    ours, tokenizer = template_named(str(tmp_path)), load_tokenizer(tmp_path)
    random_ = random.Random(0)
    for _ in range(CONVERSATIONS):
        made = conversation(random_, template=ours)
        prompt = made if made.messages[-1].role is Role.USER else made.without_last()
        asked, trained = tokenizer.encode(
            [ours.generation_prompt(prompt), ours.render(prompt.with_turn(Role.ASSISTANT, "Sure."))]
        )
        assert trained[: len(asked)] == asked
