# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The validated requests of the server: NeMo's ``PUT /generate`` and OpenAI's two routes.

Input:  {"messages": [{"role": "user", "content": "Hi"}], "n": 2, "stop": "\n"}
Output: ChatCall(prompts=(Conversation(...),), n=2, stop=("\n",), temperature=1.0, ...)
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.training.serving.messages import MOST_ROWS, check_rows, parse_conversation, parse_sentences
from nemo_aligner_cai.training.serving.request_body import Body, Limits, RequestError, Stops, Whole, bad, shown

_MOST_TOP_LOGPROBS = 20
_HOTTEST = 100.0
_COLDEST = 1e-8
"""The lowest temperature by which NeMo can divide in single precision."""
_GREEDY_BELOW = 1e-5
_MOST_PENALTY = 100.0
_MOST_SEED = (1 << 63) - 1
_COMPLETION_TOKENS = 16
"""OpenAI's default for completions."""
Prompts = tuple[Conversation | str | tuple[int, ...], ...]
"""Conversations, texts, or token ids."""


class GenerateCall(Body):
    """A request to NeMo's `/generate`, with its defaults; `sentences` are all texts or all conversations."""

    null_is_absent: ClassVar[bool] = False
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"neighbors": (None, 0), "task_ids": (None,)}

    sentences: Annotated[tuple[str | Conversation, ...], PlainValidator(parse_sentences)]
    tokens_to_generate: Whole = Field(64, ge=1)
    all_probs: bool = False
    temperature: float = Field(1.0, ge=_COLDEST, le=_HOTTEST)
    add_bos: bool = Field(False, alias="add_BOS")
    top_k: Whole = Field(0, ge=0)
    top_p: float = Field(0.9, ge=0, le=1)
    greedy: bool = False
    repetition_penalty: float = Field(1.0, ge=1, le=_MOST_PENALTY)
    end_strings: Stops = ("<|endoftext|>",)
    min_tokens_to_generate: Whole = Field(0, ge=0)
    compute_logprob: bool = False
    random_seed: Whole | None = Field(None, ge=0, le=_MOST_SEED)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> GenerateCall:
        _check_top_k(self.top_k, info)
        if self.min_tokens_to_generate > self.tokens_to_generate:
            raise bad("min_tokens_to_generate", f"must be at most tokens_to_generate={self.tokens_to_generate}")
        if self.all_probs and not self.compute_logprob:
            raise bad("all_probs", "needs compute_logprob")
        return self


class _StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


def _stop_strings(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class SampleCall(Body):
    """A request to one of OpenAI's routes."""

    chat: ClassVar[bool]
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
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
        "response_format": ({"type": "text"},),
        "add_special_tokens": (False,),
        "service_tier": ("auto", "default"),
    }
    ignored: ClassVar[tuple[str, ...]] = ("user", "metadata", "safety_identifier", "prompt_cache_key")

    prompts: Prompts
    model: str | None = None
    n: Whole = Field(1, ge=1, le=MOST_ROWS)
    max_tokens: Whole | None  # None: up to the model's length
    min_tokens: Whole = Field(0, ge=0)
    temperature: float = Field(1.0, ge=0, le=_HOTTEST)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: Annotated[Whole, Field(ge=-1), AfterValidator(lambda top_k: max(0, top_k))] = 0  # -1 is off in vLLM
    repetition_penalty: float = Field(1.0, gt=0, le=_MOST_PENALTY)
    stop: Annotated[Stops, BeforeValidator(_stop_strings)] = ()
    seed: Whole | None = Field(None, ge=-_MOST_SEED - 1, le=_MOST_SEED)
    logprobs: Whole | None = Field(None, ge=0, le=_MOST_TOP_LOGPROBS)  # top tokens per position
    echo: bool = False
    stream: bool = False
    stream_options: _StreamOptions | None = Field(None, strict=False)

    @property
    def greedy(self) -> bool:
        """True if the most probable token is always selected."""
        return self.temperature < _GREEDY_BELOW or self.top_k == 1

    @property
    def include_usage(self) -> bool:
        """True if the stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @model_validator(mode="after")
    def _within_limits(self, info: ValidationInfo) -> SampleCall:
        names = _limits(info).names
        if self.model is not None and self.model not in names:
            raise RequestError(
                404,
                f"model {shown(self.model)} is not served here; this server has {', '.join(map(repr, names))}",
                param="model",
                code="model_not_found",
            )
        if (rows := self.n * len(self.prompts)) > MOST_ROWS:
            raise bad("n", f"times the number of prompts must be at most {MOST_ROWS}, it is {rows}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise bad("min_tokens", f"must be at most max_tokens={self.max_tokens}")
        _check_top_k(self.top_k, info)
        if self.stream_options is not None and not self.stream:
            raise bad("stream_options", "needs stream true")
        return self


class ChatCall(SampleCall):
    """A request to `/v1/chat/completions`."""

    chat: ClassVar[bool] = True
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = SampleCall.neutral | {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "modalities": (["text"],),
        "chat_template_kwargs": ({},),
        "documents": ([],),
        "echo": (False,),
        "store": (False,),
    }

    prompts: Annotated[Prompts, PlainValidator(lambda messages: (parse_conversation(messages, "messages"),))] = Field(
        alias="messages"
    )
    max_tokens: Whole | None = Field(None, ge=1, validation_alias=AliasChoices("max_completion_tokens", "max_tokens"))
    logprobs: Whole | None = Field(None, ge=0, le=_MOST_TOP_LOGPROBS, alias="top_logprobs")
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Merge `logprobs` and `top_logprobs`, and the two names of the maximal length."""
        logprobs = fields.pop("logprobs", False)
        if not isinstance(logprobs, bool):
            raise bad("logprobs", f"must be true or false, it is {shown(logprobs)}")
        if logprobs:
            fields.setdefault("top_logprobs", 0)
        elif fields.pop("top_logprobs", 0) != 0:
            raise bad("top_logprobs", "needs logprobs true")
        if "max_completion_tokens" in fields:
            newer = fields["max_completion_tokens"]
            if fields.pop("max_tokens", newer) != newer:
                raise bad("max_tokens", "and max_completion_tokens differ: set one of them")
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> ChatCall:
        continued = self.continue_final_message
        if self.add_generation_prompt == continued:
            raise bad("add_generation_prompt", "must be false with continue_final_message, and true without it")
        (conversation,) = self.prompts
        assert isinstance(conversation, Conversation)
        last = conversation.messages[-1].role
        if continued and last is not Role.ASSISTANT:
            raise bad("continue_final_message", f"needs an assistant message last, the last one is the {last.value}'s")
        if not continued and last is not Role.USER:
            hint = ": to continue it, set continue_final_message true, add_generation_prompt false"
            raise bad("messages", f"must end with a user message{hint if last is Role.ASSISTANT else ''}")
        return self


def _parse_prompts(value: Any, info: ValidationInfo) -> Prompts:
    """A string, a list of strings, a list of token ids, or a list of such lists."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise bad("prompt", f"must be a string, a list of strings or token ids, it is {shown(value)}")
    items, vocabulary = cast(list[Any], value), _limits(info).vocabulary
    if isinstance(items[0], int):
        return (_token_ids(items, vocabulary),)
    check_rows("prompt", len(items))
    return tuple(item if isinstance(item, str) else _token_ids(item, vocabulary) for item in items)


def _token_ids(item: Any, vocabulary: int) -> tuple[int, ...]:
    if not isinstance(item, list) or not item:
        raise bad("prompt", f"must be a string, a list of strings or token ids, it contains {shown(item)}")
    for token in cast(list[Any], item):
        if type(token) is not int or not 0 <= token < vocabulary:
            raise bad("prompt", f"must have token ids between 0 and {vocabulary - 1}, it contains {shown(token)}")
    return tuple(cast(list[int], item))


class CompletionCall(SampleCall):
    """A request to `/v1/completions`."""

    chat: ClassVar[bool] = False
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = SampleCall.neutral | {"best_of": (1,), "suffix": ("",)}

    prompts: Annotated[Prompts, PlainValidator(_parse_prompts)] = Field(alias="prompt")
    max_tokens: Whole | None = Field(_COMPLETION_TOKENS, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> CompletionCall:
        if self.max_tokens == 0 and not self.echo:
            raise bad("max_tokens", "must be at least 1 without echo")
        if self.stream and self.echo and self.logprobs is not None:
            raise bad("stream", "is not supported together with echo and logprobs", code="unsupported_parameter")
        return self


def _limits(info: ValidationInfo) -> Limits:
    return cast(Limits, info.context)


def _check_top_k(top_k: int, info: ValidationInfo) -> None:
    if top_k > (most := _limits(info).vocabulary):
        raise bad("top_k", f"must be at most {most}, the size of the vocabulary, it is {top_k}")
