# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The requests that the server answers, checked: NeMo's ``PUT /generate`` and OpenAI's two routes.

Input:  {"messages": [{"role": "user", "content": "Hi"}], "n": 2, "stop": "\n"}
Output: SampleCall(prompts=(Conversation(...),), n=2, stop=("\n",), temperature=1.0, ...)

A parameter that would change the reply is used or refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.serving.fields import Fields, RequestError, bad, shown

MOST_ROWS = 128
"""Replies of one request: NeMo's own limit for `/generate`."""
MOST_TOP_LOGPROBS = 20
_HOTTEST = 100.0
_COLDEST = 1e-8
"""The lowest temperature that NeMo's division survives in single precision."""
_GREEDY_BELOW = 1e-5
_MOST_PENALTY = 100.0
_MOST_SEED = (1 << 63) - 1
_COMPLETION_TOKENS = 16
"""OpenAI's default for completions."""
_ROLES = {role.value: role for role in Role} | {"developer": Role.SYSTEM}


@dataclass(frozen=True)
class Limits:
    """The bounds that the model sets.

    Attributes:
        vocabulary: tokens of its tokenizer.
        names: the names by which requests may ask for it.
    """

    vocabulary: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class GenerateCall:
    """A request to NeMo's `/generate`; either `sentences` or `conversations` has items."""

    sentences: tuple[str, ...]
    conversations: tuple[Conversation, ...]
    tokens_to_generate: int
    all_probs: bool
    temperature: float
    add_bos: bool
    top_k: int
    top_p: float
    greedy: bool
    repetition_penalty: float
    end_strings: tuple[str, ...]
    min_tokens: int
    compute_logprob: bool
    seed: int | None


@dataclass(frozen=True)
class SampleCall:
    """A request to one of OpenAI's routes.

    Attributes:
        prompts: conversations, texts, or token ids.
        max_tokens: None for as many as the model has room for.
        logprobs: alternatives for each token; None for no log-probabilities at all.
        continue_final: the last message is the beginning of the reply.
    """

    chat: bool
    model: str | None
    prompts: tuple[Conversation | str | tuple[int, ...], ...]
    n: int
    max_tokens: int | None
    min_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    stop: tuple[str, ...]
    seed: int | None
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool
    continue_final: bool

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < _GREEDY_BELOW or self.top_k == 1


def generate_call(body: Mapping[str, Any], limits: Limits) -> GenerateCall:
    """Check a body of `/generate`, with NeMo's names and defaults.

    Raises:
        RequestError: a value that NeMo would fail on, or a parameter without effect here.
    """
    fields = Fields(body, null_is_absent=False)
    # NeMo's own protocol has a null for this one alone.
    seed = None if body.get("random_seed", ...) is None else fields.optional_whole("random_seed", 0, _MOST_SEED)
    sentences, conversations = _sentences(fields.take("sentences"))
    tokens = fields.whole("tokens_to_generate", 64, 1)
    call = GenerateCall(
        sentences=sentences,
        conversations=conversations,
        tokens_to_generate=tokens,
        all_probs=fields.flag("all_probs", False),
        temperature=fields.number("temperature", 1.0, _COLDEST, _HOTTEST),
        add_bos=fields.flag("add_BOS", False),
        top_k=fields.whole("top_k", 0, 0, limits.vocabulary),
        top_p=fields.number("top_p", 0.9, 0.0, 1.0),
        greedy=fields.flag("greedy", False),
        repetition_penalty=fields.number("repetition_penalty", 1.0, 1.0, _MOST_PENALTY),
        end_strings=fields.stops("end_strings", single=False) if "end_strings" in body else ("<|endoftext|>",),
        min_tokens=fields.whole("min_tokens_to_generate", 0, 0, tokens),
        compute_logprob=fields.flag("compute_logprob", False),
        seed=seed,
    )
    fields.neutral("random_seed", None)
    fields.neutral("neighbors", None, 0)
    fields.neutral("task_ids", None)
    fields.end()
    if call.all_probs and not call.compute_logprob:
        raise bad("all_probs", "needs compute_logprob")
    return call


def _sentences(value: Any) -> tuple[tuple[str, ...], tuple[Conversation, ...]]:
    if not isinstance(value, list) or not value:
        raise bad("sentences", f"must be a list of strings, or of chat messages, it is {shown(value)}")
    items = cast(list[Any], value)
    if isinstance(items[0], dict):
        return (), _columns(items)
    _check_rows("sentences", len(items))
    for item in items:
        if not isinstance(item, str):
            raise bad("sentences", f"must be a list of strings, it has {shown(item)} in it")
    return tuple(cast(list[str], items)), ()


def _columns(turns: Sequence[Any]) -> tuple[Conversation, ...]:
    """NeMo's batches of conversations: one object per turn, whose `role` and `content` list all conversations'."""
    columns: list[tuple[list[Any], list[Any]]] = []
    for turn in turns:
        fields = cast(dict[str, Any], turn) if isinstance(turn, dict) else {}
        roles, contents = fields.get("role"), fields.get("content")
        if not isinstance(roles, list) or not isinstance(contents, list):
            raise bad("sentences", "must give a list of roles and a list of contents for each turn")
        columns.append((cast(list[Any], roles), cast(list[Any], contents)))
    rows = len(columns[0][0])
    _check_rows("sentences", rows)
    if any(len(part) != rows for column in columns for part in column):
        raise bad("sentences", f"must have {rows} roles and contents in each turn")
    return tuple(
        _conversation([{"role": roles[row], "content": contents[row]} for roles, contents in columns], "sentences")
        for row in range(rows)
    )


def _check_rows(param: str, rows: int) -> None:
    if not 1 <= rows <= MOST_ROWS:
        raise bad(param, f"must be 1 to {MOST_ROWS}, there are {rows}")


def chat_call(body: Mapping[str, Any], limits: Limits) -> SampleCall:
    """Check a body of `/v1/chat/completions`; raises RequestError."""
    fields = Fields(body, null_is_absent=True)
    messages = fields.take("messages")
    if not isinstance(messages, list) or not messages:
        raise bad("messages", f"must be a list of at least one message, it is {shown(messages)}")
    conversation = _conversation(cast(list[Any], messages), "messages")
    continued = fields.flag("continue_final_message", False)
    header = fields.flag("add_generation_prompt", not continued)
    if continued == header:
        raise bad("add_generation_prompt", "must be false with continue_final_message, and true without it")
    last = conversation.messages[-1].role
    if continued and last is not Role.ASSISTANT:
        raise bad("continue_final_message", f"needs an assistant message last, the last one is the {last.value}'s")
    if not continued and last is not Role.USER:
        hint = ": to continue it, give continue_final_message true, add_generation_prompt false"
        raise bad("messages", f"must end with a user message{hint if last is Role.ASSISTANT else ''}")
    asked = fields.flag("logprobs", False)
    top = fields.whole("top_logprobs", 0, 0, MOST_TOP_LOGPROBS)
    if top and not asked:
        raise bad("top_logprobs", "needs logprobs true")
    length = fields.optional_whole("max_tokens", 1)
    newer = fields.optional_whole("max_completion_tokens", 1)
    if length is not None and newer is not None and length != newer:
        raise bad("max_tokens", "and max_completion_tokens differ: give one of them")
    for name, values in _CHAT_NEUTRAL.items():
        fields.neutral(name, *values)
    return _sample(
        fields,
        limits,
        chat=True,
        prompts=(conversation,),
        max_tokens=newer if length is None else length,
        logprobs=top if asked else None,
        continue_final=continued,
    )


def completion_call(body: Mapping[str, Any], limits: Limits) -> SampleCall:
    """Check a body of `/v1/completions`; raises RequestError."""
    fields = Fields(body, null_is_absent=True)
    prompts = _prompts(fields.take("prompt"), limits)
    logprobs = fields.optional_whole("logprobs", 0, MOST_TOP_LOGPROBS)
    echo = fields.flag("echo", False)
    length = fields.whole("max_tokens", _COMPLETION_TOKENS, 0 if echo else 1)
    for name, values in _COMPLETION_NEUTRAL.items():
        fields.neutral(name, *values)
    call = _sample(fields, limits, chat=False, prompts=prompts, max_tokens=length, logprobs=logprobs, echo=echo)
    if call.stream and echo and logprobs is not None:
        raise bad("stream", "is not supported together with echo and logprobs", code="unsupported_parameter")
    return call


def _prompts(value: Any, limits: Limits) -> tuple[str | tuple[int, ...], ...]:
    """A string, a list of strings, a list of token ids, or a list of such lists."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise bad("prompt", f"must be a string, a list of strings or token ids, it is {shown(value)}")
    items = cast(list[Any], value)
    if isinstance(items[0], int):
        return (_token_ids(items, limits),)
    _check_rows("prompt", len(items))
    return tuple(_prompt(item, limits) for item in items)


def _prompt(item: Any, limits: Limits) -> str | tuple[int, ...]:
    if isinstance(item, str):
        return item
    if isinstance(item, list) and item:
        return _token_ids(cast(list[Any], item), limits)
    raise bad("prompt", f"must be a string, a list of strings or token ids, it has {shown(item)} in it")


def _token_ids(items: Sequence[Any], limits: Limits) -> tuple[int, ...]:
    for item in items:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < limits.vocabulary:
            raise bad("prompt", f"must have token ids between 0 and {limits.vocabulary - 1}, it has {shown(item)}")
    return tuple(items)


_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "min_p": (0, 0.0),
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
}
"""Parameters of other servers, with the values that ask for nothing."""
_CHAT_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "echo": (False,),
    "add_special_tokens": (False,),
    "store": (False,),
}
_COMPLETION_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "add_special_tokens": (False,),
}


def _sample(
    fields: Fields,
    limits: Limits,
    *,
    chat: bool,
    prompts: tuple[Conversation | str | tuple[int, ...], ...],
    max_tokens: int | None,
    logprobs: int | None,
    echo: bool = False,
    continue_final: bool = False,
) -> SampleCall:
    """What the two routes have in common."""
    model = fields.text("model")
    if model is not None and model not in limits.names:
        raise RequestError(
            404,
            f"model {shown(model)} is not served here; this server has {', '.join(map(repr, limits.names))}",
            param="model",
            code="model_not_found",
        )
    n = fields.whole("n", 1, 1, MOST_ROWS)
    if n * len(prompts) > MOST_ROWS:
        raise bad("n", f"times the number of prompts must be at most {MOST_ROWS}, it is {n * len(prompts)}")
    stream = fields.flag("stream", False)
    include_usage = _stream_options(fields.take("stream_options"), stream)
    call = SampleCall(
        chat=chat,
        model=model,
        prompts=prompts,
        n=n,
        max_tokens=max_tokens,
        min_tokens=fields.whole("min_tokens", 0, 0, max_tokens),
        temperature=fields.number("temperature", 1.0, 0.0, _HOTTEST),
        top_p=fields.number("top_p", 1.0, 0.0, 1.0, above=True),
        top_k=max(0, fields.whole("top_k", 0, -1, limits.vocabulary)),  # -1 means off for vLLM
        repetition_penalty=fields.number("repetition_penalty", 1.0, 0.0, _MOST_PENALTY, above=True),
        stop=fields.stops("stop", single=True),
        seed=fields.optional_whole("seed", -_MOST_SEED - 1, _MOST_SEED),
        logprobs=logprobs,
        echo=echo,
        stream=stream,
        include_usage=include_usage,
        continue_final=continue_final,
    )
    for name, values in _NEUTRAL.items():
        fields.neutral(name, *values)
    fields.neutral("service_tier", "auto", "default")
    fields.ignore("user", "metadata", "safety_identifier", "prompt_cache_key")
    fields.end()
    return call


def _stream_options(value: Any, stream: bool) -> bool:
    """Whether the stream ends with the usage."""
    if value is None:
        return False
    if not stream:
        raise bad("stream_options", "needs stream true")
    if not isinstance(value, dict):
        raise bad("stream_options", f"must be an object, it is {shown(value)}")
    options = Fields(cast(dict[str, Any], value), null_is_absent=True, prefix="stream_options.")
    include = options.flag("include_usage", False)
    options.neutral("include_obfuscation", False)
    options.end()
    return include


def _conversation(messages: Sequence[Any], param: str) -> Conversation:
    try:
        return Conversation(tuple(_message(place, item, param) for place, item in enumerate(messages)))
    except UsageError as error:
        raise bad(param, f"are not usable: {error}") from None


def _message(place: int, item: Any, param: str) -> Message:
    where = f"{param}[{place}]"
    if not isinstance(item, dict):
        raise bad(where, f"must be an object with role and content, it is {shown(item)}")
    # A client may send a reply back as it got it, with its empty fields.
    fields = Fields(cast(dict[str, Any], item), null_is_absent=True, prefix=f"{where}.")
    name, content = fields.take("role"), fields.take("content")
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise bad(f"{where}.role", f"must be one of {', '.join(_ROLES)}, it is {shown(name)}")
    for unsupported in ("name", "tool_calls", "function_call", "tool_call_id", "audio", "refusal", "annotations"):
        fields.neutral(unsupported, [])
    fields.end()
    return Message(role, _content(content, f"{where}.content"))


def _content(content: Any, where: str) -> str:
    """A text, or parts that are texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad(where, f"must be a string, it is {shown(content)}")
    texts: list[str] = []
    for part in cast(list[Any], content):
        fields = cast(dict[str, Any], part) if isinstance(part, dict) else {}
        text = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            raise bad(where, "must have parts of the type text only")
        texts.append(text)
    return "".join(texts)
