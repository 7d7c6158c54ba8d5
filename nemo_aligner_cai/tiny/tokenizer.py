# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tiny assistant's SentencePiece model: one piece per word, bytes for everything else.

The words are user-defined symbols, so the same lexicon always gives the same pieces; the SentencePiece trainer learns
nothing. Text outside the language, such as real red-team prompts, is encoded as bytes and decodes unchanged.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from nemo_aligner_cai.files import atomic_writer

# The chat template's own tokens and the newline that ends names and turns.
TEMPLATE_PIECES = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "\n")
SPACE = "\u2581"  # SentencePiece's symbol for a space


def write_tokenizer(path: Path, words: Iterable[str]) -> None:
    """Write a SentencePiece model whose pieces are `words`.

    Each word becomes two pieces: at the start of a line, and after a space. Without a dummy prefix and normalization,
    the ids of a prompt are an exact prefix of the ids of prompt and reply.
    """
    import sentencepiece as spm

    symbols = [*TEMPLATE_PIECES, *(form for word in words for form in (SPACE + word, word))]
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([SPACE]),  # the only required character
        model_writer=model,
        model_type="bpe",
        vocab_size=len(("<unk>", "<s>", "</s>")) + len(symbols) + 256 + len(SPACE),
        user_defined_symbols=symbols,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    with atomic_writer(path, overwrite=True) as file:
        file.write(model.getvalue())
