# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that are checked as they are read, so that a bad one is found before anything is done."""

import argparse
import ipaddress
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import orjson

from nemo_aligner_cai.engine.seeds import LARGEST_SEED
from nemo_aligner_cai.errors import UsageError

_log = logging.getLogger(__name__)
_LARGE = 1 << 53
"""Above it, JSON's numbers are not whole ones any more."""


@dataclass(frozen=True)
class Number:
    """The ``type`` of a flag that takes a number; only finite ones are.

    Attributes:
        kind: int or float.
        least: the least that it may be.
        most: the most that it may be.
        above: `least` itself is too little.
    """

    kind: type[int] | type[float]
    least: float
    most: float = math.inf
    above: bool = False

    def __call__(self, text: str) -> int | float:
        """The number that a flag's text is; raises ArgumentTypeError, to which argparse adds the flag's name."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not (self.least <= value <= self.most and value < _LARGE) or (self.above and value == self.least):
            raise argparse.ArgumentTypeError(f"must be {self}, it is {text!r}")
        return value

    def __str__(self) -> str:
        what = "a whole number" if self.kind is int else "a number"
        if self.most < math.inf:
            return f"{what} between {self.kind(self.least)} and {self.kind(self.most)}"
        return f"{what} above {self.least:g}" if self.above else f"{what}, {self.least:g} or more"


COUNT = Number(int, 1)
SHARE = Number(float, 0.0, 1.0)
POSITIVE = Number(float, 0.0, above=True)
NOT_NEGATIVE = Number(float, 0.0)
TEMPERATURE = Number(float, 0.0, 100.0)
SEED = Number(int, 0, LARGEST_SEED)
TRAINING_SEED = Number(int, 0, (1 << 32) - 1)
"""NumPy's generators accept 32 bits."""
PORT = Number(int, 1, 65535)


def file_prefix(text: str) -> str:
    """The ``type`` of a flag with the beginning of file names, which may be empty; a path would lead elsewhere."""
    if "/" in text or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"must be a part of a name, without '/', it is {text!r}; another flag names the folder"
        )
    return text


def variable(text: str) -> str:
    """The ``type`` of a flag that takes the name of an environment variable; does not repeat what is none."""
    if not (text.isascii() and text.isidentifier()):
        raise argparse.ArgumentTypeError(
            "must be the name of an environment variable, and not what is in it: command lines are no place for keys"
        )
    return text


def json_object(text: str) -> dict[str, Any]:
    """The ``type`` of a flag that takes a JSON object."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'must be a JSON object, such as {{"key": 1}}, it is {text!r}')
    return cast(dict[str, Any], value)


def omitted_key(text: str) -> tuple[str, str | None]:
    """The ``type`` of a flag that takes ``KEY``, or ``KEY=OTHER`` for a key that is sent under another name."""
    key, equals, name = text.partition("=")
    if not key or bool(equals) != bool(name):
        raise argparse.ArgumentTypeError(f"must be KEY or KEY=OTHER, it is {text!r}")
    return key, name or None


def not_empty(text: str) -> str:
    """The ``type`` of a flag whose text must have a character at least."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def host(text: str) -> str:
    """The ``type`` of a flag that takes a server's name or address, as it is written in a URL.

    An IPv6 address gets its brackets. What is refused is not repeated if a password may be in it.
    """
    if "@" in text:
        raise argparse.ArgumentTypeError("must be a host without user and password: they would be in manifests")
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if not re.fullmatch(r"[\w.-]+", text):
            raise argparse.ArgumentTypeError(
                f"must be a name or an address alone, without http:// and port, it is {text!r}"
            ) from None
        return text
    return f"[{address}]" if address.version == 6 else str(address)


def system_message(text: str) -> str:
    """The ``type`` of a flag that takes a system message; tokenizers may merge white space at its ends."""
    if text != text.strip():
        raise argparse.ArgumentTypeError(f"must be a text without white space at its ends, it is {text!r}")
    return text


def never(args: argparse.Namespace) -> bool:
    """When a flag that is only accepted has an effect."""
    return False


class _NotGiven(list[object]):
    """A flag's value while it is not given: a list, since flags that can be repeated append to what is there."""


@dataclass(frozen=True)
class _Effect:
    flags: tuple[str, ...]
    when: Callable[[argparse.Namespace], bool]
    otherwise: str
    accepted: bool


class Parser(argparse.ArgumentParser):
    """A parser whose errors are errors as all others are, one line each, and that ignores no flag in silence.

    Flags can declare when they have an effect. One that is given where it has none is refused, since the run would not
    be the one that was asked for. If its value is the default, as in upstream's command lines, it is said once.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._effects: list[_Effect] = []

    def effect(
        self, *flags: str, when: Callable[[argparse.Namespace], bool], otherwise: str, accepted: bool = False
    ) -> None:
        """Declare when flags have an effect.

        Args:
            flags: their names in the namespace.
            when: tells it from all flags' values.
            otherwise: the reason why they have none, and what to give; follows "has no effect".
            accepted: any value is taken and said, as upstream's script does; for flags that are there for its sake.
        """
        self._effects.append(_Effect(flags, when, otherwise, accepted))

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(message)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - argparse has overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse, as argparse does; raises UsageError for a flag that has no effect."""
        parsed, rest = super().parse_known_args(args, namespace)
        if self._effects:
            self._check_effects(parsed, self._given(args))
        return parsed, rest

    def _given(self, args: Any) -> dict[str, str]:
        """Each flag that is on the command line: its name in the namespace -> its name there."""
        options = {action.dest: action.option_strings[0] for action in self._actions if action.option_strings}
        absent = {name: _NotGiven() for name in options}
        probe, _ = super().parse_known_args(args, argparse.Namespace(**absent))
        return {name: option for name, option in options.items() if getattr(probe, name) is not absent[name]}

    def _check_effects(self, parsed: argparse.Namespace, given: Mapping[str, str]) -> None:
        for effect in self._effects:
            if effect.when(parsed):
                continue
            idle = [name for name in effect.flags if name in given]
            for name in idle:
                if not effect.accepted and getattr(parsed, name) != self.get_default(name):
                    self.error(f"{given[name]} has no effect {effect.otherwise}")
            if idle:
                names = ", ".join(given[name] for name in idle)
                _log.info("%s: no effect %s", names, effect.otherwise)


_NOT_RECORDED = ("ngc_api_key", "run")
"""A key must stay secret; the other one is the command itself."""


def record_of(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as a manifest names them, without secrets."""
    return {name: value for name, value in vars(args).items() if name not in _NOT_RECORDED}
