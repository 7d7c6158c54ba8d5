# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs all arms: ``python -m benchmarks.ablations --output DIR``.

Resumable: what is done is not repeated. The tables are written after each arm, and printed at the end.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablations.arms import ARMS, chosen
from benchmarks.ablations.page import Results
from benchmarks.ablations.running import run_arms
from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.commands.common.terminal import log_to_stderr, note_line
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import load_run_config

MEASURED = 1000
"""Harmful held-out prompts, and as many benign ones: more than the quickstart's, since arms differ by little."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code, 1 if an arm or a control fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description="Findings in miniature.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and tables")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help=", ".join(arm.name for arm in ARMS))
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="arms that run at once, of 4 GiB each")
    parser.add_argument("--config", type=Path, default=packaged_files.QUICKSTART)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every run, as for `cai quickstart`")
    args = parser.parse_args(argv)
    log_to_stderr()
    try:
        arms = chosen(args.arms)
        base = load_run_config(args.config, [f"data.tiny.measure={MEASURED}", *args.overrides])
    except UsageError as error:
        parser.error(str(error))
    # Arms that run at once have a share of the processors each.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // args.workers)))
    started, errors = time.monotonic(), dict[str, str | None]()

    def results() -> Results:
        return Results([arm for arm in arms if errors.get(arm.name, "") is None], args.output)

    for arm, error in run_arms(arms, base, args.output, workers=args.workers):
        errors[arm.name] = error
        minutes = (time.monotonic() - started) / 60
        note_line(f"{minutes:.0f} min, {len(errors)} of {len(arms)}: {arm.name} {'failed' if error else 'is done'}")
        results().write(args.output)
    found = results()
    found.show()
    for name, error in errors.items():
        if error is not None:
            note_line(f"arm {name} has no result: {error}")
    return int(any(errors.values()) or not found.controls_hold)


if __name__ == "__main__":
    sys.exit(main())
