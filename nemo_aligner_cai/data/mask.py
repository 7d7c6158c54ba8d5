# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Which tokens SFT learns: NeMo's loss mask, computed without NeMo."""

from dataclasses import dataclass, replace

from nemo_aligner_cai.chat import LabelType, NemoChatTemplate, Segment
from nemo_aligner_cai.data.formats.nemo import sft_text
from nemo_aligner_cai.data.records import Chat
from nemo_aligner_cai.data.tokenizer import Tokenizer

# NeMo counts the tokens of a piece of text behind this character, since some tokenizers put a token of their own
# before the first word of a text.
_BEFORE = "\x00"


@dataclass(frozen=True)
class Trained:
    """A conversation as SFT trains on it. Both lists have one item per token."""

    ids: list[int]
    mask: list[bool]
    """Whether the loss is computed for the prediction of this token."""


def loss_mask(record: Chat, template: NemoChatTemplate, tokenizer: Tokenizer) -> Trained:
    """The ids and the mask of `GPTSFTChatDataset` for a row. Where the mask has no True, the class stops at it.

    It counts and searches tokens as that class does, so that the mask is the same even where a tokenizer merges
    letters over the edges of the pieces.
    """
    template = replace(template, label_type=record.label_type)
    header, *groups = template.segment_groups(record.conversation)
    turns = list(zip(record.conversation.turns, groups, strict=False))
    tokens = template.tokens
    fixed = ("", tokens.turn_start, tokens.label_start, tokens.end_of_name)
    pieces = [text for turn, group in turns for text in (template.turn_header(turn.role), _text(group))]
    ids, header_ids, before, *encoded = tokenizer.encode(
        [sft_text(record, template), header[0].text, *(_BEFORE + text for text in (*fixed, *pieces))]
    )
    turn_start, label_start, end_of_name, *counted = (piece[len(before) :] for piece in encoded)
    mask = [True] * len(ids)
    _hide(mask, 0, len(header_ids))
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
                # Where the label's line end is merged into another token, the class hides the turn, and the next one
                # in the same place.
                _hide(mask, at, end)
                continue
            skipped += line_end + len(end_of_name)
        start, stop = at, at + skipped
        if position == 0 and not predicts_label:
            stop = end  # context alone
        elif turn.role.speaker in record.mask:
            # The first token of a later turn is the end of the reply before it.
            ends_a_reply = position > (0 if predicts_label else 1)
            start, stop = at + len(turn_start) if ends_a_reply else at, end
        _hide(mask, start, min(stop, end))
        at = end
    return Trained(ids, mask)


def _text(group: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in group)


def _hide(mask: list[bool], start: int, stop: int) -> None:
    for position in range(start, min(stop, len(mask))):
        mask[position] = False


def _find(part: list[int], ids: list[int]) -> int:
    """Where `part` first stands in `ids`; -1 where it does not."""
    return next((at for at in range(len(ids) - len(part) + 1) if ids[at : at + len(part)] == part), -1)
