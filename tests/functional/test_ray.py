# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`--ray` on a real cluster of three nodes, one of which is lost: only calls that were in flight are repeated."""

import re
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from benchmarks.command import SlCai
from benchmarks.standin import standin
from benchmarks.workload import CALLS
from tests.functional.ray_cluster import Cluster, Node, ray_cluster

pytest.importorskip("ray", reason="Ray comes with the extra ray")
ROWS, NODES, CPUS, SHARDS, CONCURRENCY = 200, 3, 2, 9, 4
REPLIES = ("--median-tokens", "60", "--sigma", "0.6", "--cache-tokens", "0", "--prefill-seconds", "0")


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    # Sockets have short names, so not below pytest's folder.
    with tempfile.TemporaryDirectory(prefix="ray") as folder, ray_cluster(Path(folder), nodes=NODES, cpus=CPUS) as one:
        yield one


def is_at_work(node: Node) -> bool:
    """Tell whether a shard's journal on this node has calls, so that others are in flight."""
    journals = (
        Path(file.path)
        for one in node.processes()
        if one.name().startswith("ray::")
        for file in one.open_files()
        if file.path.endswith(".journal.jsonl")
    )
    return any(b'"kind":"call"' in journal.read_bytes() for journal in journals)


def test_a_lost_node_costs_its_calls_in_flight(cluster: Cluster, tmp_path: Path) -> None:
    with standin(*REPLIES, "--time-scale", "0") as server:
        whole = SlCai(tmp_path / "whole", server.url).prepare(ROWS)
        assert whole.run() == 0, whole.said()
    with standin(*REPLIES, "--slots", "12", "--token-seconds", "0.004") as server:
        run = SlCai(tmp_path / "ray", server.url, concurrency=CONCURRENCY).prepare(ROWS)
        process = run.start("--ray", cluster.address, "--shards", str(SHARDS))
        while (lost := next(filter(is_at_work, cluster.nodes[1:]), None)) is None:
            assert process.poll() is None, run.said()
            time.sleep(0.1)
        lost.kill()
        assert process.wait() == 0, run.said()
        stats = server.stats()
        assert run.outputs() == whole.outputs()
        assert stats["contents"] == CALLS * ROWS
        assert 0 < stats["repeated"] <= CPUS * CONCURRENCY
        ended = re.findall(r"shard (\d+)/9 ended on ([\d.]+): (\d+) calls", run.said())
        assert sorted(int(shard) for shard, _, _ in ended) == list(range(SHARDS))
        assert lost.address not in {node for _, node, _ in ended} and not lost.processes()
        # With another number of shards, on the nodes that are left: every call is in a journal.
        assert run.run("--ray", cluster.address, "--shards", "2", "--resume") == 0, run.said()
        assert server.stats()["requests"] == stats["requests"]
    assert run.outputs() == whole.outputs()
    # The cluster's machines do not know the key: the task's error in one line, and no merge.
    assert run.run("--ray", cluster.address, "--shards", "1", "--resume", "--api-key-env", "NO_SUCH_KEY") == 1
    last = run.said().splitlines()[-1]
    assert "shard 0/1 on 127.0.0." in last and "NO_SUCH_KEY" in last
