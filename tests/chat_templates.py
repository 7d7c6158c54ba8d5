# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Jinja chat templates in the shapes that published models have, with the special tokens of their tokenizers."""

from dataclasses import dataclass

from nemo_aligner_cai.chat.huggingface import JinjaTemplate


@dataclass(frozen=True)
class Shape:
    """A template's program, and what its tokenizer_config.json says of special tokens."""

    source: str
    bos: str | None = None
    eos: str | None = None
    more: tuple[str, ...] = ()


_ALTERNATE = """
{%- for message in messages %}
    {%- if message.role not in ('user', 'assistant') %}
        {{- raise_exception('no role ' + message.role) }}
    {%- endif %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant must take turns') }}
    {%- endif %}
{%- endfor %}
"""

SHAPES = {
    "chatml": Shape(
        """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
        eos="<|im_end|>",
        more=("<|im_start|>",),
    ),
    # A system message of its own where none is given, and tools that nobody passes.
    "qwen-2.5": Shape(
        """{%- if tools %}
    {{- '<tools>' + tools | tojson + '</tools>' }}
{%- endif %}
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
        eos="<|im_end|>",
        more=("<|im_start|>",),
    ),
    # Thoughts stand before the last reply only, and are cut out of the ones before.
    "qwen-3": Shape(
        """{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last %}
            {%- set content = '<think>\\n\\n</think>\\n\\n' + content %}
        {%- endif %}
    {%- endif %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
        eos="<|im_end|>",
        more=("<|im_start|>", "<think>", "</think>"),
    ),
    "llama-3": Shape(
        """{%- for message in messages %}
    {%- set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' %}
    {%- set text = head + message['content'] | trim + '<|eot_id|>' %}
    {%- if loop.first %}{% set text = bos_token + text %}{% endif %}
    {{- text }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        more=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    # A header with the day's date in every conversation.
    "llama-3.2": Shape(
        """{{- bos_token }}
{%- if strftime_now is defined %}
    {%- set today = strftime_now('%d %b %Y') %}
{%- else %}
    {%- set today = '26 Jul 2024' %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Today Date: ' + today + '\\n\\n' + system + '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        more=("<|start_header_id|>", "<|end_header_id|>"),
    ),
    "mistral-0.2": Shape(
        _ALTERNATE + "{{- bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}"
        "{% endfor %}",
        bos="<s>",
        eos="</s>",
    ),
    # The system message goes into the last user turn, and a space stands before every reply.
    "mistral-0.3": Shape(
        """{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {%- if loop.last and system is defined %}
            {{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message.content + '[/INST]' }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content | trim + eos_token }}
    {%- else %}
        {{- raise_exception('no role ' ~ message.role) }}
    {%- endif %}
{%- endfor %}
""",
        bos="<s>",
        eos="</s>",
        more=("[INST]", "[/INST]"),
    ),
    # The system message stands inside the first user turn; each exchange has its own start and end.
    "llama-2": Shape(
        """{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- continue %}
    {%- endif %}
    {%- set content = message.content %}
    {%- if loop.index0 == 1 and messages[0].role == 'system' %}
        {%- set content = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' + content %}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- bos_token + '[INST] ' + content | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + content | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
""",
        bos="<s>",
        eos="</s>",
    ),
    "gemma": Shape(
        _ALTERNATE
        + """{{- bos_token }}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}
""",
        bos="<bos>",
        eos="<eos>",
        more=("<start_of_turn>", "<end_of_turn>"),
    ),
    # The speakers are no tokens of the tokenizer; line ends after blocks are the environment's business.
    "zephyr": Shape(
        """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
        eos="</s>",
    ),
    # Bars of full width, and what the model learns between the tags of transformers.
    "deepseek": Shape(
        """{{- bos_token }}{% for message in messages %}
{%- if message.role == 'system' %}{{- message.content }}
{%- elif message.role == 'user' %}{{- '<\uff5cUser\uff5c>' + message.content }}
{%- else %}{{- '<\uff5cAssistant\uff5c>' }}{% generation %}{{- message.content + eos_token }}{% endgeneration %}
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}{{- '<\uff5cAssistant\uff5c>' }}{% endif %}""",
        bos="<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        eos="<\uff5cend\u2581of\u2581sentence\uff5c>",
    ),
    # Nothing but words tells the speakers.
    "vicuna": Shape(
        """{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{% endif %}
{%- for message in messages if message.role != 'system' %}
    {{- '\\n' + message.role | upper + ': ' + message.content + (eos_token if message.role == 'assistant' else '') }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '\\nASSISTANT: ' }}{% endif %}
""",
        bos="<s>",
        eos="</s>",
    ),
}


def jinja_template(shape: Shape) -> JinjaTemplate:
    """The template as it is loaded from a folder with the shape's special tokens."""
    named = {"bos_token": shape.bos, "eos_token": shape.eos}
    variables = {name: token for name, token in named.items() if token}
    return JinjaTemplate(shape.source, variables, tuple(sorted({*variables.values(), *shape.more})))
