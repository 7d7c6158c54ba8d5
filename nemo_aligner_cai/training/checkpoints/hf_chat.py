# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The chat template of a Hugging Face folder whose model NeMo has trained.

Input:  model_config.yaml's `data.chat` and `data.chat_prompt_tokens`; the reference's tokenizer and generation files
Output: tokenizer_config.json with NeMo's template in Jinja; generation_config.json with its stop strings, and the ids
        of those that are one token
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai.chat import NEMO_CHAT, ChatTokens, NemoChatTemplate
from nemo_aligner_cai.errors import UsageError

_log = logging.getLogger(__name__)
CHOICES = ("auto", "nemo", "reference")
_TOKENS = "chat_prompt_tokens"
_CONFIG, _GENERATION = "tokenizer_config.json", "generation_config.json"
_OTHER_TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Files that transformers and vLLM would read before the key of tokenizer_config.json."""


def taught(stored: Mapping[str, Any], choice: str, source: Path) -> NemoChatTemplate | None:
    """The template that a model was trained with; None where the reference's is to be kept.

    Args:
        stored: the model's configuration.
        choice: one of `CHOICES`; "auto" goes by `data.chat`, which SFT on chat rows sets and later stages keep.
        source: the model, in messages.

    Raises:
        UsageError: its tokens are not texts.
    """
    data = stored.get("data")
    settings = cast(Mapping[str, Any], data) if isinstance(data, Mapping) else {}
    if choice == "reference" or (choice == "auto" and settings.get("chat") is not True):
        _log.info("%s: the chat template is the reference folder's; --chat-template nemo writes NeMo's", source)
        return None
    tokens = settings.get(_TOKENS)
    if tokens is None:
        template = NEMO_CHAT
    elif isinstance(tokens, Mapping) and all(isinstance(token, str) and token for token in tokens.values()):
        template = NemoChatTemplate(ChatTokens.from_config(cast(Mapping[str, str], tokens)))
    else:
        raise UsageError(f"{source}: data.{_TOKENS}={tokens}: must be texts, and not empty")
    _log.info("%s: the chat template is NeMo's, with %s before each turn", source, repr(template.tokens.turn_start))
    return template


def write(folder: Path, template: NemoChatTemplate, library: str | None = None) -> None:
    """Give a folder a chat template and its stop strings.

    Args:
        folder: has the model's configuration and tokenizer.
        template: what the model was trained with.
        library: NeMo's `tokenizer.library`. With "huggingface" NeMo has read tokenizer.json as it is, which not every
            version of transformers does: 5 rebuilds parts of it after the tokenizer's class. tokenizer.model alone is
            read as Llama's.
    """
    for name in _OTHER_TEMPLATES:
        (folder / name).unlink(missing_ok=True)
    rendering = _read(folder / _CONFIG) | {"chat_template": template.jinja}
    if not (folder / "tokenizer.json").is_file():
        # Another class would take the space before the first word of a text away.
        rendering["tokenizer_class"] = "LlamaTokenizer"
        if single := _ids(folder, (template.tokens.system_turn_start, template.tokens.turn_start)):
            _log.warning(
                "%s: tokenizer.model has starts of turns as tokens of their own (%s): transformers 5 reads the texts "
                "beside them otherwise than NeMo; serve the folder with transformers 4 and use_fast=False",
                folder,
                ", ".join(map(str, single)),
            )
    elif library == "huggingface":
        rendering["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write(folder / _CONFIG, rendering)
    generation = _read(folder / _GENERATION)
    if not generation:
        model = _read(folder / "config.json")
        generation = {key: model[key] for key in ("bos_token_id", "eos_token_id") if model.get(key) is not None}
    ends = generation.get("eos_token_id")
    ids = [*(cast(list[int], ends) if isinstance(ends, list) else [ends] if ends is not None else [])]
    ids += [number for number in _ids(folder, template.stop) if number not in ids]
    ended = {"eos_token_id": ids if len(ids) > 1 else ids[0]} if ids else {}
    _write(folder / _GENERATION, generation | ended | {"stop_strings": list(template.stop)})


def _ids(folder: Path, strings: tuple[str, ...]) -> list[int]:
    """The numbers of the strings that the tokenizer reads as one token wherever they stand."""
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
        # An unknown piece has the number of <unk>.
        known = [
            number if processor.id_to_piece(number) == text else None
            for number, text in zip(found, strings, strict=True)
        ]
    return [number for number, piece in zip(known, pieces, strict=True) if number is not None and piece == [number]]


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content: object = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file}: a JSON object is needed")
    return cast(dict[str, Any], content)


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
