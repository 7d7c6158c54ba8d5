# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""``python -m tests.fuzz --minutes 60``: look for inputs that break a parser, target by target.

The stored inputs are changed at random; with ``--atheris``, where it is installed, coverage guides the search, and
each target gets an equal part of the time. A fault's input is written into ``--found``.
"""

import argparse
import hashlib
import logging
import subprocess
import sys
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import CORPUS, TARGETS, corpus, run


def _by_hypothesis(names: list[str], minutes: float, found: Path) -> int:
    end, rounds, faults = time.monotonic() + 60 * minutes, 0, 0
    while time.monotonic() < end:
        rounds += 1
        for name in names:
            faults += _round(name, rounds, found)
    print(f"{rounds} rounds of 200 inputs for each of {len(names)} targets: {faults} faults")  # noqa: T201
    return int(faults > 0)


def _round(name: str, number: int, found: Path) -> int:
    last = [b""]

    @seed(number)
    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType]
    )
    @given(mutated([path.read_bytes() for path in corpus(name)]))
    def search(data: bytes) -> None:
        last[0] = data
        run(name, data)

    try:
        search()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        path = found / name / hashlib.sha256(last[0]).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(last[0])
        traceback.print_exc(limit=-3)
        print(f"{path}: {type(error).__name__}: {error}")  # noqa: T201
        return 1
    return 0


def _by_atheris(names: list[str], minutes: float, found: Path) -> int:
    faults = 0
    for name in names:
        # libFuzzer writes new inputs into the first folder, and only reads the second.
        new = found / "corpus" / name
        new.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={max(1, round(60 * minutes / len(names)))}", f"-artifact_prefix={found}/{name}-"]
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *options, "-timeout=300", "-verbosity=0"]
        faults += subprocess.run([*command, str(new), str(CORPUS / name)], check=False).returncode != 0
        print(f"{name}: {len(list(new.iterdir()))} new inputs in {new}")  # noqa: T201
    print(f"{len(names)} targets, {faults} with a fault; its input is in {found}")  # noqa: T201
    return int(faults > 0)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", choices=TARGETS, help="default: all in turn")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; needs `pip install atheris`")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="folder for inputs that break a parser")
    args = parser.parse_args()
    logging.disable()
    search = _by_atheris if args.atheris else _by_hypothesis
    return search([args.target] if args.target else list(TARGETS), args.minutes, args.found)


if __name__ == "__main__":
    sys.exit(main())
