# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""This package's chat template in NeMo's registry of prompt formatters.

    import nemo_aligner_cai.training.prompt_formatter
    formatter = PromptFormatter.resolve("nemo_aligner_cai")(tokenizer)

Input:  [{"role": "user", "slots": {"message": "Q"}}, {"role": "assistant", "slots": {"message": "A"}}]
Output: {"input_ids", "context_ids", "answer_ids", "mask"}: the ids and the loss mask that NeMo-Aligner's SFT trains on

NeMo's package of formatters imports lhotse, which NeMo's container has, and its PyPI extras for text do not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nemo.collections.common.prompts.formatter import Modality, PromptFormatter

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.data.mask import loss_mask
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.errors import CaiError

_TOKENS = NEMO_CHAT.tokens
_SLOTS = {"message": Modality.Text}


class _NemoTokenizer:
    """Adapts a NeMo tokenizer to `data.tokenizer.Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(self._tokenizer.text_to_ids(text)) for text in texts]


class CaiPromptFormatter(PromptFormatter):
    """The chat template of SFT, reward model, PPO and inference.

    A dialog is encoded as a whole, as in training. The base class encodes turn by turn, which gives other ids if the
    tokenizer merges characters across a turn boundary.
    """

    NAME = "nemo_aligner_cai"
    OUTPUT_ROLE = "assistant"
    TEMPLATE = {  # noqa: RUF012 (the base class needs a plain attribute)
        role.value: {
            "template": f"{start}{role.speaker}{_TOKENS.end_of_name}|message|{_TOKENS.end_of_turn}",
            "slots": _SLOTS,
        }
        for role, start in (
            (Role.SYSTEM, _TOKENS.system_turn_start),
            (Role.USER, _TOKENS.turn_start),
            (Role.ASSISTANT, _TOKENS.turn_start),
        )
    }

    def encode_dialog(self, turns: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Encode a dialog; without a final answer, only `input_ids` and `context_ids` are returned, for inference.

        Raises:
            UsageError: a role is unknown, or a message is not a string.
            CaiError: the tokenizer merges the start of the answer with its prompt.
        """
        conversation = Conversation.from_messages([_message(turn) for turn in turns])
        tokenizer = _NemoTokenizer(self.tokenizer)
        if conversation.messages[-1].role is not Role.ASSISTANT:
            (context,) = tokenizer.encode([NEMO_CHAT.generation_prompt(conversation)])
            return {"input_ids": _tensor(context), "context_ids": _tensor(context)}
        trained = loss_mask(Chat(conversation), NEMO_CHAT, tokenizer)
        (context,) = tokenizer.encode([NEMO_CHAT.generation_prompt(conversation.without_last())])
        if trained.ids[: len(context)] != context:
            raise CaiError("this tokenizer merges the start of an answer with its prompt")
        return {
            "input_ids": _tensor(trained.ids),
            "context_ids": _tensor(context),
            "answer_ids": _tensor(trained.ids[len(context) :]),
            "mask": torch.tensor(trained.mask, dtype=torch.bool),
        }


def _message(turn: Mapping[str, Any]) -> dict[str, Any]:
    slots: Mapping[str, Any] = turn.get("slots") or {}
    return {"role": turn.get("role"), "content": slots.get("message")}


def _tensor(ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long)
