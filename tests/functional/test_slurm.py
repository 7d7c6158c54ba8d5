# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai run` on a real Slurm of three nodes: disturbed jobs, and the same data as a run without Slurm."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.pipeline.layout import MEASURE, PPO, REWARD_MODEL, SFT, SL_CAI
from tests.documented import commands_of
from tests.functional import slurm_cluster
from tests.functional.slurm_cluster import Cluster, wait_for
from tests.functional.small_run import COMPARED, Runs, small_config
from tests.run_steps import STEPS
from tests.unit.fake_servers import FakeOpenAI

_STEP_S = 600

if (_reason := slurm_cluster.missing()) is not None:
    pytest.skip(_reason, allow_module_level=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    # A socket's path has at most 107 characters.
    made = Cluster(tmp_path_factory.mktemp("slurm"), nodes=3, cpus=2)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@dataclass(frozen=True)
class Login:
    """A login node: commands with an environment that names the cluster."""

    cluster: Cluster
    config: Path
    mark: str

    def cai(self, output: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run `cai run` with this configuration to its end."""
        program = [*before, sys.executable, "-m", "nemo_aligner_cai.cli", "run", str(self.config)]
        return subprocess.run(
            [*program, "--output", str(output), *arguments],
            env=self.cluster.env | {"CAI_TEST_MARK": self.mark},
            capture_output=True,
            text=True,
            timeout=_STEP_S,
            check=False,
        )

    def submit(self, output: Path, *arguments: str) -> dict[str, str]:
        """Submit; returns the id of each step's job."""
        done = self.cai(output, *arguments)
        assert done.returncode == 0, done.stderr
        return {step: ids[0] for step, ids in read_json(output / "slurm" / "jobs.json").items()}

    def state(self, output: Path) -> dict[str, str]:
        """Step -> what `--status` shows of it; "logs" -> what it shows of the logs of failed steps."""
        done = self.cai(output, "--status")
        assert done.returncode == 0, done.stderr
        rows, logs = done.stdout.splitlines()[1:], [line for line in done.stdout.splitlines() if ": " in line]
        steps = {line.split()[0]: line.split(maxsplit=1)[1] for line in rows if line not in logs}
        return steps | {"logs": "\n".join(logs)}


@pytest.fixture(scope="module")
def login(cluster: Cluster, runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Login:
    path = small_config(tmp_path_factory.mktemp("config"))
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    # The mark is passed like a secret: by its name.
    tree["executor"] = {"kind": "slurm", "gpus": None, "partition": "main", "secrets": ["CAI_TEST_MARK"]}
    tree["executor"]["preamble"] = ["export OMP_NUM_THREADS=1"]
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return Login(cluster, path, runs.mark)


@pytest.mark.timeout(2400)
def test_all_steps_end_with_the_same_data_whatever_happens_to_their_jobs(
    cluster: Cluster, login: Login, runs: Runs, tmp_path: Path
) -> None:
    local, output = tmp_path / "local", tmp_path / "run"
    reference = runs.start(login.config, local, "--executor", "local")
    ids = login.submit(output)
    assert list(ids) == list(STEPS)
    again = login.cai(output)
    assert again.returncode == 2 and f"scancel {ids[STEPS[0]]}" in again.stderr

    # One job is warned as before the end of its wall time, one is requeued by hand, and one loses its node.
    _under_way(cluster, output / SL_CAI, ids[SL_CAI], "*.journal.jsonl")
    cluster.run("scancel", "--batch", "--signal=USR1", ids[SL_CAI])
    cluster.start_now(ids[SL_CAI])
    _under_way(cluster, output / SFT, ids[SFT], "train/metrics.jsonl")
    cluster.run("scontrol", "requeue", ids[SFT])
    cluster.start_now(ids[SFT])
    _under_way(cluster, output / REWARD_MODEL, ids[REWARD_MODEL], "train/metrics.jsonl")
    node = cluster.field(ids[REWARD_MODEL], "NodeList")
    cluster.kill_node(node)
    cluster.start_node(node)
    cluster.start_now(ids[REWARD_MODEL])
    wait_for(lambda: node in cluster.idle() or cluster.field(ids[REWARD_MODEL], "NodeList") == node, 60, "the node")

    # PPO: the critic dies, and the run is submitted again from there; then its job is requeued.
    _under_way(cluster, output / PPO, ids[PPO], "train.log")
    _process(runs, "nemo_aligner_cai.training.critic_server").send_signal(signal.SIGKILL)
    wait_for(lambda: cluster.field(ids[PPO], "JobState") == "FAILED", 60, "the failure of PPO")
    log = (output / "slurm" / f"{PPO}-{ids[PPO]}.0.log").read_text()
    assert "cai: nemo_aligner_cai.training.critic_server ended with exit code" in log
    state = login.state(output)
    assert state[PPO].startswith("failed") and f"{PPO}: see {output / 'slurm' / PPO}" in state["logs"]
    assert state[MEASURE].startswith("failed") and cluster.field(ids[MEASURE], "JobState") == "CANCELLED"
    assert all(state[step].startswith("done") for step in STEPS[:5])
    runs.assert_none_left()
    ids |= login.submit(output)
    _under_way(cluster, output / PPO, ids[PPO], "train/metrics.jsonl", '"step": 2, "train_rollouts')
    nodes = {cluster.field(ids[PPO], "NodeList"), cluster.field(str(int(ids[PPO]) + 1), "NodeList")}
    assert len(nodes) == 2, "critic and actor are on different nodes"
    cluster.run("scontrol", "requeue", ids[PPO])
    cluster.start_now(ids[PPO])

    wait_for(lambda: cluster.field(ids[MEASURE], "JobState") not in ("PENDING", "RUNNING"), _STEP_S, "the last job")
    ended = login.state(output)
    assert not ended.pop("logs") and all(line.startswith("done") for line in ended.values()), ended
    restarts = {step: cluster.field(ids[step], "Restarts") for step in STEPS}
    assert [step for step in STEPS if restarts[step] == "1"] == [SL_CAI, SFT, REWARD_MODEL, PPO]
    for step in (SL_CAI, PPO):
        assert (output / "slurm" / f"{step}-{ids[step]}.1.log").is_file()
    assert read_json(output / "metrics.json")["stages"]
    runs.assert_none_left()

    printed, _ = reference.communicate(timeout=_STEP_S)
    assert reference.returncode == 0, printed
    for file in COMPARED:
        assert (output / file).read_bytes() == (local / file).read_bytes(), file


def _under_way(cluster: Cluster, folder: Path, job: str, sign: str, text: str = "") -> None:
    """Wait until the job of a step has done a part of its work."""

    def is_under_way() -> bool:
        state = cluster.field(job, "JobState")
        log = "".join(path.read_text() for path in folder.parent.glob(f"slurm/{folder.name}-{job}.*.log"))
        assert state in ("PENDING", "RUNNING"), f"{folder.name}: {state}: {log}"
        running = state == "RUNNING"
        return running and any(text in path.read_text("utf-8") for path in folder.glob(sign) if path.stat().st_size)

    wait_for(is_under_way, _STEP_S, folder.name)


def _process(runs: Runs, module: str) -> psutil.Process:
    """The process of a stage, not the srun that started it."""
    return next(process for process in runs.alive() if process.cmdline()[1:3] == ["-m", module])


def test_a_refused_partition_is_one_line_and_nothing_is_submitted(login: Login, tmp_path: Path) -> None:
    done = login.cai(tmp_path / "run", "executor.partition=nope")
    assert done.returncode == 2
    assert "Invalid partition name" in done.stderr and "executor.partition" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "slurm" / "jobs.json").exists()


def test_a_folder_that_the_nodes_do_not_see_is_one_line(login: Login, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("this machine does not allow another mount namespace")
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    done = login.cai(tmp_path / "run", before=("unshare", "--mount", "sh", "-c", script, str(tmp_path)))
    assert done.returncode == 2, done.stderr
    assert "does not see this folder" in done.stderr


def reply(body: dict[str, Any]) -> str:
    """Another text for each conversation, so that a revision differs from its answer."""
    return f"Reply {zlib.crc32(json.dumps(body['messages']).encode())}."


@pytest.mark.timeout(1800)
def test_a_step_in_shards_is_an_array_and_a_merge_that_makes_no_call(
    cluster: Cluster, login: Login, runs: Runs, tmp_path: Path
) -> None:
    local, output, folder = tmp_path / "local", tmp_path / "a run", tmp_path / "a run" / SL_CAI
    tree = yaml.safe_load(login.config.read_text(encoding="utf-8"))
    tree["executor"]["steps"] = {SL_CAI: {"shards": 2}}
    path = tmp_path / "shards.yaml"
    own = replace(login, config=path)
    with FakeOpenAI(reply) as server:
        endpoint = {"endpoint": f"http://127.0.0.1:{server.port}/v1", "model": "fake", "identity": "fake"}
        tree["models"] |= {"helpful_only": endpoint, "base": "tiny", "judge": "tiny"}
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        for step in STEPS[:2]:
            runs.finish(path, local, "--executor", "local", "--step", step)
        calls = len(server.bodies)
        data = own.submit(output, "--step", STEPS[0])[STEPS[0]]
        wait_for(lambda: cluster.field(data, "JobState") == "COMPLETED", _STEP_S, STEPS[0])
        own.submit(output, "--step", SL_CAI)
        array, merge = read_json(output / "slurm" / "jobs.json")[SL_CAI]
        wait_for(lambda: cluster.field(merge, "JobState") not in ("PENDING", "RUNNING"), _STEP_S, "the merge")
        logs = "".join(log.read_text() for log in sorted((output / "slurm").glob(f"{SL_CAI}-*.log")))
        assert cluster.field(merge, "JobState") == "COMPLETED", logs
        assert len(server.bodies) == 2 * calls > 0, "each call was made once"
    assert own.state(output)[SL_CAI].startswith("done")
    for file in ("revisions.jsonl", "train.jsonl", "validation.jsonl"):
        assert (folder / file).read_bytes() == (local / SL_CAI / file).read_bytes(), file
    journals = [folder / "revisions.shards" / f"{index}-of-2.journal.jsonl" for index in (0, 1)]
    assert all(b'"kind":"call"' in journal.read_bytes() for journal in journals)
    assert not (folder / "revisions.journal.jsonl").exists(), f"the merge of job {array} wrote none"
    runs.assert_none_left()


def test_a_chain_continues_what_it_must_and_no_more(cluster: Cluster, login: Login, tmp_path: Path) -> None:
    output = tmp_path / "run"
    login.submit(output, "--step", STEPS[0], "--chain", "1")
    first, follower = read_json(output / "slurm" / "jobs.json")[STEPS[0]]
    wait_for(lambda: cluster.field(first, "JobState") == "COMPLETED", 60, "the first job")
    wait_for(lambda: cluster.field(follower, "JobState") == "CANCELLED", 60, "its follower")
    assert login.state(output)[STEPS[0]].startswith("done")


def test_every_command_of_the_page_runs_as_printed(
    cluster: Cluster, login: Login, repo_root: Path, tmp_path: Path
) -> None:
    commands = commands_of(repo_root / "docs" / "cluster.rst")
    assert len(commands) == 6
    output = tmp_path / "run"
    shutil.copy(login.config, tmp_path / "cai.yaml")
    for words in commands:
        assert words[0] == "scontrol" or words[:5] == ["cai", "run", "cai.yaml", "--output", "/shared/run"]
        if words[0] == "scontrol":
            ids = read_json(output / "slurm" / "jobs.json")
            wait_for(lambda job=ids[SL_CAI][0]: cluster.field(job, "JobState") == "RUNNING", _STEP_S, SL_CAI)
            cluster.run(*words[:2], ids[SL_CAI][0])
            continue
        if "--chain" in words:
            cluster.run("scancel", "--user=root")
            wait_for(lambda: not cluster.run("squeue", "--noheader"), 60, "an empty queue")
        done = login.cai(output, *words[5:])
        assert done.returncode == 0, f"{words}: {done.stderr}"
    jobs = read_json(output / "slurm" / "jobs.json")
    assert {len(ids) for step, ids in jobs.items() if step != STEPS[0]} == {4}
    cluster.run("scancel", "--user=root")
