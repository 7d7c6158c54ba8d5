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
"""The only template of Mistral-7B-Instruct that NeMo's converter takes, and what its server then renders."""

CHATML = StringTemplate(
    user_format="<|im_start|>user\n{MESSAGE}<|im_end|>\n",
    assistant_format="<|im_start|>assistant\n{MESSAGE}<|im_end|>\n",
    system_format="<|im_start|>system\n{MESSAGE}<|im_end|>\n",
    eos_token="<|im_end|>",
)
"""OpenAI's ChatML, which Qwen, Yi and many others use; without a system turn where none is given."""

LLAMA3 = StringTemplate(
    user_format="<|start_header_id|>user<|end_header_id|>\n\n{MESSAGE}<|eot_id|>",
    assistant_format="<|start_header_id|>assistant<|end_header_id|>\n\n{MESSAGE}<|eot_id|>",
    system_format="<|start_header_id|>system<|end_header_id|>\n\n{MESSAGE}<|eot_id|>",
    bos_token="<|begin_of_text|>",
    eos_token="<|eot_id|>",
)
"""Llama 3's template. Meta's own code also trims every text; here a text stays as it is."""

TEMPLATES: dict[str, ChatTemplate] = {
    "nemo": NEMO_CHAT,
    "mistral": MISTRAL_INSTRUCT,
    "chatml": CHATML,
    "llama3": LLAMA3,
}


def template_named(name_or_path: str) -> ChatTemplate:
    """The chat template of a name or a path.

    Args:
        name_or_path: one of `TEMPLATES`, the folder of a Hugging Face tokenizer, or its chat_template.jinja.

    Raises:
        UsageError: neither a name nor a path, or the path has no template that can be used.
    """
    if name_or_path in TEMPLATES:
        return TEMPLATES[name_or_path]
    if not Path(name_or_path).exists():
        raise UsageError(
            f"no chat template {name_or_path!r}; give one of {', '.join(TEMPLATES)}, or the folder of a Hugging Face "
            "tokenizer"
        )
    # Jinja takes as long to import as all of this package, and the templates above do without.
    from nemo_aligner_cai.chat.huggingface import load_template

    return load_template(name_or_path)
