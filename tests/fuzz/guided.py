# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""``python -m tests.fuzz.guided NAME [libFuzzer's arguments]``: search one target, guided by coverage.

``python -m tests.fuzz --atheris`` starts this process for each target: libFuzzer ends its process.
"""

import importlib
import logging
import sys
from functools import partial
from typing import Any

atheris: Any = importlib.import_module("atheris")

# The parsers in Python. To measure every function of the process would take minutes.
with atheris.instrument_imports(include=["nemo_aligner_cai", "yaml", "jinja2"]):
    from tests.fuzz import targets

targets.SECONDS *= 20  # for measured code

if __name__ == "__main__":
    program, name, *options = sys.argv
    logging.disable()
    atheris.Setup([program, *options], partial(targets.run, name))
    atheris.Fuzz()
