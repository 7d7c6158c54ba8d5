# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs arms, several at once; each begins when the one whose steps it takes over has ended.

An arm takes over the steps of another one, runs those that differ, and samples replies to held-out prompts. Each step
runs through the run's own step cache, which decides by the hash of its inputs whether a step that was taken over is
this arm's. Where it is not, its files are removed and its journal stays: no call with the same model, prompt and seed
is made twice.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from benchmarks.ablations.arms import Arm
from nemo_aligner_cai.commands.common.terminal import log_to_stderr
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models.base import ModelClient, Sampling
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import DATA, MEASURED, SFT
from nemo_aligner_cai.pipeline.run import Pipeline
from nemo_aligner_cai.pipeline.serving import servers
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache, is_recorded
from nemo_aligner_cai.pipeline.steps.measure import DECODINGS
from nemo_aligner_cai.tiny import measure
from nemo_aligner_cai.training.launch import jobs


def run_arms(arms: Sequence[Arm], base: RunConfig, output: Path, *, workers: int) -> Iterator[tuple[Arm, str | None]]:
    """Run arms in processes of their own; yield each that has ended, with its error if it failed.

    Args:
        arms: each after the one that it shares steps of.
        base: the configuration that they change.
        output: the folder of all arms; what an arm prints is in its logs.
        workers: the arms that run at once.
    """
    logs, waiting = output / "logs", list(arms)
    logs.mkdir(parents=True, exist_ok=True)
    ended: dict[str | None, str | None] = {None: None}
    running: dict[Future[str | None], Arm] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        while waiting or running:
            for arm in [arm for arm in waiting if arm.shares in ended]:
                if (error := ended[arm.shares]) is not None:
                    waiting.remove(arm)
                    ended[arm.name] = error
                    yield arm, f"{arm.shares} failed, whose steps it takes over"
                elif len(running) < workers:
                    waiting.remove(arm)
                    running[pool.submit(_run_logged, arm, base, output, logs / f"{arm.name}.log")] = arm
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                arm = running.pop(future)
                ended[arm.name] = future.result()
                yield arm, ended[arm.name]


def _run_logged(arm: Arm, base: RunConfig, output: Path, log: Path) -> str | None:
    """Run an arm in this process, with a file for what it prints; returns the error of one that failed."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    log_to_stderr()
    try:
        run_arm(arm, base, output)
    except CaiError as error:
        return str(error)
    return None


def run_arm(arm: Arm, base: RunConfig, output: Path) -> None:
    """Run the steps of an arm that are not done, and sample the replies of its models.

    Args:
        arm: the arm; the one that it shares steps of has run before.
        base: the configuration that it changes.
        output: the folder of all arms.

    Raises:
        UsageError, CaiError: as for `Pipeline.run_step`.
    """
    folder = run_folder(output, arm.name)
    pipeline = Pipeline(arm.configure(base), folder)
    names = [step.name for step in pipeline.steps()]
    needed = names[: names.index(arm.last) + 1]
    if arm.shares is not None:
        take_over(run_folder(output, arm.shares), folder, needed)
    jobs.warm_up()
    for name in needed:
        pipeline.run_step(name)
    cache = StepCache(output / "replies")
    with cache.locked(shared=True):
        for model in arm.models:
            cache.run(_replies_step(arm, model, pipeline))


def run_folder(output: Path, arm: str) -> Path:
    """The folder of an arm's run."""
    return output / "runs" / arm


def replies_file(output: Path, arm: str, model: str, decoding: str) -> Path:
    """The replies of one of an arm's models, by one of `DECODINGS`."""
    return output / "replies" / f"{arm}.{model}" / _file(decoding)


def _file(decoding: str) -> str:
    return f"{decoding}.jsonl"


def take_over(source: Path, target: Path, names: Sequence[str]) -> list[str]:
    """Copy the finished steps of a run that another one does not have; returns their names.

    A copy that is interrupted leaves no step folder behind.
    """
    taken: list[str] = []
    for name in names:
        if not is_recorded(source / name) or (target / name).exists():
            continue
        partial = target / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        # Not linked: journals are appended to in place.
        shutil.copytree(source / name, partial)
        os.replace(partial, target / name)
        taken.append(name)
    return taken


def _replies_step(arm: Arm, model: str, pipeline: Pipeline) -> Step:
    run, section = pipeline.context, pipeline.config.measure
    assert section is not None, "the arms are runs in the tiny world"
    trained, prompts = SFT if model == "sl_cai" else run.config.policy_step, run.layout.file(DATA, MEASURED)
    seed, max_tokens = run.config.seed, section.max_tokens

    async def ask(client: ModelClient, folder: Path) -> None:
        for decoding, temperature in DECODINGS.items():
            await measure.ask(
                prompts,
                client,
                Sampling(temperature=temperature, max_tokens=max_tokens),
                seed=seed,
                journal=folder / f"{decoding}.journal.jsonl",
                replies=folder / _file(decoding),
            )

    def work(folder: Path) -> Mapping[str, Any]:
        with run.clients.trained(trained, folder / "server.log", section.batch_size) as client:
            servers.ask(ask(client, folder), client)
        return {}

    return Step(
        f"{arm.name}.{model}",
        f"{arm.title}: replies of {model} to held-out prompts",
        reads=(run.clients.trained_path(trained), prompts),
        makes=tuple(map(_file, DECODINGS)),
        settings=run.settings(section.model_dump() | {"decodings": DECODINGS} | run.clients.settings("policy")),
        work=work,
    )
