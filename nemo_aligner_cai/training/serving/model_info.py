# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The served model: the hash of its file, its chat template, and its tokenizer."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import ChatTemplate, NemoChatTemplate, StringTemplate, template_named
from nemo_aligner_cai.files import content_hash, sha256_file

_log = logging.getLogger(__name__)
_TAIL = 8
"""Prompt tokens that are decoded together with a reply: alone, its first token could lose its space."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def fingerprint(path: Path, given: str | None) -> Future[str]:
    """Hash a .nemo file, or the files of an extracted one, in a thread: large ones take minutes.

    Args:
        path: the model.
        given: the name or path of a chat template that replaces the model's; it changes the hash.
    """
    pool = ThreadPoolExecutor(1)
    future = pool.submit(_hash, path, given)
    pool.shutdown(wait=False)
    return future


def _hash(path: Path, given: str | None) -> str:
    template = f"+{content_hash(repr(template_named(given)))}" if given is not None else ""
    if path.is_file():
        return f"sha256:{sha256_file(path)}{template}"
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path)}\0{sha256_file(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}{template}"


def template_of(model: Any, given: str | None) -> ChatTemplate | None:
    """The chat template of a model; None if it has none.

    Args:
        model: a NeMo model with `data.chat_prompt_tokens` from its SFT, or with a template of its tokenizer.
        given: the name or path of a template that replaces the model's.

    Raises:
        UsageError: the template is invalid.
    """
    if given is not None:
        return template_named(given)
    if (trained := NemoChatTemplate.of_model(model.cfg.get("data"), "the model")) is not None:
        return trained
    tokenizer = model.tokenizer
    inner: Any = getattr(tokenizer, "tokenizer", None)
    if isinstance(getattr(inner, "chat_template", None), str):
        with tempfile.TemporaryDirectory() as folder:
            inner.save_pretrained(folder)
            return template_named(folder)
    described = getattr(tokenizer, "chat_template", None)
    return _from_nemo(described, tokenizer) if isinstance(described, Mapping) else None


def _from_nemo(template: Mapping[str, Any], tokenizer: Any) -> StringTemplate:
    """A template of NeMo's SentencePiece tokenizers: ``{"prefix": "{_bos_}", "roles": {"User": ...}}``."""
    names = {"{_content_}": "{MESSAGE}"} | {
        f"{{_{name}_}}": tokenizer.ids_to_tokens([getattr(tokenizer, f"{name}_id")])[0] for name in ("bos", "eos")
    }

    def filled(text: str) -> str:
        for name, value in names.items():
            text = text.replace(name, value)
        return text

    roles = {str(name).lower(): filled(text) for name, text in template["roles"].items()}
    return StringTemplate(
        roles["user"],
        roles["assistant"],
        system_format=roles.get("system"),
        bos_token=filled(template.get("prefix", "")) or None,
        eos_token=names["{_eos_}"],
    )


class Text:
    """Converts between text and token ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._anchor = [tokenizer.text_to_ids("a")[-1]]
        self._anchored = tokenizer.ids_to_text(self._anchor)
        # SentencePiece does not encode its control tokens.
        processor = getattr(tokenizer, "tokenizer", None)
        controls = hasattr(processor, "is_control")
        ids = [number for number in (tokenizer.bos_id, tokenizer.eos_id) if controls and number >= 0]
        self._control: dict[str, int] = {tokenizer.ids_to_tokens([number])[0]: number for number in ids}

    def rendered_ids(self, text: str, template: ChatTemplate) -> list[int]:
        """The ids of a rendered conversation.

        The names of control tokens stand for these tokens where they are the template's own, which `guard` has broken
        up in the messages. Others are plain text, as in training: NeMo's template has none.
        """
        named = {name: number for name, number in self._control.items() if name in template.template_tokens}
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, named))})", text) if named else [text]:
            if part in named:
                ids.append(named[part])
            elif part:
                ids += self._tokenizer.text_to_ids(part)
        return ids

    def after(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of tokens that follow a prompt."""
        tail = list(prompt[-_TAIL:])
        before, whole = self._tokenizer.ids_to_text(tail), self._tokenizer.ids_to_text([*tail, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self._tokenizer.ids_to_text(list(tokens))

    @lru_cache(maxsize=1 << 16)  # noqa: B019 (one object per server)
    def token(self, number: int) -> tuple[str, list[int]]:
        """A token's text and bytes, including its leading space."""
        piece: str = self._tokenizer.ids_to_tokens([number])[0]
        if byte := _BYTE.fullmatch(piece):
            return f"bytes:\\x{byte[1].lower()}", [int(byte[1], 16)]
        whole: str = self._tokenizer.ids_to_text([*self._anchor, number])
        text = whole[len(self._anchored) :] if whole.startswith(self._anchored) else ""
        text = text or piece
        return text, list(text.encode("utf-8", "replace"))
