# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the chat template of a NeMo-trained model into its Hugging Face folder.

Input:  `data.chat` and `data.chat_prompt_tokens` in model_config.yaml; the reference's tokenizer and generation files
Output: tokenizer_config.json with NeMo's template in Jinja; generation_config.json with its stop strings, and the ids
        of those that are one token; tokenizer.json, if the folder has tokenizer.model alone
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.chat import NemoChatTemplate
from nemo_aligner_cai.training.checkpoints import hf_tokenizer
from nemo_aligner_cai.training.checkpoints.json_object import read_json_object, write_json_object

_log = logging.getLogger(__name__)
CHOICES = ("auto", "nemo", "reference")
_TOKENS = "chat_prompt_tokens"
_CONFIG, _GENERATION = "tokenizer_config.json", "generation_config.json"
_NEUTRAL_CLASS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    # By default this class also returns token_type_ids, which `generate` of a Llama or Mistral rejects.
    "model_input_names": ["input_ids", "attention_mask"],
}
_OTHER_TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Files that take precedence over tokenizer_config.json in transformers and vLLM."""


def training_template(stored: Mapping[str, Any], choice: str, source: Path) -> NemoChatTemplate | None:
    """The template that a model was trained with; None to keep the reference's.

    Args:
        stored: the model's configuration.
        choice: one of `CHOICES`; "auto" depends on `data.chat`, which SFT on chat rows sets and later stages keep.
        source: the path of the model, for messages.

    Raises:
        UsageError: a template token is not a string.
    """
    data = stored.get("data")
    settings = cast(Mapping[str, Any], data) if isinstance(data, Mapping) else {}
    if choice == "reference" or (choice == "auto" and settings.get("chat") is not True):
        _log.info("%s: keeping the chat template of the reference folder; --chat-template nemo writes NeMo's", source)
        return None
    template = NemoChatTemplate.from_config(settings.get(_TOKENS), f"{source}: data.{_TOKENS}")
    _log.info("%s: writing NeMo's chat template, with %s before each turn", source, repr(template.tokens.turn_start))
    return template


def write(folder: Path, template: NemoChatTemplate, library: str | None = None) -> None:
    """Write a chat template and its stop strings into a folder.

    Args:
        folder: has the model's configuration and tokenizer.
        template: the template that the model was trained with.
        library: NeMo's `tokenizer.library`. With "huggingface", NeMo has used tokenizer.json unchanged; transformers 5
            would rebuild parts of it for some tokenizer classes, so a neutral class is set. A tokenizer.model alone is
            converted to tokenizer.json.
    """
    for name in _OTHER_TEMPLATES:
        (folder / name).unlink(missing_ok=True)
    config = _optional(folder / _CONFIG) | {"chat_template": template.jinja}
    if not (folder / "tokenizer.json").is_file():
        model = folder / "tokenizer.model"
        converted = hf_tokenizer.from_sentencepiece(model)
        if converted is None:
            config["tokenizer_class"] = "LlamaTokenizer"
            _log.warning(
                "%s: tokenizer.model normalizes texts and is not converted to tokenizer.json: transformers 5 may "
                "tokenize differently than NeMo; serve the folder with transformers 4 and use_fast=False",
                folder,
            )
        else:
            write_json_object(folder / "tokenizer.json", converted)
            config = hf_tokenizer.special_tokens(model) | config | _NEUTRAL_CLASS
    elif library == "huggingface":
        config |= _NEUTRAL_CLASS
    write_json_object(folder / _CONFIG, config)
    generation = _optional(folder / _GENERATION)
    if not generation:
        model = _optional(folder / "config.json")
        generation = {key: model[key] for key in ("bos_token_id", "eos_token_id") if model.get(key) is not None}
    ends = generation.get("eos_token_id")
    ids = [*(cast(list[int], ends) if isinstance(ends, list) else [ends] if ends is not None else [])]
    ids += [number for number in _ids(folder, template.stop) if number not in ids]
    eos = {"eos_token_id": ids if len(ids) > 1 else ids[0]} if ids else {}
    write_json_object(folder / _GENERATION, generation | eos | {"stop_strings": list(template.stop)})


def _ids(folder: Path, strings: tuple[str, ...]) -> list[int]:
    """The ids of the strings that the tokenizer always encodes as one token."""
    file = folder / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        pieces = [tokenizer.encode(f"a\n{text}", add_special_tokens=False).ids[-1:] for text in strings]
        known = [tokenizer.token_to_id(text) for text in strings]
    else:
        from sentencepiece import SentencePieceProcessor

        processor: Any = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        pieces = [processor.encode(f"a\n{text}")[-1:] for text in strings]
        found = [processor.piece_to_id(text) for text in strings]
        # An unknown piece has the id of <unk>.
        known = [
            number if processor.id_to_piece(number) == text else None
            for number, text in zip(found, strings, strict=True)
        ]
    return [number for number, piece in zip(known, pieces, strict=True) if number is not None and piece == [number]]


def _optional(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}
