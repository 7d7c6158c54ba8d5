# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates out of Hugging Face tokenizers' folders: what is read, what is refused, and what a program may do."""

import json
import resource
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation, Role, template_named, trial
from nemo_aligner_cai.chat.huggingface import JinjaTemplate, added_tokens, special_token_texts
from nemo_aligner_cai.errors import FormatError, UsageError
from tests.chat_templates import SHAPES, jinja_template

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ASKED = Conversation.of_user("Q")
ANSWERED = ASKED.with_turn(Role.ASSISTANT, "A")


def folder_with(path: Path, config: Any = None, **files: str) -> str:
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": PLAIN, "eos_token": "</s>"},
        {"chat_template": PLAIN, "eos_token": {"content": "</s>", "lstrip": False, "__type": "AddedToken"}},
        {
            "chat_template": [{"name": "tool_use", "template": "{{ x }}"}, {"name": "default", "template": PLAIN}],
            "eos_token": "</s>",
        },
    ],
    ids=["text", "described token", "named templates"],
)
def test_a_folders_configuration_gives_the_template(config: Any, tmp_path: Path):
    template = template_named(folder_with(tmp_path, config))
    assert template.render(ANSWERED) == "<|user|>Q</s><|assistant|>A</s>"
    assert template.generation_prompt(ASKED) == "<|user|>Q</s><|assistant|>"
    assert (template.stop, template.reply_end, template.reply_start) == (("</s>",), "</s>", "")


def test_a_template_file_goes_before_the_configuration_and_can_be_named_itself(tmp_path: Path):
    config = {"chat_template": "{{ never }}", "eos_token": "</s>"}
    folder = folder_with(tmp_path, config, chat_template__jinja=PLAIN, other__jinja="{# - #}" + PLAIN.upper().lower())
    assert template_named(folder).render(ASKED) == "<|user|>Q</s>"
    assert template_named(f"{folder}/other.jinja").render(ASKED) == "<|user|>Q</s>"


def test_special_tokens_of_the_older_file_count_where_the_configuration_lists_none(tmp_path: Path):
    older = '{"eos_token": {"content": "<end>"}}'
    config: dict[str, Any] = {"chat_template": PLAIN, "eos_token": "</s>"}
    assert template_named(folder_with(tmp_path, config, special_tokens_map__json=older)).stop == ("<end>",)
    config["added_tokens_decoder"] = {"2": {"content": "</s>", "special": True}, "3": {"content": "<|user|>"}}
    assert template_named(folder_with(tmp_path, config)).stop == ("</s>",)


def test_special_tokens_of_the_older_file_count_without_a_configuration(tmp_path: Path):
    folder = folder_with(tmp_path, chat_template__jinja=PLAIN, special_tokens_map__json='{"eos_token": "<end>"}')
    assert template_named(folder).stop == ("<end>",)


def test_blocks_take_their_indent_and_line_break_with_them_as_in_transformers(tmp_path: Path):
    source = PLAIN.replace("{% if", "\n  {% if").replace("ion_prompt %}", "ion_prompt %}\n")
    folder = folder_with(tmp_path, {"eos_token": "</s>"}, chat_template__jinja=source)
    assert template_named(folder).render(ANSWERED) == "<|user|>Q</s><|assistant|>A</s>"


def test_special_tokens_that_the_program_writes_are_markers_and_its_spaces_and_words_are_not(tmp_path: Path):
    source = PLAIN + "{#    #}{% if tools %}TOOL<think>{% endif %}"
    added = [
        ("</s>", True),
        ("TOOL", True),
        ("<think>", False),
        ("<unused>", True),
        ("content", False),
        ("    ", True),
    ]
    decoder: dict[str, Any] = {"9": "damaged"}
    decoder |= {str(number): {"content": token, "special": special} for number, (token, special) in enumerate(added)}
    config = {"chat_template": source, "eos_token": "</s>", "added_tokens_decoder": decoder}
    markers = template_named(folder_with(tmp_path, config)).template_tokens
    assert set(markers) == {"</s>", "<|assistant|>", "<|system|>", "<|user|>", "TOOL", "<think>"}


def test_the_tokens_of_a_configuration_are_listed(tmp_path: Path):
    decoder = {"10": {"content": "<a>", "special": True}, "9": {"content": "b"}}
    config = {
        "eos_token": {"content": "</s>"},
        "unk_token": None,
        "additional_special_tokens": ["<x>", {"content": "<y>"}, 7],
        "extra_special_tokens": {"image_token": "<img>"},
        "added_tokens_decoder": decoder,
    }
    folder = Path(folder_with(tmp_path, config))
    assert list(added_tokens(folder).items()) == [(9, decoder["9"]), (10, decoder["10"])]
    assert special_token_texts(folder) == ["</s>", "<img>", "<x>", "<y>"]
    for wrong in ([1], {"x": {"content": "a"}}, {"1": "a"}, {"1": {"content": ""}}):
        folder_with(tmp_path, {"added_tokens_decoder": wrong})
        with pytest.raises(FormatError, match=r"tokenizer_config\.json:1: added_tokens_decoder"):
            added_tokens(folder)
    (tmp_path / "tokenizer_config.json").unlink()
    assert added_tokens(folder) == {} and special_token_texts(folder) == []


def test_a_program_may_write_json_with_the_options_of_transformers():
    source = PLAIN + "{% if messages[0].content == 'é' %}{{ {'b': 'é', 'a': [1]} | tojson }}{% endif %}"
    written = {
        "": '{"b": "é", "a": [1]}',
        "(true)": '{"b": "\\u00e9", "a": [1]}',
        "(sort_keys=true)": '{"a": [1], "b": "é"}',
        "(separators=(',', ':'))": '{"b":"é","a":[1]}',
        "(indent=1)": '{\n "b": "é",\n "a": [\n  1\n ]\n}',
    }
    for options, text in written.items():
        template = JinjaTemplate(source.replace("tojson", f"tojson{options}"), {"eos_token": "</s>"})
        assert template.render(Conversation.of_user("é")) == f"<|user|>é</s>{text}"


def test_the_tag_that_marks_trained_text_is_read_over():
    source = PLAIN.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    assert JinjaTemplate(source, {"eos_token": "</s>"}).render(ASKED) == "<|user|>Q</s>"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "tokenizer_config.json: there is no chat template"),
        ({"chat_template": None}, "there is no chat template"),
        ({"chat_template": [{"name": "rag", "template": "x"}]}, "rag is named 'default'"),
        ([1], "tokenizer_config.json:1: a JSON object is needed"),
        ({"chat_template": "{% for %}"}, "tokenizer_config.json: line 1 of the chat template is not Jinja"),
        ({"chat_template": "\n{{ x | nofilter }}"}, "line 2 of the chat template is not Jinja: No filter"),
        ({"chat_template": PLAIN}, 'uses eos_token; add it to tokenizer_config.json, as "eos_token": null'),
        ({"chat_template": "{{ messages[0].content + eos_token }}", "eos_token": None}, "'eos_token' is undefined"),
        ({"chat_template": "Hello"}, "drops a message, repeats it, or changes its text"),
        ({"chat_template": PLAIN + "{{ messages[0].content }}", "eos_token": None}, "repeats it"),
        ({"chat_template": "{{ messages[0].content }}"}, "drops a message"),
        ({"chat_template": "{{ raise_exception('no, ' + messages[0].role) }}"}, "of user: no, user"),
        ({"chat_template": "{{ messages[0].content + 1 }}"}, "can only concatenate str"),
        ({"chat_template": "{{ 1 / 0 }}"}, "division by zero"),
        ({"chat_template": "{% for i in range(10 ** 9) %}x{% endfor %}"}, "cannot render a conversation of user"),
        ({"chat_template": "{{ ''.__class__.__mro__ }}"}, "unsafe"),
        ({"chat_template": "{% set _ = messages.append(1) %}"}, "unsafe"),
        ({"chat_template": "{% set _ = messages[0].update(role='x') %}"}, "unsafe"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_the_file(config: Any, problem: str, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        template_named(folder_with(tmp_path, config))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer_config.json"))


def test_a_tokenizer_class_without_tokens_of_its_own_needs_none(tmp_path: Path):
    config = {"chat_template": PLAIN, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert template_named(folder_with(tmp_path, config)).render(ASKED) == "<|user|>Q"


def test_other_files_are_refused(tmp_path: Path):
    folder = folder_with(tmp_path, tokenizer__json="{}")
    with pytest.raises(UsageError, match=r"tokenizer\.json: is not a \.jinja file"):
        template_named(f"{folder}/tokenizer.json")
    with pytest.raises(UsageError, match="there is no chat template"):
        template_named(folder)


def test_a_template_that_asks_otherwise_than_it_trains_is_refused():
    thinking = PLAIN.replace("<|assistant|>{% endif", "<|assistant|><think>\n{% endif")
    later = PLAIN.replace("<|assistant|>{% endif", "<|assistant|>{% if messages | length > 1 %}!{% endif %}{% endif")
    with pytest.raises(UsageError, match=r"ends with '.*<think>\\n', .* '<.assistant.>'"):
        JinjaTemplate(thinking)
    with pytest.raises(UsageError, match=r"ends with '.*!', .* '.*reply'"):
        JinjaTemplate(later)


def test_a_system_message_that_is_asked_with_and_not_trained_on_is_refused():
    template = jinja_template(SHAPES["mistral-0.3"])
    assert template.render(ANSWERED) == "<s>[INST] Q[/INST] A</s>"
    for use in (template.render, template.generation_prompt):
        with pytest.raises(UsageError, match="system message"):
            use(Conversation.of_user("Q", system="S"))


def test_a_reply_is_found_behind_what_the_template_writes_before_it():
    for name, start in (("mistral-0.3", " "), ("qwen-3", "<think>\n\n</think>\n\n"), ("llama-2", " ")):
        template = jinja_template(SHAPES[name])
        assert template.reply_start == start
        assert template.trim_reply(f"{start}A{template.reply_end}<s>[INST] invented") == "A"
        assert template.extract_reply(template.render(ANSWERED), ASKED) == "A"


def test_stops_are_what_ends_a_turn_and_what_ends_a_text():
    stops = {name: jinja_template(shape).stop for name, shape in SHAPES.items()}
    assert stops["chatml"] == ("<|im_end|>",)
    assert stops["llama-3"] == ("<|eot_id|>", "<|end_of_text|>")
    assert stops["gemma"] == ("<end_of_turn>", "<eos>")
    assert jinja_template(SHAPES["gemma"]).end_of_turn == ""
    assert jinja_template(SHAPES["llama-2"]).end_of_turn == " "


def test_the_day_is_that_of_the_run():
    shape = SHAPES["llama-3.2"]
    template = JinjaTemplate(shape.source, {"bos_token": shape.bos}, now=datetime(2026, 3, 4))
    assert "Today Date: 04 Mar 2026\n" in template.render(ASKED)


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ],
)
def test_a_program_that_needs_too_much_memory_is_refused_without_taking_it(bomb: str, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=r"256 MiB of memory") as caught:
        template_named(folder_with(tmp_path, {"chat_template": PLAIN + bomb, "eos_token": "</s>"}))
    assert str(caught.value).startswith(str(tmp_path / "tokenizer_config.json"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_what_is_not_rendered_is_not_evaluated(tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = PLAIN + "{% if tools %}{{ 'a' * 10**9 }}{% endif %}"
    template_named(folder_with(tmp_path, {"chat_template": source, "eos_token": "</s>"}))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.slow
def test_a_program_that_needs_too_much_time_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    # The kernel counts CPU time in whole seconds.
    monkeypatch.setattr(trial, "SECONDS", 1)
    source = PLAIN + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(UsageError, match="1 s of CPU time"):
        template_named(folder_with(tmp_path, {"chat_template": source, "eos_token": "</s>"}))


def test_a_long_text_of_a_program_is_cut_in_messages(tmp_path: Path):
    for source in (PLAIN + "{{ 'a' * 10**6 }}", "{{ raise_exception('a\n' * 10**6) }}"):
        with pytest.raises(UsageError) as caught:
            template_named(folder_with(tmp_path, {"chat_template": source, "eos_token": "</s>"}))
        assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
