# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx settings of the site: `make docs` builds it into docs/_build/html, and warnings are errors."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from sphinx.application import Sphinx  # noqa: E402 - the path is set above
from versions import version_substitutions  # noqa: E402 - the path is set above

from nemo_aligner_cai import __version__  # noqa: E402 - the path is set above
from nemo_aligner_cai.extras import TRAINING  # noqa: E402

project = "nemo_aligner_cai"
author = copyright = "The nemo_aligner_cai authors"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_reference",
    "format_reference",
    "message_reference",
    "settings_reference",
]
exclude_patterns = ["_build"]
rst_prolog = version_substitutions(HERE.parent)
# Anything that does not resolve is an error; names of Python objects are not, unless a role asks for them.
nitpicky = False
suppress_warnings: list[str] = []

linkcheck_timeout = 20
linkcheck_retries = 2
# Examples, and services that answer a key alone.
linkcheck_ignore = [
    r"https?://(localhost|127\.0\.0\.1|HOST|URL|judge|gemma|example\.)",
    r"https://integrate\.api\.nvidia\.com",
]

autosummary_generate = True
# The training stack is not installed where the site is built.
autodoc_mock_imports = [*TRAINING, "hydra_plugins", "numpy.typing"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_use_ivar = True
# Docstrings mark code with single backquotes.
default_role = "code"

html_theme = "nvidia_sphinx_theme"
html_title = "nemo_aligner_cai"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Sphinx) -> None:
    """Register the handler below."""
    app.connect("autodoc-process-docstring", show_examples_literally)


def show_examples_literally(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn the paragraphs of a module's docstring that are set in columns into literal blocks, in place."""
    if what != "module":
        return
    paragraphs = [paragraph.splitlines() for paragraph in "\n".join(lines).split("\n\n")]
    for index, paragraph in enumerate(paragraphs):
        # Every paragraph of a module's text starts at the margin, and has no columns.
        if any("  " in line.strip() or line.startswith(" ") for line in paragraph) or "Input:" in paragraph[0]:
            paragraphs[index] = ["::", "", *(f"   {line}" for line in paragraph)]
    lines[:] = "\n\n".join("\n".join(paragraph) for paragraph in paragraphs).splitlines()
