# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a model server, in a process of its own: OpenAI's protocol, continuous batching, faults on demand.

with standin("--slots", "64", "--fault", "500=0.01") as server:
    OpenAIClient(server.url, "standin")
    server.stats()["repeated"]
"""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent.parent
_LEAVE_S = 5.0
"""Seconds that the process has to end by itself."""


@dataclass(frozen=True)
class Running:
    """A stand-in that serves. `url` is what a client is given."""

    url: str
    process: subprocess.Popen[str]

    def stats(self) -> dict[str, Any]:
        """What it has counted, see `server.StandIn.stats`."""
        return self._call("/stats")

    def reset(self) -> None:
        """Count anew; the prefix cache stays as it is."""
        self._call("/reset", {})

    def go_away(self, seconds: float, how: str = "closed") -> None:
        """Be away from now on: "closed" neither listens nor keeps a connection, "503" answers with that status."""
        self._call("/away", {"seconds": seconds, "how": how})

    def leave(self, count: int, seconds: float) -> None:
        """Let so many servers of a pool leave for a while."""
        self._call("/leave", {"count": count, "seconds": seconds})

    def _call(self, path: str, body: Any = None) -> Any:
        # Not through http_proxy: the server is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = None if body is None else json.dumps(body).encode()
        with opener.open(self.url.removesuffix("/v1") + path, data, timeout=30) as response:
            return json.load(response)


@contextmanager
def standin(*options: str) -> Generator[Running, None, None]:
    """A stand-in with these options of ``python -m benchmarks.standin``, which ends with the block or the caller."""
    with _started("benchmarks.standin", "--until-input-ends", *options) as server:
        yield server


@contextmanager
def standin_pool(folder: Path, *options: str) -> Generator[Running, None, None]:
    """Many stand-ins that write their addresses into a folder, with these options of `benchmarks.standin.pool`."""
    with _started("benchmarks.standin.pool", str(folder), *options) as server:
        yield server


@contextmanager
def _started(module: str, *options: str) -> Generator[Running, None, None]:
    command = [sys.executable, "-m", module, *options]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the stand-in did not start: {' '.join(command)}")
            yield Running(url, process)
        finally:
            process.terminate()
            try:
                process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
