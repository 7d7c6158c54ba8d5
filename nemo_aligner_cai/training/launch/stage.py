# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The one `main` behind every training entry point: configure, check, prepare the machine, work, report.

A stage module stays light at import (no torch, no NeMo), for two reasons: a mistake in the command is answered
in a second, and Megatron's checkpoint writer starts children that import `__main__` again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai import extras
from nemo_aligner_cai.console import program
from nemo_aligner_cai.console.printable import PrintableFormatter, error_line, printable, redacted
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.checks import ranks

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Stage:
    """One training entry point.

    Attributes:
        config: the name of its default configuration.
        check: raises UsageError for anything wrong in the configuration or its input files; must be quick, but for
            the conversion of data files that the configuration asks for (see `processing`).
        work: does the stage's work; imports upstream only when called.
        output: the key of the log folder, or of the file, in which its model is afterwards; None for a server.
    """

    config: str
    check: Callable[[DictConfig], None]
    work: Callable[[DictConfig], None]
    output: str | None = None


@dataclass
class Arguments:
    """A command line of a Hydra application; `show` is whether it asks for the configuration alone."""

    config: str
    search: list[Path]
    overrides: list[str]
    show: bool = False


def main(stage: Stage, argv: Sequence[str] | None = None, *, quietly: bool = False) -> int:
    """Run a stage from a command line of Hydra overrides.

    Args:
        stage: what to run.
        argv: the arguments after the program's name; None takes the process's own.
        quietly: see `execute`.

    Returns:
        0 when done, 2 for a mistake in the command or its inputs, 1 for a failure after that. The reason is on
        standard error, in one line where the package knows it.
    """

    def work() -> int:
        extras.require(stage.config)
        arguments = parse_args(list(sys.argv[1:] if argv is None else argv), stage.config)
        return execute(stage, arguments, compose(arguments), quietly=quietly)

    return main_guard(work)


def main_guard(work: Callable[[], int]) -> int:
    """Do a stage's work; returns its exit code, or that of the error that ended it, which is said as for `main`."""
    program.begin()
    log_to_stderr()
    try:
        return work()
    except CaiError as error:
        sys.stderr.write(error_line("error", error))
        return error.exit_code
    except KeyboardInterrupt as stop:
        sys.stderr.write(error_line("error", "; ".join(["interrupted", *map(str, stop.args)])))
        return 130
    except Exception:
        sys.stderr.write(printable(redacted(traceback.format_exc()), keep="\n\t"))
        return 1


def start(stage: Stage) -> None:
    """Run a stage and end the process with its exit code; the body of each module's `__main__`."""
    exit_process(main(stage, quietly=True))


def exit_process(code: int) -> None:
    """End the process. A failed stage may leave threads that no exit handler can stop, so it does not wait.

    PyTriton's clients and gloo's store keep non-daemon threads that block the interpreter's exit when the main
    thread fails: the process would hang with the error already printed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)
    sys.exit(0)


def execute(stage: Stage, arguments: Arguments, cfg: DictConfig, *, quietly: bool = False) -> int:
    """Do a stage's work in this process, or only show its configuration where that is asked for; returns 0.

    Args:
        stage: what to run.
        arguments: its command line.
        cfg: what they compose to.
        quietly: let a trainer's libraries write into a file in its log folder.
    """
    if arguments.show:
        from omegaconf import OmegaConf

        sys.stdout.write(printable(redacted(OmegaConf.to_yaml(cfg)), keep="\n\t"))
        return 0
    if ranks.is_mistaken_for_rank(os.environ):
        # By this variable alone Lightning takes the process for one of srun's.
        del os.environ["SLURM_NTASKS"]
    validate(stage, cfg, arguments.config)
    from nemo_aligner_cai.training.cpu.install import install_patches
    from nemo_aligner_cai.training.launch import listening, outcome, quiet

    began = time.time()
    log_dir = config.select(cfg, "exp_manager.explicit_log_dir") if quietly and stage.output is not None else None
    try:
        with quiet.quiet(quiet.output_file(Path(str(log_dir)))) if log_dir is not None else nullcontext():
            listening.restrict()
            install_patches()
            stage.work(cfg)
    except KeyboardInterrupt:
        from omegaconf import OmegaConf

        if OmegaConf.select(cfg, "exp_manager.resume_if_exists"):
            raise KeyboardInterrupt("the same command resumes from the last checkpoint") from None
        raise
    if stage.output is not None and ranks.is_first_rank():
        outcome.report(cfg, stage.output, began)
    return 0


def parse_args(argv: list[str], default: str) -> Arguments:
    """A command line, with the hardware of this machine chosen where it chooses none; raises UsageError."""
    given = parse_flags(argv, default)
    cuda = cuda_available()
    overrides = config.choose_hardware(given.config, given.overrides, search=given.search, cuda=cuda)
    return replace(given, overrides=overrides)


def compose(arguments: Arguments) -> DictConfig:
    """The configuration that a command line asks for, on this machine; raises UsageError as `config.compose`."""
    cfg = config.compose(arguments.config, arguments.overrides, search=arguments.search)
    if not cuda_available():
        from nemo_aligner_cai.training.cpu.config import adapt_to_cpu

        adapt_to_cpu(cfg)
    return cfg


def validate(stage: Stage, cfg: DictConfig, name: str) -> None:
    """Raise UsageError where a configuration lacks a value or would fail later; converts data files as it asks for."""
    if absent := config.missing_keys(cfg):
        raise UsageError(f"{name}: no value for {', '.join(absent)}; give each as key=value")
    from nemo_aligner_cai.training.checks import parallelism

    parallelism.check(cfg, gpu_count())
    stage.check(cfg)


def log_to_stderr() -> None:
    """Show this package's own log lines; the root logger stays NeMo's and Lightning's."""
    logger = logging.getLogger("nemo_aligner_cai")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(PrintableFormatter("[cai] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def cuda_available() -> bool:
    """Whether torch sees a CUDA device."""
    return gpu_count() > 0


def gpu_count() -> int:
    """How many CUDA devices torch sees that it can use; 0 where there are none, or no driver that fits."""
    # torch says so on standard error, ahead of the one line that a mistake in the command is answered with.
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def parse_flags(argv: list[str], default: str) -> Arguments:
    """Split a command line into Hydra's own flags, as upstream's scripts take them, and overrides."""
    arguments = Arguments(config=default, search=[], overrides=[])
    names = {"-cn": "--config-name", "-cp": "--config-path", "-cd": "--config-dir", "-c": "--cfg"}
    waiting = list(argv)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            arguments.overrides.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = names.get(flag, flag)
        if flag not in names.values():
            raise UsageError(f"unknown flag {word}; this takes key=value overrides, {', '.join(names.values())}")
        if not equals:
            if not waiting:
                raise UsageError(f"{flag} needs a value")
            value = waiting.pop(0)
        if flag == "--config-name":
            arguments.config = value
        elif flag == "--cfg":
            arguments.show = True
        else:
            arguments.search.append(Path(value))
    return arguments
