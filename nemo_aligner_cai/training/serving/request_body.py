# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""JSON request bodies as strict pydantic models, and errors that name the parameter.

Input:  b'{"prompt": "Hi", "max_tokens": 5, "temperature": "hot"}'
Output: RequestError(400, "temperature: input should be a valid number, it is 'hot'", param="temperature")

A parameter that would change the reply is used or refused by name, never ignored. Nothing here imports torch or NeMo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, cast

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.errors import CaiError

B = TypeVar("B", bound="Body")

MOST_BYTES = 16 << 20
"""The largest body."""
_MOST_PARAMETERS = 100
_MOST_STOPS = 64
_MOST_STOP_CHARACTERS = 1000
_SHOWN = 60
"""Characters of a value in an error message."""


class RequestError(CaiError):
    """An error response to one request.

    Attributes:
        status: the HTTP status.
        param: the invalid parameter; None for the request as a whole.
        code: OpenAI's short name of the error; None if there is none.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(printable(message))
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's format."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def bad(param: str, message: str, *, code: str | None = None) -> RequestError:
    """HTTP 400 for a parameter."""
    return RequestError(400, f"{param} {message}", param=param, code=code)


def shown(value: object) -> str:
    """A short form of a value for an error message. The value may be megabytes long, or nested a thousand times."""
    if isinstance(value, str):
        return repr(value[:_SHOWN])
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:_SHOWN]
    return ("a list" if value else "an empty list") if isinstance(value, list | tuple) else "an object"


def read_body(content: bytes) -> dict[str, Any]:
    """Parse a JSON object; raises RequestError. NaN, infinity and deep nesting are invalid."""
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestError(400, f"the body must be a JSON object, it is {shown(body)}")
    return cast(dict[str, Any], body)


@dataclass(frozen=True)
class Limits:
    """The bounds of a model.

    Attributes:
        vocabulary: tokens of its tokenizer.
        names: the names by which requests may select it.
    """

    vocabulary: int
    names: tuple[str, ...]


def _integral(value: Any) -> Any:
    # 50.0 is 50: some JSON writers do not distinguish them.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_tuple(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    # Before its items are validated: pydantic collects an error for each.
    if len(cast(list[Any], value)) > _MOST_STOPS:
        raise ValueError(f"at most {_MOST_STOPS} strings are accepted")
    return tuple(cast(list[Any], value))


Whole = Annotated[int, BeforeValidator(_integral)]
_Stop = Annotated[str, Field(min_length=1, max_length=_MOST_STOP_CHARACTERS)]
Stops = Annotated[tuple[_Stop, ...], BeforeValidator(_as_tuple)]
"""Strings that end a reply."""


class Body(BaseModel):
    """A request body, or an object in one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    null_is_absent: ClassVar[bool] = True
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Parameters that this server does not support -> the values that have no effect, which are accepted."""
    ignored: ClassVar[tuple[str, ...]] = ()
    """Parameters that never affect the reply."""

    @classmethod
    def parse(cls: type[B], body: Mapping[str, Any], limits: Limits | None = None, prefix: str = "") -> B:
        """Validate a body. `prefix` precedes parameters in errors.

        Raises:
            RequestError: an unknown, unsupported or invalid parameter.
        """
        if len(body) > _MOST_PARAMETERS:
            raise RequestError(400, f"{prefix or 'the body'} has more than {_MOST_PARAMETERS} parameters")
        fields: dict[str, Any] = {}
        for name, value in body.items():
            if name in cls.ignored or (value is None and cls.null_is_absent):
                continue
            if name not in cls.neutral:
                fields[name] = value
            elif not any(type(value) is type(one) and value == one for one in cls.neutral[name]):
                raise bad(prefix + name, "is not supported by this server", code="unsupported_parameter")
        try:
            return cls.model_validate(fields, context=limits)
        except ValidationError as error:
            raise _request_error(error, prefix) from None


def _request_error(error: ValidationError, prefix: str) -> RequestError:
    first = error.errors(include_url=False, include_context=False)[0]
    names = [part[:_SHOWN] for part in first["loc"] if isinstance(part, str)]
    param = prefix + printable(".".join(names))
    if first["type"] == "extra_forbidden":
        return bad(param, "is not supported by this server", code="unknown_parameter")
    if first["type"] == "missing":
        return bad(param, "is required")
    message = "input should be an object" if first["type"] == "model_type" else first["msg"]
    message = message[:1].lower() + message[1:]
    return RequestError(400, f"{param}: {message}, it is {shown(first['input'])}", param=param)
