# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Untrusted text on a terminal or in a log."""

import io
import logging

import pytest

from nemo_aligner_cai.console.printable import PrintableFormatter, error_line, printable

PLAIN = "Grüße, 你好, नमस्ते, می\u200cکنم, 👩\u200d🚀, ❤\ufe0f, [red]"


def test_c4_ordinary_text_of_any_script_stays() -> None:
    assert printable(PLAIN) == PLAIN


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("\x07\x08\x7f", r"\x07\x08\x7f"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("a\u200bb\u200cc\u200dd\ufeffe\xadf", r"a\u200bb\u200cc\u200dd\ufeffe\xadf"),
        ("\U000e0041\U000e0042", r"\U000e0041\U000e0042"),
        ("a\ufe00\ufe01\ufe02", "a\ufe00\\ufe01\\ufe02"),
        ("a\u3164b", r"a\u3164b"),
        ("\udcff", r"\udcff"),
    ],
)
def test_c4_what_acts_on_a_terminal_or_hides_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_c4_line_ends_and_tabs_are_kept_where_asked() -> None:
    assert printable("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb\\r\\x1b"


def test_c4_an_error_cannot_forge_a_line_of_ours() -> None:
    assert error_line(ValueError("no\x1b[2J\ncai: done")) == "cai: no\\x1b[2J\n  cai: done\n"


def test_c4_a_log_record_is_one_line_and_its_traceback_cannot_act_on_a_terminal() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    try:
        raise ValueError("\x1b[31m")
    except ValueError as error:
        record = logging.LogRecord("x", logging.INFO, "f", 1, "server: %s", ("\x1b\n",), (type(error), error, None))
    handler.emit(record)
    line, *rest = out.getvalue().splitlines()
    assert line == r"server: \x1b\n"
    assert rest
    assert "\x1b" not in out.getvalue()
