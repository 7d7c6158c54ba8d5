# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`--ray ADDRESS --shards N`: makes the calls in N tasks on an existing Ray cluster; this process then merges.

A task is a run of one shard (see `engine.shards`). Its journal is on a file system that all machines share, so a task
that Ray starts again after the loss of a machine repeats only the calls that were in flight there. Ray's own data sets
would repeat whole blocks, and return rows in another order.

API keys are not sent to the cluster: the variable that names one must be set where `ray start` was called.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.generate.shard_flags import task_journals
from nemo_aligner_cai.console.printable import redacted
from nemo_aligner_cai.engine.journal import Journal, JournalInUse, has_content
from nemo_aligner_cai.engine.shards import Shard, find_journals, shards_folder
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.registry import components
from nemo_aligner_cai.stages.report import StageIncomplete
from nemo_aligner_cai.stages.rl_cai import RlCaiStage
from nemo_aligner_cai.stages.sl_cai import SlCaiStage

_log = logging.getLogger(__name__)
_REACH_SECONDS = 10.0
_ANSWER_SECONDS = 5.0
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NO_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""A frame of HTTP/2: three bytes of length, the type, flags and the stream."""
_RELEASE_SECONDS = 120.0
"""Seconds in which the process of a lost machine must let go of its journal."""
_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class TaskEnd:
    """The end of a task.

    Attributes:
        node: the address of its machine.
        calls: calls that it made.
        reused: calls that it found in journals.
        error: the reason for which it ended early; empty if it did not.
        incomplete: more faults than --max-dropped allows; the merge decides about the whole.
    """

    node: str
    calls: int = 0
    reused: int = 0
    error: str = ""
    incomplete: str = ""


def make_calls(stage: SlCaiStage | RlCaiStage, args: argparse.Namespace, name: str) -> None:
    """Check a stage's files, and make its calls on the cluster.

    Args:
        stage: the stage of this process, which merges the tasks' journals afterwards.
        args: the flags.
        name: the generator's name in the registry.

    Raises:
        UsageError: an input, an output or the cluster cannot be used. No call was made.
        CaiError: a task failed. Finished calls are in the journals.
    """
    extras.require("--ray", ("ray",), "ray")
    whole = stage.config.outputs.journal
    _create_journals(args, whole)
    stage.begin()
    with _cluster(args.ray) as ray, _marker(shards_folder(whole)) as marker:
        if args.overwrite:
            _empty_journals(whole)
        _run_tasks(ray, args, name, whole, marker)


def _create_journals(args: argparse.Namespace, whole: Path) -> None:
    """Create the journals, empty; raises UsageError for those of an earlier run without --resume or --overwrite."""
    own, folder = task_journals(args, whole), shards_folder(whole)
    check_output(own[0], overwrite=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path in own:
        path.touch()
    earlier = [path for path in find_journals([folder]) if has_content(path)]
    if earlier and not (args.resume or args.overwrite):
        raise UsageError(f"{earlier[0]}: a journal of an earlier run; give --resume to continue or --overwrite")
    named = {path.resolve() for path in find_journals(args.journal_from)}
    if args.overwrite and (read := [path for path in _emptied(whole) if path.resolve() in named]):
        raise UsageError(f"{read[0]}: is read by --journal-from and deleted by --overwrite; give --resume")


def _emptied(whole: Path) -> list[Path]:
    """The journals of earlier runs that --overwrite empties: the whole run's and those of shards."""
    return [path for path in (whole, *find_journals([shards_folder(whole)])) if has_content(path)]


def _empty_journals(whole: Path) -> None:
    for path in _emptied(whole):
        asyncio.run(Journal.open(path, overwrite=True).close())


@contextmanager
def _cluster(address: str) -> Generator[Any]:
    """Connect to a cluster; raises UsageError if it cannot be reached."""
    ray: Any = importlib.import_module("ray")
    # Ray prefers this variable to its own search, too.
    place = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    if place != "auto":
        _reach(place)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise UsageError(f"--ray {address}: no connection to a cluster: {first}; `ray start` starts one") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises UsageError if no gRPC server answers at HOST:PORT, for which Ray would wait for minutes."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.hostname is None or place.port is None:
            raise UsageError(f"--ray {address}: must be auto, HOST:PORT or ray://HOST:PORT")
        with socket.create_connection((place.hostname, place.port), _REACH_SECONDS) as connection:
            # With TLS, the server would answer only after a handshake.
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _is_grpc(connection):
                raise UsageError(
                    f"--ray {address}: another program than Ray answers, or none; `ray status` shows the address"
                )
    except (OSError, ValueError) as error:
        raise UsageError(f"--ray {address}: cannot be reached: {error}; `ray status` shows the address") from error


def _is_grpc(connection: socket.socket) -> bool:
    """Tell whether the server begins with a frame of settings, as all gRPC servers do (RFC 9113, section 3.4)."""
    connection.settimeout(_ANSWER_SECONDS)
    connection.sendall(_HTTP2_PREFACE + _NO_SETTINGS)
    with suppress(TimeoutError, ConnectionError), connection.makefile("rb") as answer:
        return answer.read(len(_NO_SETTINGS))[3:4] == _NO_SETTINGS[3:4]
    return False


@contextmanager
def _marker(folder: Path) -> Generator[Path]:
    """Create a file by which a task knows that it sees the same folder as this process."""
    marker = folder / f".shared.{secrets.token_hex(8)}"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def _run_tasks(ray: Any, args: argparse.Namespace, name: str, whole: Path, marker: Path) -> None:
    remote = ray.remote(num_cpus=1, max_retries=-1, scheduling_strategy="SPREAD")(run_task)
    settings = _task_settings(args, whole)
    tasks = {
        remote.remote(name, argparse.Namespace(**settings, shard=str(shard)), os.getcwd(), str(marker)): shard
        for shard in (Shard(index, args.shards) for index in range(args.shards))
    }
    pending = list(tasks)
    while pending:
        (ended, *_), pending = ray.wait(pending)
        shard = tasks[ended]
        try:
            end: TaskEnd = ray.get(ended)
        except ray.exceptions.RayError as error:
            raise CaiError(f"shard {shard}: {str(error).strip()}") from error
        if end.error:
            raise CaiError(f"shard {shard} on {end.node}: {end.error}")
        _log.info(
            "shard %s ended on %s: %d calls, %d reused; %d of %d shards are left",
            *(shard, end.node, end.calls, end.reused, len(pending), args.shards),
        )
        if end.incomplete:
            _log.warning("shard %s: %s", shard, end.incomplete)


def _task_settings(args: argparse.Namespace, whole: Path) -> dict[str, Any]:
    """Return the flags of the tasks but --shard: they resume, since Ray may start each of them several times."""
    settings = vars(args) | {"ray": None, "shards": None, "resume": True, "overwrite": False}
    settings.pop("shard")
    # The cut's own journals are read by the task that writes them.
    own = set(task_journals(args, whole))
    earlier = [whole, *find_journals([shards_folder(whole)])] if args.resume else []
    named = [str(path) for path in earlier if path not in own and has_content(path)]
    return settings | {"journal_from": [*args.journal_from, *named]}


def run_task(name: str, args: argparse.Namespace, folder: str, marker: str) -> TaskEnd:
    """Run one shard, on a machine of the cluster.

    Args:
        name: the generator's name in the registry.
        args: its flags.
        folder: the working folder of the process that started the tasks, to which paths are relative.
        marker: a file of that process in the journals' folder.
    """
    node: str = importlib.import_module("ray").util.get_node_ip_address()
    try:
        os.chdir(folder)
    except OSError:
        marker = ""
    if not os.path.exists(marker):
        return TaskEnd(node, error=f"{folder} is not the same folder there; --ray needs a shared file system")
    try:
        report = _generate(name, args)
        report.check()
    except StageIncomplete as error:
        summary = error.report.summary
        return TaskEnd(node, summary.calls, summary.reused, incomplete=redacted(str(error)))
    except CaiError as error:
        return TaskEnd(node, error=redacted(str(error)))
    return TaskEnd(node, report.summary.calls, report.summary.reused)


def _generate(name: str, args: argparse.Namespace) -> Any:
    """Run the generator; waits for the process of a lost machine, which may still hold the shard's journal."""
    generator: Any = components("generators")[name].load()
    end = time.monotonic() + _RELEASE_SECONDS
    while True:
        try:
            return generator.generate(args)
        except JournalInUse:
            if time.monotonic() > end:
                raise
            time.sleep(_RETRY_SECONDS)
