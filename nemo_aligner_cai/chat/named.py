# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates by name, and those of Hugging Face tokenizers by path."""

from pathlib import Path

from nemo_aligner_cai.chat.nemo import NEMO_CHAT
from nemo_aligner_cai.chat.strings import StringTemplate
from nemo_aligner_cai.chat.template import ChatTemplate
from nemo_aligner_cai.errors import UsageError

MISTRAL_INSTRUCT = StringTemplate(
    user_format="[INST] {MESSAGE} [/INST]",
    assistant_format="{MESSAGE}</s>",
    bos_token="<s>",
    eos_token="</s>",
    response_extract_pattern="[/INST]",
)
"""The template of Mistral-7B-Instruct, the only one that NeMo's converter accepts and its server renders."""

CHATML = StringTemplate(
    user_format="<|im_start|>user\n{MESSAGE}<|im_end|>\n",
    assistant_format="<|im_start|>assistant\n{MESSAGE}<|im_end|>\n",
    system_format="<|im_start|>system\n{MESSAGE}<|im_end|>\n",
    eos_token="<|im_end|>",
)
"""OpenAI's ChatML, which Qwen, Yi and many others use; without a default system turn."""

LLAMA3 = StringTemplate(
    user_format="<|start_header_id|>user<|end_header_id|>\n\n{MESSAGE}<|eot_id|>",
    assistant_format="<|start_header_id|>assistant<|end_header_id|>\n\n{MESSAGE}<|eot_id|>",
    system_format="<|start_header_id|>system<|end_header_id|>\n\n{MESSAGE}<|eot_id|>",
    bos_token="<|begin_of_text|>",
    eos_token="<|eot_id|>",
)
"""Llama 3's template. Meta's own code also trims every text; this one does not."""

TEMPLATES: dict[str, ChatTemplate] = {
    "nemo": NEMO_CHAT,
    "mistral": MISTRAL_INSTRUCT,
    "chatml": CHATML,
    "llama3": LLAMA3,
}


def template_named(name_or_path: str) -> ChatTemplate:
    """Load a chat template by name or path.

    Args:
        name_or_path: one of `TEMPLATES`, the folder of a Hugging Face tokenizer, or its chat_template.jinja.

    Raises:
        UsageError: there is no such name or path, or the path has no usable template.
    """
    if name_or_path in TEMPLATES:
        return TEMPLATES[name_or_path]
    if not Path(name_or_path).exists():
        raise UsageError(
            f"no chat template {name_or_path!r}; give one of {', '.join(TEMPLATES)}, or the folder of a Hugging Face "
            "tokenizer"
        )
    # Importing Jinja takes as long as importing this package, and the named templates do not need it.
    from nemo_aligner_cai.chat.huggingface import load_template

    return load_template(name_or_path)
