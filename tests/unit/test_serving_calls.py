# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Requests to `cai serve`: what is read from them, and what is refused with the parameter's name (D1, C3)."""

from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.training.serving.calls import ChatCall, CompletionCall, GenerateCall
from nemo_aligner_cai.training.serving.request_body import Body, Limits, RequestError, read_body

LIMITS = Limits(300, ("assistant",))
MESSAGES = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> ChatCall:
    return ChatCall.parse({"messages": MESSAGES} | fields, LIMITS)


def refused(call: type[Body], body: dict[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call.parse(body, LIMITS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert caught.value.body()["error"]["message"] == str(caught.value)
    return caught.value


def test_d1_the_plainest_chat_has_openais_defaults() -> None:
    call = chat()
    assert (call.temperature, call.top_p, call.n, call.max_tokens, call.greedy) == (1.0, 1.0, 1, None, False)
    assert chat(temperature=0).greedy and not chat(temperature=0.01).greedy
    assert chat(stop="\n").stop == ("\n",) and chat(stop=["a", "b"]).stop == ("a", "b") and chat(stop=None).stop == ()
    assert chat(max_tokens=7).max_tokens == chat(max_completion_tokens=7).max_tokens == 7
    assert chat(logprobs=True, top_logprobs=3).logprobs == 3 and chat(logprobs=True).logprobs == 0
    assert chat().logprobs is None
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage


def test_d1_what_clients_send_without_a_meaning_is_accepted() -> None:
    neutral: dict[str, Any] = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "user": "somebody",
        "metadata": {"run": "1"},
        "seed": None,
        "temperature": None,
        "top_k": -1,
    }
    assert chat(**neutral) == chat()
    reply = {"role": "assistant", "content": "Hello", "refusal": None, "annotations": None, "tool_calls": None}
    turns = [{"role": "developer", "content": "Be kind"}, *MESSAGES, reply, *MESSAGES]
    (conversation,) = chat(messages=turns).prompts
    assert isinstance(conversation, Conversation)
    roles = [message.role for message in conversation.messages]
    assert roles == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    assert chat(messages=[{"role": "user", "content": parts}]) == chat()


UNSUPPORTED: list[tuple[str, Any]] = [
    ("tools", [{"type": "function"}]),
    ("functions", [{}]),
    ("response_format", {"type": "json_schema", "json_schema": {}}),
    ("response_format", {"type": "json_object"}),
    ("logit_bias", {"5": 1}),
    ("frequency_penalty", 0.5),
    ("presence_penalty", False),
    ("chat_template_kwargs", {"enable_thinking": False}),
    ("guided_choice", ["a"]),
    ("reasoning_effort", "low"),
    ("no_such_parameter", 1),
]


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_d1_a_parameter_without_effect_here_is_refused_by_name(name: str, value: Any) -> None:
    error = refused(ChatCall, {"messages": MESSAGES, name: value})
    assert (error.status, error.param) == (400, name)


def test_d1_another_model_is_not_found() -> None:
    error = refused(ChatCall, {"messages": MESSAGES, "model": "gpt-4"})
    assert (error.status, error.code) == (404, "model_not_found") and "'assistant'" in str(error)
    assert chat(model="assistant").model == "assistant"


def test_d1_a_reply_is_continued_as_vllm_does_it() -> None:
    turns = [*MESSAGES, {"role": "assistant", "content": "The answer is: ("}]
    assert chat(messages=turns, continue_final_message=True, add_generation_prompt=False).continue_final_message
    assert refused(ChatCall, {"messages": turns}).param == "messages"
    both = {"messages": turns, "continue_final_message": True, "add_generation_prompt": True}
    assert refused(ChatCall, both).param == "add_generation_prompt"
    only = {"messages": MESSAGES, "continue_final_message": True}
    assert refused(ChatCall, only).param == "continue_final_message"


def test_d1_completions_take_texts_and_token_ids() -> None:
    def prompts(prompt: Any, **fields: Any) -> Any:
        return CompletionCall.parse({"prompt": prompt} | fields, LIMITS).prompts

    assert prompts("a") == ("a",) and prompts(["a", "b"]) == ("a", "b")
    assert prompts([5, 6]) == ((5, 6),) and prompts([[5], [6, 7]]) == ((5,), (6, 7))
    call = CompletionCall.parse({"prompt": "a", "echo": True, "max_tokens": 0, "logprobs": 2}, LIMITS)
    assert call.echo and call.max_tokens == 0 and call.logprobs == 2
    assert CompletionCall.parse({"prompt": "a"}, LIMITS).max_tokens == 16


NUMBERS: tuple[Any, ...] = (float("nan"), float("inf"), -1.5, "1", True, None, [1], {"a": 1}, 10**30)


@pytest.mark.parametrize(
    "name", ["tokens_to_generate", "temperature", "top_p", "top_k", "repetition_penalty", "min_tokens_to_generate"]
)
@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_c3_generate_refuses_what_is_not_a_number_in_bounds(name: str, value: Any) -> None:
    if (name, value) == ("tokens_to_generate", 10**30):
        # A maximum, which the model's length bounds further.
        assert GenerateCall.parse({"sentences": ["a"], name: value}, LIMITS).tokens_to_generate == value
        return
    error = refused(GenerateCall, {"sentences": ["a"], name: value})
    assert (error.status, error.param) == (400, name)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "n", "seed", "min_tokens", "repetition_penalty"])
@pytest.mark.parametrize("value", [value for value in NUMBERS if value is not None], ids=repr)
def test_c3_chat_refuses_what_is_not_a_number_in_bounds(name: str, value: Any) -> None:
    if name == "min_tokens" and value == 10**30:
        return
    error = refused(ChatCall, {"messages": MESSAGES, name: value})
    assert (error.status, error.param) == (400, name)


INVALID: list[tuple[str, Any]] = [
    ("sentences", []),
    ("sentences", None),
    ("sentences", "a"),
    ("sentences", ["a"] * 129),
    ("sentences", ["a", 1]),
    ("sentences", [["a"], [1]]),
    ("sentences", [{}]),
    ("sentences", [{"role": ["user"] * 129, "content": ["a"] * 129}]),
    ("sentences", [{"role": ["user"], "content": ["a", "b"]}]),
    ("end_strings", "a"),
    ("end_strings", None),
    ("end_strings", [""]),
    ("end_strings", [1]),
    ("end_strings", [["a"]]),
    ("end_strings", ["a"] * 65),
    ("end_strings", ["a" * 1001]),
    ("random_seed", -1),
    ("random_seed", 2**63),
    ("random_seed", "1"),
    ("top_k", 301),
    ("greedy", 1),
    ("add_BOS", None),
    ("compute_logprob", "True"),
    ("all_probs", True),
    ("neighbors", 3),
    ("task_ids", [1]),
    ("no_such_parameter", 1),
]


@pytest.mark.parametrize(("name", "value"), INVALID, ids=lambda value: repr(value)[:30])
def test_c3_generate_refuses_what_nemo_would_fail_on(name: str, value: Any) -> None:
    error = refused(GenerateCall, {"sentences": ["a"], name: value})
    assert (error.status, error.param) == (400, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", None),
        ("messages", []),
        ("messages", "a"),
        ("n", 0),
        ("n", 129),
        ("top_k", -2),
        ("top_k", 301),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("stop", ""),
        ("stop", 5),
        ("stop", ["a"] * 65),
        ("logprobs", 2),
        ("top_logprobs", 3),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("stream_options", 5),
        ("model", 5),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_c3_chat_refuses_odd_values(name: str, value: Any) -> None:
    error = refused(ChatCall, {"messages": MESSAGES, name: value})
    assert (error.status, error.param) == (400, name)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (1, "messages[0]"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": {"a": 1}}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content"),
        ({"role": "tool", "content": "a"}, "messages[0].role"),
        ({"role": 1, "content": "a"}, "messages[0].role"),
        ({"role": "user", "content": "a", "name": "me"}, "messages[0].name"),
    ],
)
def test_c3_a_message_at_fault_is_named(message: Any, param: str) -> None:
    assert refused(ChatCall, {"messages": [message]}).param == param


@pytest.mark.parametrize(
    "prompt", [None, 5, [], [[]], [1.5], [True], [300], [-1], ["a"] * 129, {"a": 1}], ids=lambda v: repr(v)[:20]
)
def test_c3_completions_refuse_odd_prompts(prompt: Any) -> None:
    assert refused(CompletionCall, {"prompt": prompt}).param == "prompt"


def test_c3_choices_of_all_prompts_are_bounded_together() -> None:
    assert refused(CompletionCall, {"prompt": ["a"] * 64, "n": 3}).param == "n"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff", b'{"a":NaN}', b'{"a":1e999}', b"[" * 100_000, b'{"a":"\\ud800"}'],
    ids=lambda content: repr(content[:20]),
)
def test_c3_a_body_that_is_not_a_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        read_body(content)
    assert caught.value.status == 400 and "\n" not in str(caught.value)


def test_c3_nested_values_are_refused_without_being_shown() -> None:
    deep = read_body(b'{"messages":' + b"[" * 500 + b"]" * 500 + b"}")
    assert refused(ChatCall, deep).param == "messages[0]"
    assert refused(ChatCall, {"messages": MESSAGES, "temperature": deep["messages"]}).param == "temperature"
