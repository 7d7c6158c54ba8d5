# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The last steps ask the same of three models: helpful-only, SL-CAI and RL-CAI, served in turn."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nemo_aligner_cai.models.base import ClientContext, ModelClient
from nemo_aligner_cai.pipeline.layout import SFT
from nemo_aligner_cai.pipeline.serving.servers import ask
from nemo_aligner_cai.pipeline.steps.context import RunContext

T = TypeVar("T")


def paths(run: RunContext) -> tuple[Path, ...]:
    """The files or folders that the servers of the three models read; an endpoint has none."""
    trained = (run.clients.trained_path(step) for step in (SFT, run.config.policy_step))
    return tuple(filter(None, (run.clients.path("helpful_only"), *trained)))


def settings(run: RunContext) -> dict[str, Any]:
    """The settings of their servers that determine replies."""
    return run.clients.settings("helpful_only", "policy")


def clients(run: RunContext, folder: Path, batch_size: int) -> dict[str, ClientContext]:
    """Name -> the context of the client, for each model; logs go into the step's folder."""
    makers = {
        "helpful_only": partial(run.clients.of, "helpful_only"),
        "sl_cai": partial(run.clients.trained, SFT),
        "rl_cai": partial(run.clients.trained, run.config.policy_step),
    }
    return {name: partial(make, folder / f"{name}.log", batch_size) for name, make in makers.items()}


def ask_each(
    run: RunContext, folder: Path, batch_size: int, work: Callable[[str, ModelClient], Coroutine[Any, Any, T]]
) -> dict[str, T]:
    """The results of `work` with the name and the client of each model."""
    found: dict[str, T] = {}
    for name, make in clients(run, folder, batch_size).items():
        with make() as client:
            found[name] = ask(work(name, client), client)
    return found
