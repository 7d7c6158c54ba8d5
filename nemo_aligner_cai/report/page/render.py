# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Fills a template of the page.

Untrusted text cannot act in the page: jinja2 escapes it, control characters and bidirectional overrides are replaced
by symbols, and the content security policy allows the one style sheet and the one script of this package, by hash, and
nothing else: no request, no image, no inline handler.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nemo_aligner_cai import __version__
from nemo_aligner_cai.console.printable import with_symbols

_FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Return the HTML of a template of this folder with the given values."""
    # Both are of this package, and are not escaped: their bytes must be those of the hashes.
    style, script = (Markup(_source(name)) for name in ("report.css", "report.js"))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(style=style, script=script, policy=policy, version=__version__, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters["code"] = _code
    return environment


def _code(text: str) -> Markup:
    """Escape a sentence; what is between backquotes in it is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(with_symbols(text))))


def _visible(value: object) -> object:
    return with_symbols(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _source(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"
