# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster of several nodes on this machine, each a `ray start` of its own with its own loopback address."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nemo_aligner_cai.training.launch.jobs import free_port
from tests.functional.processes import kill

_ROOT = Path(__file__).resolve().parents[2]
_RAY = Path(sysconfig.get_path("scripts"), "ray")
_ENV = {
    # A node that is gone is noticed within seconds.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "0",
    # The tests' machine may be full of other work.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_register_timeout_seconds": "120",
    "OMP_NUM_THREADS": "1",
}
_WORKER_PORTS = 1000
_START_SECONDS = 60


@dataclass
class Node:
    """A node: `ray start --block` and all that it has started."""

    address: str
    process: "subprocess.Popen[bytes]"
    family: list[psutil.Process] = field(default_factory=list[psutil.Process])

    def processes(self) -> list[psutil.Process]:
        """All processes of the node that still run."""
        if self.process.poll() is None:
            own = psutil.Process(self.process.pid)
            self.family = list({one.pid: one for one in (*self.family, own, *own.children(recursive=True))}.values())
        return [one for one in self.family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def kill(self) -> None:
        """End it without a warning, as a machine that loses its power."""
        kill(self.processes())
        self.process.wait()


@dataclass
class Cluster:
    """A running cluster; `address` is what `--ray` is given."""

    address: str
    nodes: list[Node]


@contextmanager
def ray_cluster(folder: Path, *, nodes: int, cpus: int) -> Generator[Cluster]:
    """Start nodes at 127.0.0.2 and the addresses that follow; 127.0.0.1 would be replaced by the outer address.

    `folder` needs a short path: Ray's sockets are below it, and the name of one may have 107 bytes.
    """
    port = free_port()
    head = f"127.0.0.2:{port}"
    cluster = Cluster(head, [])
    try:
        for number in range(nodes):
            role = (
                ["--head", f"--port={port}", "--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
                if not number
                else [f"--address={head}"]
            )
            first = 11_000 + _WORKER_PORTS * number
            command = [
                *(sys.executable, str(_RAY), "start", *role, f"--node-ip-address=127.0.0.{2 + number}", "--block"),
                *(f"--min-worker-port={first}", f"--max-worker-port={first + _WORKER_PORTS - 1}"),
                *(f"--num-cpus={cpus}", f"--object-store-memory={100 << 20}", "--disable-usage-stats"),
                *([f"--temp-dir={folder}"] if not number else []),
            ]
            with (folder / f"node{number}.log").open("wb") as log:
                env = os.environ | _ENV | {"PYTHONPATH": str(_ROOT)}
                process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
            cluster.nodes.append(Node(f"127.0.0.{2 + number}", process))
            # One after the other: a node that starts has half a minute to be known.
            _wait_for(cluster.nodes[-1], folder / f"node{number}.log")
            cluster.nodes[-1].processes()
        yield cluster
    finally:
        for node in reversed(cluster.nodes):
            node.processes()
            node.process.send_signal(signal.SIGTERM)
        left = psutil.wait_procs([one for node in cluster.nodes for one in node.processes()], timeout=10)[1]
        kill(left)


def _wait_for(node: Node, log: Path) -> None:
    """Wait until `ray start` says that the node is part of the cluster."""
    end = time.monotonic() + _START_SECONDS
    while "Ray runtime started" not in log.read_text(encoding="utf-8"):
        assert node.process.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.1)
