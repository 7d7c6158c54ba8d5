# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Request bodies: typed fields with bounds, and refusals that name the parameter.

Input:  b'{"prompt": "Hi", "max_tokens": 5, "temperature": "hot"}'
Output: RequestError(400, "temperature must be a number between 0 and 100, it is 'hot'", param="temperature")

Nothing here imports torch or NeMo, so that every refusal is tested in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import orjson

from nemo_aligner_cai.console.printable import printable
from nemo_aligner_cai.errors import CaiError

MOST_BYTES = 16 << 20
"""The largest body."""
_MOST_STOPS = 64
_MOST_STOP_CHARACTERS = 1000
_SHOWN = 60
"""Characters of a value that an error shows."""


class RequestError(CaiError):
    """A request that is answered with an error; the server and other requests are unaffected.

    Attributes:
        status: the HTTP status.
        param: the parameter at fault, None if it is the request as a whole.
        code: OpenAI's short name of the error, None if there is none.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """`message` is one line for people."""
        super().__init__(printable(message))
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def bad(param: str, message: str, *, code: str | None = None) -> RequestError:
    """The error for a parameter with a wrong value: HTTP 400."""
    return RequestError(400, f"{param} {message}", param=param, code=code)


def shown(value: object) -> str:
    """The beginning of a value, for an error."""
    # A value may be megabytes long, or nested a thousand times.
    if isinstance(value, str):
        return repr(value[:_SHOWN])
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:_SHOWN]
    return ("a list" if value else "an empty list") if isinstance(value, list) else "an object"


def read_body(content: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises RequestError otherwise. NaN, infinity and deep nesting are not JSON here."""
    try:
        body: Any = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestError(400, f"the body must be a JSON object, it is {shown(body)}")
    return cast(dict[str, Any], body)


class Fields:
    """The fields of a body. Each is taken once, by type and bounds; one that nobody takes is refused by `end`."""

    def __init__(self, body: Mapping[str, Any], *, null_is_absent: bool, prefix: str = "") -> None:
        """Nothing is taken yet.

        Args:
            body: the fields by name.
            null_is_absent: a null is the same as no field, as in OpenAI's protocol.
            prefix: precedes the names in errors.
        """
        self._left = {name: value for name, value in body.items() if not (null_is_absent and value is None)}
        self._prefix = prefix

    def take(self, name: str, default: Any = None) -> Any:
        """The value as it is."""
        return self._left.pop(name, default)

    def whole(self, name: str, default: int, low: int, high: int | None = None) -> int:
        """An integer from `low` to `high`."""
        value = self.optional_whole(name, low, high)
        return default if value is None else value

    def optional_whole(self, name: str, low: int, high: int | None = None) -> int | None:
        """An integer from `low` to `high`, None if the field is absent."""
        if name not in self._left:
            return None
        given = self.take(name)
        # 50.0 is 50: not every client tells the two apart.
        value = int(given) if isinstance(given, float) and given.is_integer() else given
        if isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high):
            return value
        bounds = f"of at least {low}" if high is None else f"between {low} and {high}"
        raise self._bad(name, f"must be an integer {bounds}, it is {shown(given)}")

    def number(self, name: str, default: float, low: float, high: float, *, above: bool = False) -> float:
        """A number from `low` (or above it) to `high`."""
        if name not in self._left:
            return default
        value = self.take(name)
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not low <= value <= high or (above and value == low):
            bounds = f"above {low:g} and at most {high:g}" if above else f"between {low:g} and {high:g}"
            raise self._bad(name, f"must be a number {bounds}, it is {shown(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise self._bad(name, f"must be true or false, it is {shown(value)}")
        return value

    def text(self, name: str) -> str | None:
        """A string, None if the field is absent."""
        if name not in self._left:
            return None
        value = self.take(name)
        if not isinstance(value, str):
            raise self._bad(name, f"must be a string, it is {shown(value)}")
        return value

    def stops(self, name: str, *, single: bool) -> tuple[str, ...]:
        """Strings that end a reply: a list, or one string where `single`."""
        value = self.take(name, [])
        if single and isinstance(value, str):
            value = [value]
        kind = "a string or a list of strings" if single else "a list of strings"
        if not isinstance(value, list):
            raise self._bad(name, f"must be {kind}, it is {shown(value)}")
        items = cast(list[Any], value)
        if len(items) > _MOST_STOPS:
            raise self._bad(name, f"must have at most {_MOST_STOPS} strings, it has {len(items)}")
        for item in items:
            if not isinstance(item, str):
                raise self._bad(name, f"must be {kind}, it has {shown(item)} in it")
            if not 0 < len(item) <= _MOST_STOP_CHARACTERS:
                raise self._bad(name, f"must have strings of 1 to {_MOST_STOP_CHARACTERS} characters")
        return tuple(cast(list[str], items))

    def neutral(self, name: str, *values: Any) -> None:
        """Refuse a parameter that this server does not have, unless its value means that nothing is asked for."""
        if name in self._left:
            value = self.take(name)
            if not any(type(value) is type(one) and value == one for one in values):
                raise self._bad(name, "is not supported by this server", code="unsupported_parameter")

    def ignore(self, *names: str) -> None:
        """Accept parameters that have no influence on the reply, such as a name for the user."""
        for name in names:
            self.take(name)

    def end(self) -> None:
        """Raise RequestError for the first field that nobody took."""
        for name in self._left:
            raise self._bad(printable(name[:_SHOWN]), "is not supported by this server", code="unknown_parameter")

    def _bad(self, name: str, message: str, *, code: str | None = None) -> RequestError:
        return bad(self._prefix + name, message, code=code)
