# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The report of a large run in a real browser: size, time to the list, to a linked chain, to the search.

The run is made up, in the real formats: chains of 650 words on average. Times are from the start of navigation, as the
page itself marks them; the longest task is the longest time for which the page answers no key.
"""

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.made_run import Sizes, make_run
from benchmarks.memory import process_figure
from benchmarks.table import Figure, show
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.report.report import write_report
from nemo_aligner_cai.report.run_folder import RunFolder

CHAINS, MEGABYTES, LIST_S, LINK_S, SEARCH_S, TASK_S = 10_000, 30.0, 1.0, 1.0, 5.0, 0.2
_WATCH = """
window.longest = 0;
new PerformanceObserver(list => list.getEntries().forEach(one => { longest = Math.max(longest, one.duration); }))
    .observe({type: 'longtask', buffered: true});
"""
_MARK = "name => performance.getEntriesByName(name)[0].startTime / 1000"
_FIND = """word => {
    const query = document.getElementById('query'), status = document.getElementById('status');
    const before = status.textContent, started = performance.now();
    query.value = word;
    query.dispatchEvent(new Event('input'));
    return new Promise(done => new MutationObserver(() => done((performance.now() - started) / 1000))
        .observe(status, {childList: true, characterData: true, subtree: true}));
}"""


@dataclass(frozen=True)
class Times:
    """Seconds of one visit, and what the search found."""

    list: float
    link: float
    search: float
    longest: float
    find: float
    found: str


def visit(url: str, chain: str, word: str) -> Times:
    """Open the page, then the page with a link to a chain, and search."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise UsageError("chromium is needed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(_WATCH)
        page.goto(url)
        page.wait_for_selector("html[data-search=ready]", state="attached")
        marks = [page.evaluate(_MARK, name) for name in ("list-ready", "search-ready")]
        longest = page.evaluate("longest") / 1000
        find, found = page.evaluate(_FIND, word), page.inner_text("#status")
        linked = browser.new_page(viewport={"width": 1280, "height": 900})
        linked.goto(f"{url}#chain={chain}")
        linked.wait_for_selector(f"html[data-chain='{chain}']", state="attached")
        link = linked.evaluate(_MARK, "chain-open")
        browser.close()
    return Times(marks[0], link, marks[1], longest, find, found)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="The report of a large run.")
    parser.add_argument("--chains", type=int, default=CHAINS)
    parser.add_argument("--words", type=int, default=110, help="mean words of a text")
    args = parser.parse_args()
    third = args.chains // 3
    # Two chains are of dropped prompts.
    sizes = Sizes(args.chains - 2 * third - 2, third, third, args.words)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder, "run"), sizes)
        rows = sum(path.stat().st_size for path in run.rglob("*.jsonl")) / 1e6
        started, target = time.monotonic(), run / "report.html"
        write_report(RunFolder(run), target)
        seconds, size = time.monotonic() - started, target.stat().st_size / 1e6
        row = [row for _, row in read_jsonl(run / "4_rl_cai" / "comparisons.jsonl")][-1]
        word = row["candidates"][0]["text"].split()[0]
        times = visit(target.as_uri(), row["id"], f"{word} {row['candidates'][1]['text'].split()[0]}")
    return show(
        "Report",
        [
            Figure(
                f"{args.chains:,} chains, {rows:.0f} MB of rows: file",
                f"{size:.1f} MB",
                f"<= {MEGABYTES:g} MB",
                size <= MEGABYTES,
            ),
            Figure("written in", f"{seconds:.1f} s, {process_figure('status', 'VmHWM') * 1024 / 1e6:.0f} MB"),
            Figure("list ready", f"{times.list:.2f} s", f"<= {LIST_S:g} s", times.list <= LIST_S),
            Figure("linked chain open", f"{times.link:.2f} s", f"<= {LINK_S:g} s", times.link <= LINK_S),
            Figure("search ready", f"{times.search:.2f} s", f"<= {SEARCH_S:g} s", times.search <= SEARCH_S),
            Figure("longest task until then", f"{times.longest:.2f} s", f"<= {TASK_S:g} s", times.longest <= TASK_S),
            Figure("a search of two words", f"{times.find:.2f} s ({times.found})"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
