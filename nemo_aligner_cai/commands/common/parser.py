# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The argument parser of every command."""

import argparse
import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from nemo_aligner_cai.commands.common.flag_types import file_prefix, system_message
from nemo_aligner_cai.console.secrets import first_secret
from nemo_aligner_cai.errors import UsageError

_log = logging.getLogger(__name__)
_NOT_RECORDED = ("ngc_api_key", "run")
"""The first is a secret, the second is the command's function."""
_TEXTS = ("system_message", "system_default_message")
"""Texts for the models, which may speak of passwords."""
MAY_BE_EMPTY = (str, file_prefix, system_message)
"""The types of arguments whose value may be empty: texts, not paths, addresses or names."""


def recorded_flags(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags for a manifest.

    Raises:
        UsageError: a flag contains a secret, which the manifest and the journal would show.
    """
    flags = {name: value for name, value in vars(args).items() if name not in _NOT_RECORDED}
    key = first_secret({name: value for name, value in flags.items() if name not in _TEXTS})
    if key is not None:
        flag, _, inner = key.partition(".")
        raise UsageError(
            f"--{flag.replace('_', '-')}: {f'its key {inner} ' if inner else ''}contains a secret, which the files of "
            "the run would show; remove it, and name an environment variable with the server's key by --api-key-env "
            "or --judge-api-key-env"
        )
    return flags


def never(args: argparse.Namespace) -> bool:
    """The condition of a flag that is accepted for compatibility only."""
    return False


class HelpFormatter(argparse.HelpFormatter):
    """Adds its default, or "(required)", to the help text of each flag that does not mention its default.

    Descriptions and epilogs keep their paragraphs; a paragraph with an indented line keeps its line ends.
    """

    def _get_help_string(self, action: argparse.Action) -> str | None:
        positional = not action.option_strings and action.nargs not in ("?", "*")
        if not action.help or "default" in action.help or action.default is argparse.SUPPRESS or positional:
            return action.help
        shown = "required" if action.required and action.option_strings else f"default: {_shown(action.default)}"
        return f"{action.help} ({shown.replace('%', '%%')})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            part if "\n " in f"\n{part}" else textwrap.fill(part, width, break_on_hyphens=False) for part in paragraphs
        )


def _shown(default: object) -> str:
    """A flag's default, as a user would write it."""
    if default is None or default == []:
        return "none"
    values = cast(Sequence[object], default) if isinstance(default, list | tuple) else [default]
    return " ".join(str(value) or "empty" for value in values)


class _Subcommands(argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage, reportMissingTypeArgument]
    """Subcommands that are described by their help texts."""

    choices: "dict[str, Parser]"

    def add_parser(self, name: str, **settings: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add a subcommand."""
        text = str(settings["help"])
        settings.setdefault("description", f"{text[0].upper()}{text[1:].rstrip('.')}.")
        return cast(Any, super()).add_parser(name, **settings)


class _NotGiven(list[object]):
    """The value of a flag that was not given. It is a list because repeatable flags append to it."""


@dataclass(frozen=True)
class _Condition:
    flags: tuple[str, ...]
    when: Callable[[argparse.Namespace], bool]
    otherwise: str
    accepted: bool


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError, and that refuses empty values and flags without an effect.

    An empty value is that of an unset variable of the shell, and as a path it would mean the current folder. Only
    arguments of a type in `MAY_BE_EMPTY` accept it.

    A flag without an effect would change the run that the user asked for. If its value is the default, as in
    upstream's command lines, it is accepted and logged.

    Attributes:
        flags: the actions of all optional arguments, in groups or not.
        examples: command lines that the help shows at its end.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.flags: list[argparse.Action] = []
        self.examples: tuple[str, ...] = ()
        self._conditions: list[_Condition] = []
        super().__init__(*args, **{"formatter_class": HelpFormatter, **settings})
        self.register("action", "parsers", _Subcommands)

    def format_help(self) -> str:
        """Format the help, with the examples at its end."""
        title = "examples" if len(self.examples) > 1 else "example"
        shown = (f"\n{title}:\n", *(textwrap.indent(f"{line}\n", "  ") for line in self.examples))
        return super().format_help() + ("".join(shown) if self.examples else "")

    @property
    def arguments(self) -> list[argparse.Action]:
        """All arguments: flags, positional arguments, and the choice of a subcommand."""
        return self._actions

    def walk(self) -> "Iterator[Parser]":
        """Yield this parser and those of its subcommands."""
        yield self
        for action in self.arguments:
            if isinstance(action, _Subcommands):
                for parser in action.choices.values():
                    yield from parser.walk()

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add an argument and record it if it is a flag."""
        return self.record(super().add_argument(*names, **settings))

    def add_group(self, title: str, description: str | None = None) -> "FlagGroup":
        """Add a titled group of flags."""
        return FlagGroup(self, self.add_argument_group(title, description).add_argument)

    def record(self, action: argparse.Action) -> argparse.Action:
        """Append a flag to `flags`."""
        if action.option_strings:
            self.flags.append(action)
        return action

    def effect(
        self, *flags: str, when: Callable[[argparse.Namespace], bool], otherwise: str, accepted: bool = False
    ) -> None:
        """Declare when flags have an effect.

        Args:
            flags: their names in the namespace.
            when: tells from all arguments whether they have an effect.
            otherwise: continues the message "--flag has no effect ...".
            accepted: log any value instead of refusing it, for flags that exist for upstream's sake.
        """
        self._conditions.append(_Condition(flags, when, otherwise, accepted))

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(message)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # Before the conversion to a Path, which makes "." of an empty text. Defaults do not come here.
        rest = action.nargs in (argparse.PARSER, argparse.REMAINDER)
        if "" in (arg_strings[:1] if rest else arg_strings) and action.type not in MAY_BE_EMPTY:
            raise argparse.ArgumentError(action, "must not be empty; is a variable of the shell unset?")
        return cast(Any, super())._get_values(action, arg_strings)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - argparse has overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parse like argparse; raises UsageError for a flag without an effect."""
        parsed, rest = super().parse_known_args(args, namespace)
        if idle := [condition for condition in self._conditions if not condition.when(parsed)]:
            self._refuse(idle, parsed, self._given(args))
        return parsed, rest

    def _given(self, args: Any) -> dict[str, str]:
        """Return the flags of a command line: name in the namespace -> first option string."""
        options = {action.dest: action.option_strings[0] for action in self.flags}
        absent = {name: _NotGiven() for name in options}
        probe, _ = super().parse_known_args(args, argparse.Namespace(**absent))
        return {name: option for name, option in options.items() if getattr(probe, name) is not absent[name]}

    def _refuse(self, idle: list[_Condition], parsed: argparse.Namespace, given: dict[str, str]) -> None:
        for condition in idle:
            names = [name for name in condition.flags if name in given]
            for name in names:
                if not condition.accepted and getattr(parsed, name) != self.get_default(name):
                    self.error(f"{given[name]} has no effect {condition.otherwise}")
            if names:
                _log.info("%s: no effect %s", ", ".join(map(given.__getitem__, names)), condition.otherwise)


@dataclass(frozen=True)
class FlagGroup:
    """A titled group of flags in a parser's help."""

    parser: Parser
    add: Callable[..., argparse.Action]

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add a flag to the group and record it in the parser."""
        return self.parser.record(self.add(*names, **settings))
