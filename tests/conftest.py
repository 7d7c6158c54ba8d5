# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures and rules for every test."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A shell that starts pytest in the background has it ignore Ctrl-C, and what pytest starts would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPO_ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Each of them starts processes that import NeMo, ten seconds apiece: none belongs in the fast tier.
    functional = REPO_ROOT / "tests" / "functional"
    for item in items:
        if item.path.is_relative_to(functional):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's root."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with Anthropic's published files, which the repository does not hold: a skip where it is absent."""
    folder = REPO_ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("Anthropic's published data sets are not beside this checkout (../shared/data)")
    return folder


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Every test starts with the logging of a new process, whatever NeMo or a command has set up before it."""
    root, package = logging.getLogger(), logging.getLogger("nemo_aligner_cai")
    logging.disable(logging.NOTSET)
    root.setLevel(logging.WARNING)
    # pytest's handlers, which catch log lines for all tests; a library of NeMo's raises the level of all handlers.
    for handler in root.handlers:
        handler.setLevel(logging.NOTSET)
    package.setLevel(logging.NOTSET)
    package.handlers.clear()
    package.propagate = True
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("nemo_aligner_cai") and isinstance(logger, logging.Logger):
            logger.disabled = False
    before = list(root.handlers)
    yield
    # A command's handler writes to a stream that is gone when its test ends. pytest's own handlers come and go.
    root.handlers[:] = [handler for handler in root.handlers if handler in before]
    package.handlers.clear()
