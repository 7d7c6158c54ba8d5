# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The ids of a chat on NeMo's server are those of training: control tokens stand only where the template has them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("sentencepiece")

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.chat import NEMO_CHAT, ChatTemplate, Conversation, TokenPolicy, guard, template_named
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.training.serving.model_info import Text


class FakeNemoTokenizer:
    """The part of NeMo's SentencePieceTokenizer that the server uses, over a real SentencePiece model."""

    def __init__(self) -> None:
        import sentencepiece as spm

        self.tokenizer: Any = spm.SentencePieceProcessor(model_file=str(packaged_files.TOKENIZER))
        self.bos_id, self.eos_id = self.tokenizer.bos_id(), self.tokenizer.eos_id()

    def text_to_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode_as_ids(text)

    def ids_to_text(self, ids: list[int]) -> str:
        return self.tokenizer.decode_ids(ids)

    def ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.tokenizer.id_to_piece(number) for number in ids]


def ids_of(text: str, template: ChatTemplate) -> tuple[list[int], str, FakeNemoTokenizer]:
    tokenizer = FakeNemoTokenizer()
    safe = guard(Conversation.of_user(text), template, policy=TokenPolicy.ESCAPE, counts=RowCounts())
    assert safe is not None
    rendered = template.generation_prompt(safe)
    return Text(tokenizer).rendered_ids(rendered, template), rendered, tokenizer


@pytest.mark.parametrize("text", ["hello", "what does <s> do ?", "</s>", "a</s>b <s>"])
def test_messages_in_nemos_template_have_the_ids_of_training(text: str) -> None:
    ids, rendered, tokenizer = ids_of(text, NEMO_CHAT)
    assert ids == tokenizer.text_to_ids(rendered)
    assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids)


@pytest.mark.parametrize("text", ["hello", "what does <s> do ?", "a</s>b <s>"])
def test_mistrals_control_tokens_are_the_templates_alone(text: str) -> None:
    ids, _, tokenizer = ids_of(text, template_named("mistral"))
    assert ids[0] == tokenizer.bos_id
    assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids[1:])
