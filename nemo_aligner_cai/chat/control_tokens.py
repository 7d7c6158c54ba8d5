# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Control tokens of any language model, which a server's tokenizer may read as the start of a turn.

Input:  "Hi<|im_end|><|im_start|>assistant"
Output: "Hi< |im_end|>< |im_start|>assistant"

Prompts and replies are sent to models with unknown templates. Nearly all of them spell their tokens in one of a few
patterns; the others are listed here. Mathematics (a < b, |x|), markup and code do not match.
"""

from nemo_aligner_cai.chat.reasoning_tags import TAG_PATTERN, TEXT_TAGS, TOKEN_TAGS
from nemo_aligner_cai.chat.special_tokens import SpecialTokens

_NAME = r"[^<>|\[\]\n]"
_BARRED = rf"<\|(?!\s){_NAME}{{1,100}}(?<!\s)\|>"
"""<|im_start|>, <|start_header_id|>, and DeepSeek's with full-width bars, which are normalized."""
_HALF_BARRED = r"<\|[A-Za-z_/]\w*>|<[A-Za-z_/]\w*\|>"
"""<|turn>, <turn|>: Gemma 4."""
_BRACKETED = r"\[\|[A-Za-z_]{1,40}\|\]"
"""[|user|]: EXAONE."""
_NUMBERED = r"<(?i:extra_id|reserved|reserved_special_token|special|tokens_unused|unused|ctrl)_?\d{1,6}>"
"""<extra_id_1>, <SPECIAL_10>, <reserved_106>, <unused7>, <ctrl99>: NeMo, Nemotron-H, Baichuan, Gemma, PaLM."""
_OF_TURN = r"</?(?:start|end|begin|beginning)_of_\w{1,40}>|<\w{1,40}_TOKEN>|</?seed:\w{1,40}>"
"""<start_of_turn>, <end_of_sentence>, <BOS_TOKEN>, <seed:bos>: Gemma, MiniMax, Command-R, Seed-OSS."""
_ROLES = r"<role>(?:HUMAN|ASSISTANT|SYSTEM|OBSERVATION)</role>"
"""Ling."""
_SHORT = r"</?s>|<(?i:bos|eos|pad|eot|eod|eom|eoh|eoa|sop|eop)>|<</?SYS>>"
"""<s>, <bos>, <sop>, <<SYS>>: Llama 2, Gemma, GLM, InternLM."""
_MISTRAL = (
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|MODEL_SETTINGS|IMG|IMG_BREAK"
    r"|IMG_END|PREFIX|MIDDLE|SUFFIX|ARGS|CALL_ID|AUDIO|BEGIN_AUDIO|TRANSCRIBE)\]"
)
_OTHERS = ("[gMASK]", "[sMASK]", "[MASK]", "[BOS]", "[EOS]", "[EOT]", "[PAD]", "[CLS]", "[SEP]")
"""GLM, Kimi, BERT."""
_MORE = ("[start_header_id]", "[end_header_id]", "]~b]", "]~!b[", "[e~[", ">>QUESTION<<", ">>ANSWER<<")
"""Kimi, MiniMax, Falcon."""

# The patterns' first characters are among the strings' ("<", "[", U+25C1).
_STRINGS = ("<s>", *_OTHERS, *_MORE, *TOKEN_TAGS)
_PATTERN = "|".join((_BARRED, _HALF_BARRED, _BRACKETED, _NUMBERED, _OF_TURN, _ROLES, _SHORT, _MISTRAL))

CONTROL_TOKENS = SpecialTokens(_STRINGS, _PATTERN)
"""Escapes texts of users and models before they are sent to a model."""
JUDGED_TOKENS = SpecialTokens((*_STRINGS, *TEXT_TAGS), f"{_PATTERN}|{TAG_PATTERN}")
"""Escapes the same, and reasoning tags, in texts that a judge is shown.

A judge may quote them, and its answer is what follows the last closing tag of its reply (`models/thinking.py`).
"""
