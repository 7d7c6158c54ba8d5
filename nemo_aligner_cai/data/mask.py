# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Which tokens SFT learns: NeMo's loss mask, computed without NeMo."""

from dataclasses import dataclass

from nemo_aligner_cai.conversation import Conversation, NemoChatTemplate
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


def loss_mask(conversation: Conversation, template: NemoChatTemplate, tokenizer: Tokenizer) -> Trained:
    """The ids and the mask of `GPTSFTChatDataset` for a row whose ``mask`` is "User".

    It counts as that class does, so that the mask is the same even where a tokenizer merges letters over the edges
    of the pieces.
    """
    header, *groups = template.segment_groups(conversation)
    turns = groups[: len(conversation.turns)]
    # Each turn's first segment by itself, and the whole turn: what the first leaves over is the second's.
    pieces = [_BEFORE + text for turn in turns for text in (turn[0].text, "".join(segment.text for segment in turn))]
    ids, header_ids, nothing, *counted = tokenizer.encode(
        [template.render(conversation), header[0].text, _BEFORE, *pieces]
    )
    mask = [False] * len(header_ids)
    for position, turn in enumerate(turns):
        first, whole = (len(counted[2 * position + offset]) - len(nothing) for offset in (0, 1))
        mask += [turn[0].trained] * first + [turn[-1].trained] * (whole - first)
    # Whatever the turns' counts do not cover is learnt; that is the token which opens the next turn.
    mask = mask[: len(ids)] + [True] * (len(ids) - len(mask))
    return Trained(ids, mask)
