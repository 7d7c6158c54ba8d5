# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""NeMo's SFT loss mask, computed without NeMo."""

from dataclasses import dataclass, replace

from nemo_aligner_cai.chat import LabelType, NemoChatTemplate, Segment
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.data.tokenizer import Tokenizer

COUNT_PREFIX = "\x00"
"""NeMo puts this character before a text to count its tokens, because some tokenizers add a token at the start."""


@dataclass(frozen=True)
class MaskedTokens:
    """A tokenized conversation with its loss mask. Both lists have one item per token."""

    ids: list[int]
    mask: list[bool]
    """True: the loss includes the prediction of this token."""


def loss_mask(record: Chat, template: NemoChatTemplate, tokenizer: Tokenizer) -> MaskedTokens:
    """The ids and the mask of `GPTSFTChatDataset` for a row. The class stops at a mask without True.

    Tokens are counted and searched as in that class, so that the mask is the same even if the tokenizer merges letters
    across the boundaries of the pieces.
    """
    template = replace(template, label_type=record.label_type)
    header, *groups = template.segment_groups(record.conversation)
    turns = list(zip(record.conversation.turns, groups, strict=False))
    tokens = template.tokens
    fixed = ("", tokens.turn_start, tokens.label_start, tokens.end_of_name)
    pieces = [text for turn, group in turns for text in (template.turn_header(turn.role), _text(group))]
    ids, header_ids, before, *encoded = tokenizer.encode(
        [sft_text(record, template), header[0].text, *(COUNT_PREFIX + text for text in (*fixed, *pieces))]
    )
    turn_start, label_start, end_of_name, *counted = (piece[len(before) :] for piece in encoded)
    mask = [True] * len(ids)
    _mask_out(mask, 0, len(header_ids))
    at, predicts_label = len(header_ids), template.label_type is LabelType.TEXT_TO_VALUE
    for position, (turn, _) in enumerate(turns):
        name, whole = counted[2 * position : 2 * position + 2]
        skipped, end = len(name), at + len(whole)
        label = _find(label_start, whole) if template.label_type else -1
        if label >= 0 and predicts_label:
            skipped = label + len(label_start)
        elif label >= 0:
            line_end = _find(end_of_name, whole[skipped:])
            if line_end < 0:
                # If the label's line end is merged into another token, the class masks the turn, and reads the next
                # turn at the same position.
                _mask_out(mask, at, end)
                continue
            skipped += line_end + len(end_of_name)
        start, stop = at, at + skipped
        if position == 0 and not predicts_label:
            stop = end  # context, not learned
        elif turn.role.speaker in record.mask:
            # The first token of a later turn ends the previous reply.
            ends_a_reply = position > (0 if predicts_label else 1)
            start, stop = at + len(turn_start) if ends_a_reply else at, end
        _mask_out(mask, start, min(stop, end))
        at = end
    return MaskedTokens(ids, mask)


def _text(group: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in group)


def _mask_out(mask: list[bool], start: int, stop: int) -> None:
    for position in range(start, min(stop, len(mask))):
        mask[position] = False


def _find(part: list[int], ids: list[int]) -> int:
    """The first position of `part` in `ids`, -1 if it is missing."""
    return next((at for at in range(len(ids) - len(part) + 1) if ids[at : at + len(part)] == part), -1)
