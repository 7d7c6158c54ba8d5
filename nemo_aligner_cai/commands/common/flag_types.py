# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Values of argparse's ``type``. Each raises ArgumentTypeError, to which argparse adds the flag's name.

Values that may hold a secret are not repeated in the message.
"""

import argparse
import ipaddress
import math
import re
from dataclasses import dataclass
from typing import Any, cast

import orjson

from nemo_aligner_cai.engine.seeds import LARGEST_SEED

_LARGE = 1 << 53
"""JSON represents whole numbers exactly below this limit."""


@dataclass(frozen=True)
class Number:
    """A finite number in a range. With `exclusive`, the minimum itself is excluded."""

    kind: type[int] | type[float]
    minimum: float
    maximum: float = math.inf
    exclusive: bool = False

    def __call__(self, text: str) -> int | float:
        """Parse a flag's text."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        in_range = self.minimum <= value <= self.maximum and value < _LARGE
        if not in_range or (self.exclusive and value == self.minimum):
            raise argparse.ArgumentTypeError(f"must be {self}, got {text!r}")
        return value

    def __str__(self) -> str:
        what = "a whole number" if self.kind is int else "a number"
        if self.maximum < math.inf:
            return f"{what} between {self.minimum:.16g} and {self.maximum:.16g}"
        return f"{what} above {self.minimum:g}" if self.exclusive else f"{what}, {self.minimum:g} or more"


COUNT = Number(int, 1)
SHARE = Number(float, 0.0, 1.0)
POSITIVE = Number(float, 0.0, exclusive=True)
NOT_NEGATIVE = Number(float, 0.0)
TEMPERATURE = Number(float, 0.0, 100.0)
SEED = Number(int, 0, LARGEST_SEED)
TRAINING_SEED = Number(int, 0, (1 << 32) - 1)
"""NumPy's generators accept 32 bits."""
PORT = Number(int, 1, 65535)


def file_prefix(text: str) -> str:
    """Parse the beginning of file names, which may be empty. A path would lead to another folder."""
    if "/" in text or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"must be part of a file name, without '/', got {text!r}; another flag sets the folder"
        )
    return text


def variable(text: str) -> str:
    """Parse the name of an environment variable."""
    if not (text.isascii() and text.isidentifier()):
        raise argparse.ArgumentTypeError(
            "must be the name of an environment variable, not its value: a command line must not hold a key"
        )
    return text


def json_object(text: str) -> dict[str, Any]:
    """Parse a JSON object."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'must be a JSON object, such as {{"key": 1}}, got {text!r}')
    return cast(dict[str, Any], value)


def omitted_key(text: str) -> tuple[str, str | None]:
    """Parse ``KEY``, or ``KEY=OTHER`` for a key that is sent under another name."""
    key, equals, name = text.partition("=")
    if not key or bool(equals) != bool(name):
        raise argparse.ArgumentTypeError(f"must be KEY or KEY=OTHER, got {text!r}")
    return key, name or None


def host(text: str) -> str:
    """Parse a server's name or address and return it in the form of a URL: IPv6 addresses get brackets."""
    if "@" in text:
        raise argparse.ArgumentTypeError("must be a host without user and password: manifests record it")
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if not re.fullmatch(r"[\w.-]+", text):
            raise argparse.ArgumentTypeError(
                f"must be a host name or an address, without http:// and port, got {text!r}"
            ) from None
        return text
    return f"[{address}]" if address.version == 6 else str(address)


def system_message(text: str) -> str:
    """Parse a system message. Tokenizers may merge white space at its ends."""
    if text != text.strip():
        raise argparse.ArgumentTypeError(f"must have no white space at its ends, got {text!r}")
    return text
