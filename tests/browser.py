# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A real headless Chromium, driven by playwright, for the pages that this package writes."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_SERIOUS = ("serious", "critical")


def chromium() -> str:
    """The path of Chromium; a skip, with the reason, where it or playwright is absent."""
    pytest.importorskip(
        "playwright.sync_api", reason="playwright is needed to drive a browser: pip install playwright"
    )
    path = os.environ.get("CAI_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium), nor is CAI_CHROMIUM set")
    return path


def axe_core() -> str:
    """The source of axe-core: of AXE_CORE, else of axe-playwright-python; a skip, with the reason, without both."""
    if path := os.environ.get("AXE_CORE"):
        return Path(path).read_text(encoding="utf-8")
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-core is needed: pip install --no-deps axe-playwright-python, or AXE_CORE=/path/to/axe.min.js")
    return Path(found.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def browser() -> Iterator[Any]:
    """A running Chromium."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium does not start its sandbox as root.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def page_of(started: Any, url: str, *, wait: Sequence[str] = (), **context: Any) -> Iterator[Any]:
    """A page that has been opened; at the end, nothing was requested but it, and nothing was on the console.

    Args:
        started: the browser.
        url: of the page.
        wait: selectors to wait for.
        context: as for playwright's contexts, such as `color_scheme`.
    """
    opened = started.new_context(**context)
    page = opened.new_page()
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    for selector in wait:
        page.wait_for_selector(selector, state="attached")
    yield page
    assert problems == []
    assert [one for one in requests if not one.startswith(("blob:", "data:"))] == [url.split("#")[0]]
    opened.close()


def serious_findings(page: Any) -> list[str]:
    """What axe-core finds on a page, of serious impact or worse. The page must have been opened with bypass_csp."""
    page.evaluate(axe_core())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in _SERIOUS
        for node in one["nodes"]
    ]
