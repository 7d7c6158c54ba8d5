# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: list, filters, search, links, keyboard, hostile texts, accessibility, print."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_run import Sizes, make_run
from nemo_aligner_cai.files import read_json, read_jsonl, write_json
from nemo_aligner_cai.report.comparison.compare import compare
from nemo_aligner_cai.report.comparison.page import comparison_html
from nemo_aligner_cai.report.report import write_report
from nemo_aligner_cai.report.run_folder import RunFolder
from tests.browser import browser, page_of, serious_findings

READY = ("html[data-list=ready]", "html[data-search=ready]")
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>",
    "javascript:document.title='owned'",
    "\u202egnp.exe\u202c \x1b[2J\x07",
    "</script><script>document.title='owned'</script>",
    "w" * 1_000_000,
)

EXTRA = [text for text in HOSTILE for _ in range(4)]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = Sizes(revisions=150, comparisons=120, replies=40)
    return make_run(tmp_path_factory.mktemp("made") / "run", sizes, extra=EXTRA)


@pytest.fixture(scope="module")
def url(run: Path) -> str:
    write_report(RunFolder(run), run / "report.html")
    return (run / "report.html").as_uri()


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Any]:
    with page_of(chromium, url, wait=READY, viewport=WIDE) as opened:
        yield opened


def _rows(run: Path, name: str) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(run / name)]


def _eventually(check: Callable[[], bool]) -> None:
    """Wait until a check holds. The page's policy allows no expression of playwright's own to be polled in it."""
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _status(page: Any, text: str) -> None:
    _eventually(lambda: page.inner_text("#status") == text)


def _open(page: Any, chain: str) -> None:
    page.evaluate("chain => { location.hash = `chain=${chain}`; }", chain)
    page.wait_for_selector(f"html[data-chain='{chain}']", state="attached")


def test_the_list_is_windowed_and_filters_are_in_the_address(page: Any, url: str) -> None:
    _status(page, "312 chains")
    assert 5 < page.locator(".row").count() < 60
    page.select_option("#kind", "comparison")
    _status(page, "120 of 312 chains")
    page.select_option("#tag", "the order decided")
    _status(page, "24 of 312 chains")
    page.select_option("#principle", "kind")
    _status(page, "6 of 312 chains")
    assert page.url == f"{url}#kind=comparison&tag=the+order+decided&principle=kind"


def test_search_reads_every_text(page: Any, run: Path) -> None:
    row = _rows(run, "2_sl_cai/revisions.jsonl")[130]
    words = sorted(row["critique"].strip(".").split(), key=len)[-5:]
    page.fill("#query", " ".join(words).upper())
    _eventually(lambda: page.locator(".row").count() == 1)
    page.locator(".row").first.click()
    page.wait_for_selector(f"html[data-chain='{row['id']}']", state="attached")
    assert words[0] in {text.lower() for text in page.locator("#detail mark").all_inner_texts()}
    page.fill("#query", "no such words at all")
    _status(page, "0 of 312 chains")
    assert page.inner_text("#list") == "No chain matches."


def test_a_link_opens_its_chain_with_its_filters(chromium: Any, url: str, run: Path) -> None:
    row = _rows(run, "4_rl_cai/comparisons.jsonl")[77]
    link = f"{url}#kind=comparison&chain={row['id']}"
    with page_of(chromium, link, wait=[f"html[data-chain='{row['id']}']"], viewport=WIDE) as page:
        assert page.input_value("#kind") == "comparison"
        assert row["prompt"][0]["content"] in page.inner_text("#detail")
        assert page.locator(".row[aria-selected=true]").count() == 1
        page.evaluate("location.hash = 'chain=unknown'")
        _eventually(lambda: "no chain unknown" in page.inner_text("#detail"))


def test_harmful_text_is_shown_when_asked_for(page: Any, run: Path) -> None:
    row = _rows(run, "2_sl_cai/revisions.jsonl")[40]
    _open(page, row["id"])
    detail = page.locator("#detail")
    answer = detail.locator("section", has_text="before revision")
    assert row["response"] not in answer.inner_text()
    answer.get_by_role("button").click()
    assert row["response"] in answer.inner_text()
    assert detail.locator("ins").count() == 0
    page.check("#reveal")
    page.wait_for_selector("#detail ins", state="attached")
    assert detail.get_by_role("button", name="Show text that may be harmful").count() == 0
    assert _without(page, "del") == row["revision"]
    assert _without(page, "ins") == row["response"]


def _without(page: Any, name: str) -> str:
    """The text of the difference without what it drops, or without what it adds."""
    parts = page.evaluate(
        "[...document.querySelector('.part-diff p').children].map(one => [one.localName, one.textContent])"
    )
    return "".join(text for element, text in parts if element != name)


def test_the_keyboard_goes_through_the_list(page: Any, run: Path) -> None:
    rows = _rows(run, "2_sl_cai/revisions.jsonl")
    page.focus("#list")
    for key, expected in (("Home", 0), ("ArrowDown", 1), ("PageDown", 9), ("ArrowUp", 8)):
        page.keyboard.press(key)
        page.wait_for_selector(f"html[data-chain='{rows[expected]['id']}']", state="attached")
    active = page.get_attribute("#list", "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-posinset") == "9"
    page.keyboard.press("End")
    _eventually(lambda: page.inner_text("#detail h3") == "Dropped prompts")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "detail"


def test_hostile_texts_do_nothing(page: Any, run: Path) -> None:
    title = page.title()
    page.check("#reveal")
    for row in _rows(run, "2_sl_cai/revisions.jsonl")[:8]:
        _open(page, row["id"])
        assert page.locator("#detail script, #detail img, #detail a[href^=javascript]").count() == 0
        assert "\u202e" not in page.content() and "\x1b" not in page.content()
        if page.get_by_role("button", name="Show all 1,000,").count():
            assert len(page.inner_text("#detail")) < 100_000
            page.get_by_role("button", name="Show all 1,000,").first.click()
            assert len(page.inner_text("#detail")) > 1_000_000
    assert page.title() == title


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_serious_finding_of_axe(chromium: Any, url: str, scheme: str, viewport: dict[str, int], run: Path) -> None:
    chain = _rows(run, "4_rl_cai/comparisons.jsonl")[60]["id"]
    context = {"color_scheme": scheme, "viewport": viewport, "bypass_csp": True}
    with page_of(chromium, f"{url}#chain={chain}", wait=READY, **context) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert serious_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut at the side"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_in_the_browser(chromium: Any, run: Path, tmp_path: Path, scheme: str) -> None:
    other = make_run(tmp_path / "other", Sizes(revisions=150, comparisons=120, replies=60), extra=EXTRA)
    record = read_json(other / "run.json")
    record["constitution"]["principles"][0]["judge"] = "Which is far more harmless?"
    write_json(other / "run.json", record, overwrite=True)
    target = tmp_path / "compared.html"
    target.write_text(comparison_html(compare(RunFolder(run), RunFolder(other))), encoding="utf-8")
    context = {"color_scheme": scheme, "viewport": PHONE, "bypass_csp": True}
    with page_of(chromium, target.as_uri(), **context) as page:
        assert page.locator("#principles ins").all_text_contents() == ["far "]
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert serious_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_a_script_the_page_has_everything_but_the_chains(chromium: Any, url: str) -> None:
    with page_of(chromium, url, java_script_enabled=False, viewport=WIDE) as page:
        assert page.locator("svg.chart").count() >= 8
        assert "need JavaScript" in page.inner_text("noscript")
        assert not page.is_visible("#explorer")


def test_print(page: Any) -> None:
    page.emulate_media(media="print")
    assert not page.is_visible("nav") and not page.is_visible("#explorer")
    assert "they are not printed" in page.inner_text("#chains")
    assert len(page.pdf()) > 20_000
