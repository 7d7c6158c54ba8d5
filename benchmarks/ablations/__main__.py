# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the arms one after another: ``python -m benchmarks.ablations --output DIR``.

Resumable: what is done is not repeated. The tables are written after each arm, and printed at the end.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablations.arms import ARMS, Arm, chosen
from benchmarks.ablations.page import Results
from benchmarks.ablations.running import run_arm
from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.commands.common.terminal import log_to_stderr, note_line
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.pipeline.config import load_run_config

MEASURED = 1000
"""Harmful held-out prompts, and as many benign ones: more than the quickstart's, since arms differ by little."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code, 1 if an arm or a control fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description="Findings in miniature.")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs and tables")
    parser.add_argument("--arms", nargs="+", default=[], metavar="ARM", help=", ".join(arm.name for arm in ARMS))
    parser.add_argument("--config", type=Path, default=packaged_files.QUICKSTART)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of every run, as for `cai quickstart`")
    args = parser.parse_args(argv)
    log_to_stderr()
    try:
        arms = chosen(args.arms)
        base = load_run_config(args.config, [f"data.tiny.measure={MEASURED}", *args.overrides])
    except UsageError as error:
        parser.error(str(error))
    done: list[Arm] = []
    failed: dict[str, CaiError] = {}
    for arm in arms:
        try:
            run_arm(arm, base, args.output)
        except CaiError as error:
            failed[arm.name] = error
            continue
        done.append(arm)
        Results(done, args.output).write(args.output)
    found = Results(done, args.output)
    found.show()
    for name, error in failed.items():
        note_line(f"arm {name} has no result: {error}")
    return int(bool(failed) or not found.controls_hold)


if __name__ == "__main__":
    sys.exit(main())
