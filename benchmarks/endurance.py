# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""An hour of SL-CAI and RL-CAI under random faults: no row lost, doubled or wrong, and no growth of memory or files.

Four workers run the real commands at the same time against two stand-ins, a policy and a judge:

    steady SL-CAI, steady RL-CAI   one process each for the whole time, whose memory and open files are watched
    killed SL-CAI, killed RL-CAI   killed (SIGKILL) every 20 to 60 s and resumed, one run after the other

Meanwhile the stand-ins answer with 429, 500, 503, closed connections, garbage, half and empty bodies, late and never,
and are themselves killed and started again. When the time is up, both are started without faults, so that all runs
end; then each row is compared with the one that is due (`benchmarks.oracle`).
"""

import argparse
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, cast

from scipy.stats import theilslopes  # pyright: ignore[reportUnknownVariableType]

from benchmarks.command import RlCai, SlCai
from benchmarks.oracle import Findings, check
from benchmarks.standin import Running, standin
from benchmarks.standin.replies import Lengths
from benchmarks.table import Figure, show

MEGABYTES, FILES, WATCHED = 4.0, 2.0, 0.9
"""Bars: growth of memory and of open files of a process over its time, and the part of the time it was at work."""
LEAST_MINUTES = 5.0
"""In a shorter run a process is still filling its caches: its growth is shown, but has no bar."""
LENGTHS = Lengths(median=60.0, sigma=0.6, most=300)
CONCURRENCY = 8
_REPLIES = (
    *("--median-tokens", f"{LENGTHS.median:g}", "--sigma", f"{LENGTHS.sigma:g}", "--most-tokens", str(LENGTHS.most)),
    *("--cache-tokens", "0", "--prefill-seconds", "0"),
)
_PACE = ("--slots", str(4 * CONCURRENCY), "--token-seconds", "0.02")
_FAULTS = {
    **dict.fromkeys(("500", "503", "reset", "slow"), 0.01),
    **dict.fromkeys(("429", "malformed", "truncated", "utf8"), 0.005),
    "empty": 0.002,
    "hang": 0.0005,
}
"""Shares of the attempts. Three empty answers in a row are taken for the model's, and the oracle has none: the
shares make that an event of one hour in a thousand."""
_TIMEOUT_S = 20.0
_PROMPTS_PER_MINUTE = {"SL-CAI": 115, "RL-CAI": 58}
"""More than a client can finish at that pace, so that none is done before the time is up."""
_RUN_MINUTES = 5.0
"""Size of the runs that are killed."""
_WARM_UP = 0.2
"""Part of a process's time that does not count: its caches are filled."""
_POINTS = 60
"""Medians over equal times, through which the slope is laid: a single sample may fall into a burst."""
_PROBE_FAILED = "the judge does not answer"
_END_S = 900.0
"""Seconds that a run may take to its end without faults."""
_NEVER_ENDED = 124
"""Stands for the exit code of a command that did not, as `timeout` has it."""


class Server:
    """A stand-in that is killed and started again at its address."""

    def __init__(self, *options: str) -> None:
        """Start it."""
        self._options, self._files, self._port = options, ExitStack(), _free_port()
        self.restarts = 0
        self._running = self._start(options)
        self.url = self._running.url
        self.faults: Counter[str] = Counter()
        self.answered = 0

    def _start(self, options: Sequence[str]) -> Running:
        # With the same faults after each start, a reply could be empty three times because of two restarts.
        always = ("--port", str(self._port), "--fault-seed", str(self.restarts))
        return self._files.enter_context(standin(*always, *options))

    def restart(self, away: float, options: Sequence[str] | None = None) -> None:
        """Kill it, and start it again after so many seconds, with other options if they are given."""
        with suppress(OSError):
            stats = self._running.stats()
            self.faults.update(stats["faults"])
            self.answered += stats["answered"]
        self._running.process.kill()
        self._files.close()
        time.sleep(away)
        self.restarts += 1
        self._running = self._start(self._options if options is None else options)

    def close(self) -> None:
        """End it."""
        self._files.close()


def _free_port() -> int:
    """A free port below those that Linux gives to clients: one of those might get it while the server is away."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port between 20000 and 30000")


@dataclass
class Watched:
    """Memory (resident set, in MB) and open files of one process, by its age in seconds."""

    samples: list[tuple[float, float, int]] = field(default_factory=list[tuple[float, float, int]])

    def add(self, started: float, process: "Popen[str]") -> None:
        """Take a sample, unless the process is over."""
        folder = Path("/proc", str(process.pid))
        try:
            lines = (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()
            files = sum(1 for _ in (folder / "fd").iterdir())
        except (OSError, UnicodeDecodeError):
            return
        rss = [int(line.split()[1]) for line in lines if line.startswith("Rss:")]
        if rss:
            self.samples.append((time.monotonic() - started, rss[0] * 1024 / 1e6, files))

    def growth(self, column: int) -> tuple[float, float, float]:
        """Growth of a column over the time after the warm-up, and its 95 % interval, by the Theil-Sen slope."""
        last = self.samples[-1][0]
        kept = [sample for sample in self.samples if sample[0] >= _WARM_UP * last]
        size = max(1, len(kept) // _POINTS)
        groups = [kept[start : start + size] for start in range(0, len(kept) - size + 1, size)]
        times, values = ([sorted(s[i] for s in group)[len(group) // 2] for group in groups] for i in (0, column))
        slope = cast(Any, theilslopes)(values, times, 0.95)
        seconds = times[-1] - times[0]
        return slope.slope * seconds, slope.low_slope * seconds, slope.high_slope * seconds

    def most(self, column: int) -> float:
        """The largest value of a column."""
        return max(sample[column] for sample in self.samples)


class Moments:
    """Random times between two disturbances: 20 to 60 s, and less in a run of less than three minutes."""

    def __init__(self, seed: str, minutes: float) -> None:
        """`minutes` is the length of the run."""
        self._rng, self._scale = random.Random(seed), min(1.0, minutes / 3)

    def next(self) -> float:
        """Seconds until the next disturbance."""
        return self._scale * self._rng.uniform(20, 60)

    def away(self) -> float:
        """Seconds for which a server is away."""
        return self._scale * self._rng.uniform(0.5, 8)

    def choose(self, servers: Sequence[Server]) -> Server:
        """Choose the server that is disturbed."""
        return self._rng.choice(servers)


class Worker(threading.Thread):
    """Runs of one command: one that nobody disturbs, or one after the other that are killed and resumed."""

    def __init__(
        self, name: str, make: Callable[[int], SlCai], over: threading.Event, moments: "Moments | None" = None
    ) -> None:
        """`make(number)` prepares a run; `moments` are those of the kills, None kills nothing."""
        super().__init__(name=name)
        self._make, self._over, self._moments = make, over, moments
        self.runs: list[SlCai] = []
        self.kills = self.probes_failed = 0
        self.watched = Watched()
        self.error = ""

    def run(self) -> None:
        """Until the time is up and the last run has ended."""
        while not self.error and (not self.runs or (self._moments is not None and not self._over.is_set())):
            self.runs.append(self._make(len(self.runs)))
            self._finish(self.runs[-1])

    def _finish(self, run: SlCai) -> None:
        started_before = False
        while True:
            code = self._process(run, "--resume" if started_before else "--overwrite")
            started_before = True
            if code == 0:
                return
            if code == 1 and run.said().rstrip().splitlines()[-1].find(_PROBE_FAILED) >= 0:
                # Before its first paid call the command asks the judge twice, and ends if it gets no answer.
                self.probes_failed += 1
            elif code != -9:
                self.error = f"{self.name}: exit code {code}\n{run.said()[-3000:]}"
                return

    def _process(self, run: SlCai, *options: str) -> int:
        started = time.monotonic()
        process = run.start(*options, "--request-timeout", f"{_TIMEOUT_S:g}", "--max-dropped", "0")
        moment = started + self._moments.next() if self._moments else None
        try:
            while process.poll() is None:
                if moment is None:
                    self.watched.add(started, process)
                elif time.monotonic() >= moment and not self._over.is_set():
                    process.kill()
                    self.kills += 1
                if self._over.wait(0.5 if moment is not None else 1.0):
                    # The end of a run is not watched: without faults it works at another pace.
                    process.wait(_END_S)
            return process.wait()
        except TimeoutExpired:
            return _NEVER_ENDED
        finally:
            process.kill()


def _disturb(servers: Sequence[Server], seconds: float, moments: Moments, workers: Sequence[Worker]) -> None:
    """Kill and restart the stand-ins at random moments, until the time is up or a worker has failed."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not any(worker.error for worker in workers):
        time.sleep(min(left, moments.next()))
        if time.monotonic() < end:
            moments.choose(servers).restart(moments.away())


@dataclass
class Outcome:
    """The end of a benchmark: its workers and servers, the seconds under faults, and what became of the rows."""

    workers: Sequence[Worker]
    servers: Sequence[Server]
    seconds: float
    found: Findings = field(default_factory=Findings)

    @property
    def errors(self) -> list[str]:
        """A message of each command that has failed."""
        return [worker.error for worker in self.workers if worker.error]

    @property
    def faults(self) -> Counter[str]:
        """The faults of the stand-ins."""
        return self.servers[0].faults + self.servers[1].faults

    @property
    def restarts(self) -> int:
        """Restarts of a server under faults; one more of each ends the faults."""
        return sum(server.restarts for server in self.servers) - len(self.servers)

    @property
    def kills(self) -> int:
        """Kills of a client."""
        return sum(worker.kills for worker in self.workers)


def endure(folder: Path, minutes: float, seed: int) -> Outcome:
    """Run everything in a folder."""
    faults = [part for kind, share in _FAULTS.items() for part in ("--fault", f"{kind}={share}")]
    servers = [Server(*_REPLIES, *_PACE, *faults, "--retry-after", "0.5", "--slow-seconds", "5") for _ in range(2)]
    policy, judge = servers
    over = threading.Event()

    def sl(name: str) -> SlCai:
        return SlCai(folder / name, policy.url, CONCURRENCY)

    def rl(name: str) -> SlCai:
        return RlCai(folder / name, policy.url, CONCURRENCY, judge_url=judge.url)

    def steady(make: Callable[[str], SlCai], kind: str, first: int) -> Callable[[int], SlCai]:
        prompts = round(_PROMPTS_PER_MINUTE[kind] * minutes)
        return lambda number: make(f"steady {kind}").prepare(prompts, first=first)

    def killed(make: Callable[[str], SlCai], kind: str, first: int) -> Callable[[int], SlCai]:
        prompts = round(_PROMPTS_PER_MINUTE[kind] * min(_RUN_MINUTES, minutes))
        return lambda number: make(f"killed {kind} {number}").prepare(prompts, first=first + number * prompts)

    million = 1_000_000
    workers = [
        Worker("steady SL-CAI", steady(sl, "SL-CAI", 0), over),
        Worker("steady RL-CAI", steady(rl, "RL-CAI", million), over),
        Worker("killed SL-CAI", killed(sl, "SL-CAI", 2 * million), over, Moments(f"{seed} SL-CAI", minutes)),
        Worker("killed RL-CAI", killed(rl, "RL-CAI", 3 * million), over, Moments(f"{seed} RL-CAI", minutes)),
    ]
    started = time.monotonic()
    try:
        for worker in workers:
            worker.start()
        _disturb(servers, 60 * minutes, Moments(f"{seed}", minutes), workers)
        seconds = time.monotonic() - started
        over.set()
        for server in servers:
            server.restart(0.0, (*_REPLIES, "--time-scale", "0"))
        for worker in workers:
            worker.join(2 * _END_S)
    finally:
        over.set()
        for server in servers:
            server.close()
    outcome = Outcome(workers, servers, seconds)
    for worker in workers if not outcome.errors else ():
        for run in worker.runs:
            outcome.found = outcome.found.plus(check(run, LENGTHS))
    return outcome


def report(outcome: Outcome) -> int:
    """Print all figures; returns the exit code."""
    workers, errors = outcome.workers, outcome.errors
    sys.stderr.write("".join(f"{error}\n" for error in errors))
    flat = [figure for worker in workers[:2] for figure in _flat(worker.name, worker.watched, outcome.seconds)]
    return show(
        f"{outcome.seconds / 60:.1f} minutes under faults",
        [*_rows(outcome.found, errors), *flat],
        notes=_notes(outcome),
    )


def _rows(found: Findings, errors: Sequence[str]) -> list[Figure]:
    return [
        Figure("commands that failed", str(len(errors)), "0", not errors),
        Figure("prompts", f"{found.due:,}", "> 0", found.due > 0),
        Figure("rows", f"{found.rows:,}; {found.left_out:,} prompts give no training row, by their content"),
        *(
            Figure(f"rows {name}", str(count), "0", count == 0)
            for name, count in (
                ("lost", found.lost),
                ("doubled", found.doubled),
                ("mislabeled", found.mislabeled),
            )
        ),
    ]


def _flat(name: str, watched: Watched, seconds: float) -> list[Figure]:
    share = watched.samples[-1][0] / seconds
    has_bars = seconds >= 60 * LEAST_MINUTES
    figures = [Figure(f"{name}: part of the time at work", f"{share:.0%}", f">= {WATCHED:.0%}", share >= WATCHED)]
    for column, what, unit, bar in ((1, "memory", " MB", MEGABYTES), (2, "open files", "", FILES)):
        growth, low, high = watched.growth(column)
        text = f"{growth:+.2f}{unit} ({low:+.2f} to {high:+.2f}), at most {watched.most(column):.0f}"
        limit = f"<= {bar:g}{unit}" if has_bars else ""
        figures.append(Figure(f"{name}: growth of {what}", text, limit, growth <= bar or not has_bars))
    return figures


def _notes(outcome: Outcome) -> list[str]:
    return [
        f"{sum(server.answered for server in outcome.servers):,} answers; faults: "
        + ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.faults.items())),
        f"{outcome.restarts} restarts of a server, {outcome.kills} kills of a client in "
        f"{sum(len(worker.runs) for worker in outcome.workers[2:])} runs, "
        f"{sum(worker.probes_failed for worker in outcome.workers)} starts ended because the judge did not answer",
        f"memory is the resident set; growth by the Theil-Sen slope without the first {_WARM_UP:.0%} of the time",
    ]


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description="Data under random faults.")
    parser.add_argument("--minutes", type=float, default=60.0, help="of faults (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kills and restarts (default: 1)")
    parser.add_argument("--output", type=Path, help="keep everything in this folder")
    args = parser.parse_args()
    if args.output is not None:
        args.output.mkdir(parents=True)
        return report(endure(args.output, args.minutes, args.seed))
    with tempfile.TemporaryDirectory() as folder:
        return report(endure(Path(folder), args.minutes, args.seed))


if __name__ == "__main__":
    sys.exit(main())
