# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.standin.pool``: many stand-ins in one process, which leave and come back.

Each has an address of its own (127.77.x.y) and, while it is healthy, a file with its URL in a folder, as the jobs of a
cluster write it. Every second server that leaves is stopped, as by Slurm: its file goes, then its connections break,
and another one comes. The others are killed, as by a power failure: their files stay, and they return.

GET  /stats   see `Pool.stats`
POST /leave   {"count": 3, "seconds": 2}: so many servers leave now
"""

import argparse
import asyncio
import random
import signal
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from benchmarks.standin.connection import Connection
from benchmarks.standin.replies import Lengths
from benchmarks.standin.server import HOST, StandIn
from benchmarks.standin.slots import Pace

_SAMPLE_S = 1.0


@dataclass
class _Member:
    """A server and its file."""

    server: StandIn
    file: Path
    came: float = 0.0
    is_away: bool = False


class Pool:
    """The servers; everything happens in the event loop that is running."""

    def __init__(self, folder: Path, *, size: int, pace: Pace, lengths: Lengths) -> None:
        """Nothing listens yet."""
        self._folder, self._size, self._pace, self._lengths = folder, size, pace, lengths
        self._members: list[_Member] = []
        self._numbers = count()
        self._rng = random.Random(1)
        self._departures = 0
        self._offered = 0.0
        self._gone: list[StandIn] = []
        self._samples: list[tuple[float, float, float, int]] = []
        self._tasks = set[asyncio.Task[None]]()

    async def start(self) -> None:
        """Let all servers listen and write their files."""
        for _ in range(self._size):
            await self._join()

    async def _join(self) -> None:
        number = next(self._numbers)
        server = StandIn(pace=self._pace, lengths=self._lengths, host=f"127.77.{number // 250}.{number % 250 + 1}")
        member = _Member(server, self._folder / f"4711.{number}")
        self._members.append(member)
        await self._open(member)

    async def _open(self, member: _Member) -> None:
        await member.server.start()
        member.came, member.is_away = asyncio.get_running_loop().time(), False
        temporary = member.file.with_suffix(".tmp")
        temporary.write_text(member.server.url + "\n")
        temporary.rename(member.file)

    async def leave(self, seconds: float) -> None:
        """Let one server leave for so long."""
        member = self._rng.choice([member for member in self._members if not member.is_away])
        is_stopped = self._departures % 2 == 0
        self._departures += 1
        member.is_away = True
        self._offered += self._pace.slots * (asyncio.get_running_loop().time() - member.came)
        if is_stopped:
            member.file.unlink()
            self._members.remove(member)
            self._gone.append(member.server)
        member.server.close()
        await asyncio.sleep(seconds)
        await (self._join() if is_stopped else self._open(member))

    async def churn(self, *, share_per_minute: float, seconds: float) -> None:
        """Let servers leave, one after the other, without end."""
        while share_per_minute:
            await asyncio.sleep(60.0 / (share_per_minute * self._size))
            self.spawn(1, seconds)

    def spawn(self, servers: int, seconds: float) -> None:
        """Let several servers leave at once."""
        for _ in range(servers):
            task = asyncio.ensure_future(self.leave(seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def sample(self) -> None:
        """Note every second how much of the slots is in use, without end."""
        while True:
            await asyncio.sleep(_SAMPLE_S)
            self._samples.append(self._sample())

    def _sample(self) -> tuple[float, float, float, int]:
        now = asyncio.get_running_loop().time()
        present = sum(now - member.came for member in self._members if not member.is_away)
        servers = [*self._gone, *(member.server for member in self._members)]
        offered = self._offered + self._pace.slots * present
        return now, sum(server.slot_seconds for server in servers), offered, sum(server.answered for server in servers)

    def stats(self) -> dict[str, Any]:
        """What happened so far.

        ``samples`` are [time, slot-seconds in use, slot-seconds of the servers present, requests answered], once a
        second; ``contents`` are the different requests, over all servers.
        """
        servers = [*self._gone, *(member.server for member in self._members)]
        return {
            "samples": [*self._samples, self._sample()],
            "departures": self._departures,
            "requests": sum(server.requests for server in servers),
            "answered": sum(server.answered for server in servers),
            "contents": len({content for server in servers for content in server.contents}),
        }

    def handle(self, connection: Connection, method: str, path: str, content: bytes) -> None:
        """Answer a request for figures, or a command."""
        if (method, path) == ("POST", "/leave"):
            command = orjson.loads(content)
            self.spawn(command["count"], command["seconds"])
            connection.send_json({})
        else:
            connection.send_json(self.stats())


async def _serve(args: argparse.Namespace) -> None:
    pace = Pace(slots=args.slots, token_seconds=args.token_seconds, prefill_seconds=0.0, cache_tokens=0)
    pool = Pool(args.folder, size=args.endpoints, pace=pace, lengths=Lengths(args.median_tokens, args.sigma, 1024))
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    loop.add_reader(sys.stdin, over.set)
    await pool.start()
    control = await loop.create_server(lambda: Connection(pool.handle, _ignore, _ignore), HOST, 0)
    churn = pool.churn(share_per_minute=args.leaving_per_minute, seconds=args.away_seconds)
    tasks = [asyncio.ensure_future(work) for work in (pool.sample(), churn)]
    sys.stdout.write(f"http://{HOST}:{control.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await over.wait()
    for task in tasks:
        task.cancel()


def _ignore(connection: Connection) -> None:
    """Connections to the control address are not counted."""


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.standin.pool", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the files with the addresses")
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=2, help="of each server")
    parser.add_argument("--token-seconds", type=float, default=0.05)
    parser.add_argument("--median-tokens", type=float, default=60.0)
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--leaving-per-minute", type=float, default=0.0, help="share of the servers")
    parser.add_argument("--away-seconds", type=float, default=20.0)
    asyncio.run(_serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
