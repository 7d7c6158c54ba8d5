# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer as NeMo loads it and as we do, from one file, small and of each kind that trainers use."""

import functools
import io
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.data.tokenizer import Tokenizer, load_tokenizer
from tests.conversations import text

# In Mistral's vocabulary <extra_id_1> is seven pieces; models made for NeMo have it as one.
NAMES = ("sentencepiece", "sentencepiece-atomic", "huggingface")


@dataclass(frozen=True)
class Tokenizers:
    """NeMo's and ours."""

    name: str
    theirs: Any
    ours: Tokenizer


def make_tokenizers(name: str, folder: Path) -> Tokenizers:
    """Train the tokenizer of that name, and load it in both ways."""
    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer
    from nemo.utils import logging as nemo_logging

    # A warning for every turn that a tokenizer merges with its neighbour takes longer than the comparison.
    nemo_logging.setLevel(logging.ERROR)
    if name == "huggingface":
        _train_huggingface(folder)
        path, theirs = folder, get_nmt_tokenizer(library="huggingface", model_name=str(folder), use_fast=True)
    else:
        path = folder / "tokenizer.model"
        atomic = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"] if name.endswith("atomic") else []
        _train_sentencepiece(path, atomic)
        theirs = get_nmt_tokenizer(library="sentencepiece", tokenizer_model=str(path))
    # The data set has the same few strings encoded for every turn.
    theirs.text_to_ids = functools.lru_cache(64)(theirs.text_to_ids)
    return Tokenizers(name, theirs, load_tokenizer(path))


def _corpus() -> Iterator[str]:
    random_ = random.Random(0)
    for _ in range(2000):
        yield text(random_, rare=0.0).replace("\x00", "")


def _train_sentencepiece(path: Path, atomic: list[str]) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for document in _corpus() for line in document.split("\n") if line),
        model_writer=model,
        vocab_size=500,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=atomic,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


def _train_huggingface(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # Llama 3's way of cutting words; GPT-2's merges the two line ends of an empty system message, but not before
    # "<", and NeMo stops at that.
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=600, special_tokens=["</s>"], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(str(folder))
