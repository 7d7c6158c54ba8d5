# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The help of every command: a text and a default for each flag, and examples that parse."""

import argparse
import re
import shlex

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import components

_PARSERS = {parser.prog: parser for parser in cli.complete_parser().walk()}
_PACKAGED = {str(packaged()), str(packaged("few_shots.json"))}


def _flags(parser: Parser) -> list[argparse.Action]:
    """All arguments, except those that only print, such as --help, and the choice of a subcommand."""
    return [
        action
        for action in parser.arguments
        if action.default is not argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]


def _text(parser: Parser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action)


def test_all_commands_are_found() -> None:
    assert len(_PARSERS) > 40
    assert {f"cai {name}" for name in cli.COMMANDS} < _PARSERS.keys()
    assert {"cai data rl-cai", "cai data blend", "cai train ppo-actor", "cai journal export"} < _PARSERS.keys()


@pytest.mark.parametrize("prog", _PARSERS)
def test_every_flag_has_a_text_and_its_default(prog: str) -> None:
    parser = _PARSERS[prog]
    assert parser.description
    for action in _flags(parser):
        name = "/".join(action.option_strings) or action.dest
        assert action.help and len(action.help) > 5, name
        text = _text(parser, action)
        if action.required and action.option_strings:
            assert text.endswith("(required)"), name
        elif action.option_strings or action.nargs == "?":
            (shown,) = re.findall(r"default: ([^;,)]+)", text) or [None]
            assert shown, f"{name}: {text}"
            if action.default in (None, []) or str(action.default) in _PACKAGED:
                assert "False" not in shown
            else:
                default = action.default if isinstance(action.default, list | tuple) else [action.default]
                expected = " ".join(str(value) or "empty" for value in default)
                assert f"(default: {expected})" in text, f"{name}: {text}"


@pytest.mark.parametrize("prog", _PARSERS)
def test_every_command_ends_with_examples_that_parse(prog: str) -> None:
    parser = _PARSERS[prog]
    assert parser.examples
    assert parser.format_help().rstrip().endswith(parser.examples[-1].splitlines()[-1])
    for example in parser.examples:
        program, *words = shlex.split(example.replace("\\\n", " "))
        words = words[: words.index(">")] if ">" in words else words
        assert program == "cai"
        assert prog == "cai" or example.startswith(prog), "an example is one of its own command"
        _parse(words)


def _parse(words: list[str]) -> None:
    makers = components("generators") | components("processors")
    parse = cli.parse_args
    if words[0] == "data" and words[1] in makers:
        parse, words = makers[words[1]].load().build_parser().parse_args, words[2:]
    if words[-1] == "--help":
        with pytest.raises(SystemExit) as stopped:
            parse(words)
        assert stopped.value.code == 0
    else:
        parse(words)


@pytest.mark.parametrize("prog", _PARSERS)
def test_an_empty_value_is_refused_by_the_flags_name_unless_it_is_a_text(prog: str) -> None:
    parser = _PARSERS[prog]
    for action in _flags(parser):
        if action.nargs == 0 or not action.option_strings:
            continue
        words = [action.option_strings[0], *[""] * (action.nargs if isinstance(action.nargs, int) else 1)]
        with pytest.raises(UsageError) as raised:
            # A text is accepted; then the flag or argument that is missing is named, or the one that is unknown.
            parser.parse_args([*words, "--no-such-flag"])
        refused = f"argument {'/'.join(action.option_strings)}: must not be empty" in str(raised.value)
        text = action.metavar == "TEXT" or action.dest in ("output_filename_prefix", "output_file_name_prefix")
        assert refused != text, f"{words[0]}: {raised.value}"


def test_an_empty_path_in_place_of_an_argument_is_refused_too() -> None:
    for words in (["validate", "a.jsonl", ""], ["run", ""], ["data", "rl-cai", "--blend-with", ""]):
        with pytest.raises(UsageError, match="must not be empty"):
            _parse(words)
