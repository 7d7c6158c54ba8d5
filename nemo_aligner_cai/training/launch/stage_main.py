# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The `main` of every training entry point: compose the configuration, validate it, and run the stage.

Stage modules import neither torch nor NeMo at module level: a mistake in the command is reported within a second, and
Megatron's checkpoint writer starts children that import `__main__` again.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nemo_aligner_cai import extras
from nemo_aligner_cai.console import program
from nemo_aligner_cai.console.printable import PrintableFormatter, printable, redacted
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.checks import ranks
from nemo_aligner_cai.training.launch import tether

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Stage:
    """One training entry point.

    Attributes:
        config: the name of its default configuration.
        check: raises UsageError for an invalid configuration or input file; fast, except for the conversion of data
            files that the configuration may ask for (see `processing`).
        work: runs the stage; imports NeMo only when called.
        output: the key of the log folder or file with the trained model; None for a server.
    """

    config: str
    check: Callable[[DictConfig], None]
    work: Callable[[DictConfig], None]
    output: str | None = None


@dataclass
class Arguments:
    """A parsed command line of a Hydra application.

    Attributes:
        config: the configuration's name.
        search: further folders with configurations.
        overrides: Hydra overrides.
        show: only print the configuration.
    """

    config: str
    search: list[Path]
    overrides: list[str]
    show: bool = False


def main(stage: Stage, argv: Sequence[str] | None = None, *, quietly: bool = False) -> int:
    """Run a stage from a command line of Hydra overrides.

    Args:
        stage: the stage.
        argv: the arguments after the program's name; None for those of this process.
        quietly: see `execute`.

    Returns:
        0 for success, 2 for a mistake in the command or its inputs, 1 for a later failure. The error is on standard
        error, in one line if it is an error of this package.
    """

    def work() -> int:
        log_to_stderr()
        extras.require(stage.config)
        given = parse_flags(list(sys.argv[1:] if argv is None else argv), stage.config)
        arguments = with_hardware(given, for_cluster=False)
        return execute(stage, arguments, compose(arguments), quietly=quietly)

    return program.main_guard(work, catch_defects=True)


def start(stage: Stage) -> None:
    """Run a stage and end the process with its exit code."""
    exit_process(main(stage, quietly=True))


def exit_process(code: int) -> None:
    """End the process; after a failure without waiting for threads.

    PyTriton's clients and gloo's store keep non-daemon threads that block the interpreter's exit if the main thread
    fails: the process would hang after its error message.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)
    sys.exit(0)


def execute(stage: Stage, arguments: Arguments, cfg: DictConfig, *, quietly: bool = False) -> int:
    """Run a stage in this process, or only print its configuration; returns 0.

    Args:
        stage: the stage.
        arguments: its command line.
        cfg: the composed configuration.
        quietly: redirect the output of a trainer's libraries to a file in its log folder.
    """
    if arguments.show:
        from omegaconf import OmegaConf

        sys.stdout.write(printable(redacted(OmegaConf.to_yaml(cfg)), keep="\n\t"))
        return 0
    if not ranks.is_first_rank():
        # Lightning's first process does not end those that it has started, and they would wait for it on their GPUs.
        tether.end_with_starter(signal.SIGKILL)
    if ranks.is_mistaken_for_rank(os.environ):
        # This variable alone makes Lightning wait for other srun tasks.
        del os.environ["SLURM_NTASKS"]
    validate(stage, cfg, arguments.config)
    from nemo_aligner_cai.training.cpu.install import install_patches
    from nemo_aligner_cai.training.launch import log_folder, loopback, quiet

    began = time.time()
    log_dir = config.select(cfg, "exp_manager.explicit_log_dir") if quietly and stage.output is not None else None
    try:
        with quiet.quiet(quiet.output_file(Path(str(log_dir)))) if log_dir is not None else nullcontext():
            loopback.restrict()
            install_patches()
            stage.work(cfg)
    except KeyboardInterrupt:
        from omegaconf import OmegaConf

        if OmegaConf.select(cfg, "exp_manager.resume_if_exists"):
            raise KeyboardInterrupt("the same command resumes from the last checkpoint") from None
        raise
    if stage.output is not None and ranks.is_first_rank():
        log_folder.report(cfg, stage.output, began)
    return 0


def with_hardware(given: Arguments, *, for_cluster: bool) -> Arguments:
    """Add this machine's hardware, or a cluster's, if the overrides select none; raises UsageError."""
    cuda = for_cluster or cuda_available()
    overrides = config.choose_hardware(given.config, given.overrides, search=given.search, cuda=cuda)
    return replace(given, overrides=overrides)


def compose(arguments: Arguments, *, for_cluster: bool = False) -> DictConfig:
    """The configuration of a command line on this machine, or a cluster's; raises UsageError like `config.compose`."""
    cfg = config.compose(arguments.config, arguments.overrides, search=arguments.search)
    if not for_cluster and not cuda_available():
        from nemo_aligner_cai.training.cpu.config import adapt_to_cpu

        adapt_to_cpu(cfg)
    return cfg


def validate(stage: Stage, cfg: DictConfig, name: str) -> None:
    """Raise UsageError for a configuration that would fail; converts data files if it asks for that."""
    if absent := config.missing_keys(cfg):
        raise UsageError(f"{name}: no value for {', '.join(absent)}; give each as key=value")
    from nemo_aligner_cai.training.checks import parallelism

    parallelism.check(cfg, gpu_count())
    stage.check(cfg)


def log_to_stderr() -> None:
    """Log to standard error; leaves the root logger to NeMo and Lightning."""
    logger = logging.getLogger("nemo_aligner_cai")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(PrintableFormatter("[cai] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def cuda_available() -> bool:
    """True if torch can use a CUDA device."""
    return gpu_count() > 0


def gpu_count() -> int:
    """Number of CUDA devices that torch can use; 0 without a device or a matching driver."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class _FlagParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flags = "--config-name, --config-path, --config-dir, --cfg"
        raise UsageError(f"{message}; expected key=value overrides, {flags}")


def add_flags(parser: argparse.ArgumentParser, default: str) -> None:
    """Declare the overrides and the Hydra flags of NeMo-Aligner's scripts."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings in Hydra's syntax: KEY=VALUE replaces a value, ++KEY=VALUE also adds a key, ~KEY removes one",
    )
    parser.add_argument(
        "--config-name", "-cn", default=default, metavar="NAME", help="a configuration of this package or of DIR"
    )
    parser.add_argument(
        *("--config-dir", "-cd", "--config-path", "-cp"),
        dest="search",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder with further configurations and config groups; may be given repeatedly",
    )
    parser.add_argument("--cfg", "-c", metavar="job", help="job: print the configuration with all its keys, and exit")


def parse_flags(argv: list[str], default: str) -> Arguments:
    """Split a command line into overrides and the Hydra flags of NeMo-Aligner's scripts; raises UsageError.

    `default` is the configuration if `argv` names none.
    """
    parser = _FlagParser(add_help=False, allow_abbrev=False)
    add_flags(parser, default)
    parsed = parser.parse_intermixed_args(argv)
    return Arguments(parsed.config_name, parsed.search, parsed.overrides, show=parsed.cfg is not None)
