# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A real Slurm of several nodes on this machine, for tests: slurmctld, one slurmd for each node, and munge.

Debian: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge. It needs root, listens on
loopback, and uses nothing of a Slurm that the machine has.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from tests.functional.processes import kill

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# The defaults are for clusters of thousands of nodes: a test must not wait.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,bf_hetjob_prio=min
KillWait=5
MinJobAge=3600
SlurmdTimeout=15
InactiveLimit=0
UnkillableStepTimeout=30
JobRequeue=1
# More nodes than the machine has cores.
SlurmdParameters=config_overrides
"""


def missing() -> str | None:
    """The reason for which a cluster cannot be started here; None if it can."""
    if os.geteuid() != 0:
        return "a Slurm for tests needs root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"Slurm is not installed here: no {', '.join(lacking)}" if lacking else None


def wait_for(condition: Callable[[], object], timeout_s: float, what: str = "the condition") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {timeout_s:.0f} s"
        time.sleep(0.1)


class Cluster:
    """A Slurm with the nodes n1, n2, ... in the partition `main`."""

    def __init__(self, folder: Path, *, nodes: int, cpus: int) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.env = os.environ | {"SLURM_CONF": str(self.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        with ExitStack() as stack:
            # All are bound at once, so that no two are the same.
            sockets = [stack.enter_context(socket.socket()) for _ in range(nodes + 1)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            port, *ports = (one.getsockname()[1] for one in sockets)
        host = socket.gethostname().partition(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={number} CPUs={cpus} RealMemory=4000"
            for node, number in zip(self.nodes, ports, strict=True)
        ]
        partition = f"PartitionName=main Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP"
        config = _CONFIG.format(host=host, port=port, folder=folder)
        self.conf.write_text("\n".join([config, *lines, partition, ""]))

    def start(self) -> None:
        """Start all daemons, and wait until the nodes are idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        files = {"key-file": key, "socket": self.folder / "munge.socket", "pid-file": self.folder / "munged.pid"}
        files |= {"log-file": self.folder / "munged.log", "seed-file": self.folder / "munge.seed"}
        self.run("munged", "--force", "--num-threads=1", *(f"--{name}={path}" for name, path in files.items()))
        self.run("slurmctld", "-c", "-f", str(self.conf))
        for node in self.nodes:
            self.start_node(node)
        wait_for(lambda: self.idle() == self.nodes, 60, "idle nodes")

    def start_node(self, node: str) -> None:
        """Start the daemon of one node."""
        self.run("slurmd", "-N", node, "-f", str(self.conf))

    def idle(self) -> list[str]:
        """The names of the idle nodes."""
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        return sorted(done.stdout.split())

    def run(self, *words: str) -> str:
        """The output of one of Slurm's commands, which must succeed."""
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def field(self, job: str, name: str) -> str:
        """One field of `scontrol show job`, such as JobState; of its first component, if there are several."""
        words = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()[0].split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def start_now(self, job: str) -> None:
        """Start a requeued job, which Slurm lets wait for two minutes."""
        wait_for(lambda: self.field(job, "JobState") == "PENDING", 60, f"job {job} in the queue")
        # A node refuses a job of the same id whose credential is of the second in which the last one was revoked.
        time.sleep(2)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def kill_node(self, node: str) -> None:
        """End a node at once, with all that runs on it."""
        daemon = int((self.folder / f"slurmd-{node}.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        for step in self._step_daemons():
            if self._node_of(step) == node:
                # The machine is gone: no process has time to end in order.
                kill([*step.children(recursive=True), step])
        (self.folder / f"slurmd-{node}.pid").unlink(missing_ok=True)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def stop(self) -> None:
        """Cancel all jobs and end all daemons."""
        subprocess.run(["scancel", "--user=root"], env=self.env, capture_output=True, timeout=60, check=False)
        for name in (*(f"slurmd-{node}" for node in self.nodes), "slurmctld", "munged"):
            path = self.folder / f"{name}.pid"
            if path.is_file() and psutil.pid_exists(pid := int(path.read_text())):
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    process.terminate()
                    kill(psutil.wait_procs([process], timeout=20)[1])
        kill(self._step_daemons())

    def _step_daemons(self) -> list[psutil.Process]:
        """The daemons of this cluster's steps; each outlives its slurmd, and has its configuration's path."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter(["name"]):
            try:
                # Its title has overwritten the first variables, at which psutil's own reader stops.
                environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if process.name() == "slurmstepd" and f"SLURM_CONF={self.conf}".encode() in environment:
                    found.append(process)
            except (psutil.NoSuchProcess, OSError):
                continue
        return found

    def _node_of(self, step: psutil.Process) -> str:
        """The node on which a step runs: its tasks know it."""
        for process in step.children(recursive=True):
            try:
                if node := process.environ().get("SLURMD_NODENAME"):
                    return node
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return ""
