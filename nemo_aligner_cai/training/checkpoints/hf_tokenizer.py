# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A SentencePiece model as Hugging Face's tokenizer.json, with the token ids that NeMo's tokenizer gives.

transformers 5 converts tokenizer.model too, but not as NeMo reads it: for Mistral it drops the space before the first
word, and it knows no user-defined pieces such as <extra_id_1>.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_NORMAL, _USER_DEFINED, _BPE = 1, 4, 2
"""Numbers in SentencePiece's own file format: types of pieces, and the type of a model."""
_SPACE = "▁"


def from_sentencepiece(file: Path) -> dict[str, Any] | None:
    """The content of tokenizer.json; None if the model normalizes texts in a way that is not converted.

    A text that is nothing but one user-defined piece lacks the leading space.
    """
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_model

    proto: Any = sentencepiece_model.ModelProto()
    proto.ParseFromString(file.read_bytes())
    rules = proto.normalizer_spec
    if rules.precompiled_charsmap or rules.remove_extra_whitespaces or not rules.escape_whitespaces:
        return None
    added = {number: piece.piece for number, piece in enumerate(proto.pieces) if piece.type == _USER_DEFINED}
    normalizers: list[dict[str, Any]] = [_replace({"String": " "})]
    if rules.add_dummy_prefix:
        # The library normalizes added tokens too, each alone: these must not get the space.
        alone = "|".join(re.escape(text) for text in added.values())
        normalizers.insert(0, _replace({"Regex": rf"\A(?!(?:{alone})?\z)"}))
    # Normalized tokens are searched for after the spaces have been replaced, as SentencePiece does.
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": text} | flags for number, text in added.items()],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": _bpe(proto) if proto.trainer_spec.model_type == _BPE else _unigram(proto),
    }


def special_tokens(file: Path) -> dict[str, str]:
    """The special tokens of a SentencePiece model, as tokenizer_config.json names them."""
    from sentencepiece import SentencePieceProcessor

    processor: Any = SentencePieceProcessor(model_file=str(file))
    numbers = {"bos_token": processor.bos_id(), "eos_token": processor.eos_id(), "unk_token": processor.unk_id()}
    return {name: processor.id_to_piece(number) for name, number in numbers.items() if number >= 0}


def _replace(pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": _SPACE}


def _bpe(proto: Any) -> dict[str, Any]:
    ids = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    merges: list[tuple[float, int, int, list[str]]] = []
    for piece in proto.pieces:
        halves = [(piece.piece[:cut], piece.piece[cut:]) for cut in range(1, len(piece.piece))]
        merges += [
            (-piece.score, ids[left], ids[right], [left, right])
            for left, right in halves
            if piece.type == _NORMAL and left in ids and right in ids
        ]
    return {
        "type": "BPE",
        "unk_token": proto.trainer_spec.unk_piece,
        "fuse_unk": True,
        "byte_fallback": proto.trainer_spec.byte_fallback,
        "vocab": ids,
        "merges": [halves for *_, halves in sorted(merges)],
    }


def _unigram(proto: Any) -> dict[str, Any]:
    return {
        "type": "Unigram",
        "unk_id": proto.trainer_spec.unk_id,
        "byte_fallback": proto.trainer_spec.byte_fallback,
        "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
    }
