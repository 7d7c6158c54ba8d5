# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that split a generation among several runs, and the settings that they describe; see `engine.shards`."""

import argparse
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_aligner_cai.commands.common.flag_types import COUNT
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.generate import flags
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.shards import CallsMissing, Shard, shards_folder
from nemo_aligner_cai.errors import CaiError, UsageError

_log = logging.getLogger(__name__)
_ALL = "all"
"""The value of --shard for all prompts."""


def add_shard_flags(parser: Parser) -> None:
    """Add the flags."""
    group = parser.add_group("shards", "split the calls among several runs, and merge their journals")
    group.add_argument(
        "--shard",
        metavar="K/N",
        help="make the calls of part K of N, K from 0 to N-1, and write only its journal (default: the task of a "
        f"Slurm array, else all); {_ALL!r} makes all calls in a Slurm array, too",
    )
    group.add_argument(
        "--journal-from",
        nargs="+",
        default=[],
        metavar="FILE",
        help="reuse the calls of other journals: files, folders or patterns",
    )
    group.add_argument(
        "--no-calls",
        action="store_true",
        help="contact no server: write the files from the journals, or list the calls that are missing",
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="make the calls in --shards tasks on this Ray cluster, then merge: auto, HOST:PORT or ray://HOST:PORT",
    )
    group.add_argument("--shards", type=COUNT, metavar="N", help="the number of tasks of --ray")
    parser.effect("no_calls", "ray", when=lambda args: not args.dry_run, otherwise="with --dry-run")
    parser.effect("shards", when=lambda args: args.ray is not None, otherwise="without --ray")


def makes_calls(args: argparse.Namespace) -> bool:
    """Tell whether this process asks real servers."""
    return not (args.dry_run or args.plan or args.no_calls or args.ray)


def run_settings(args: argparse.Namespace, journal: Path) -> RunSettings:
    """Build the run settings.

    Args:
        args: the flags.
        journal: the journal of a run without shards. With --ray, this process merges those of its tasks.

    Raises:
        UsageError: flags contradict each other.
    """
    if args.ray and (args.shard or args.no_calls):
        raise UsageError("--ray makes all calls and merges: remove --shard and --no-calls")
    if args.ray and args.shards is None:
        raise UsageError("--ray needs --shards N, the number of tasks; each makes up to --concurrency calls at once")
    return flags.run_settings(
        args,
        shard=_shard(args),
        journal_from=(*args.journal_from, *map(str, _merged_journals(args, journal))),
        no_calls=args.no_calls or bool(args.ray),
    )


def task_journals(args: argparse.Namespace, journal: Path) -> list[Path]:
    """Return the journals of the tasks of --ray."""
    return [Shard(index, args.shards).journal(journal) for index in range(args.shards)]


def _merged_journals(args: argparse.Namespace, journal: Path) -> list[Path]:
    if not args.ray:
        return []
    # Without --overwrite, the folder may also have journals of earlier runs.
    return task_journals(args, journal) if args.overwrite else [shards_folder(journal)]


def _shard(args: argparse.Namespace) -> str | Shard | None:
    if args.shard is not None:
        return None if args.shard == _ALL else args.shard
    if not makes_calls(args) or args.preview is not None:
        return None
    shard = Shard.of_slurm_task(os.environ)
    if shard is not None:
        _log.info("--shard %s, the task of this Slurm array; --shard %s makes all calls", shard, _ALL)
    return shard


def missing_calls_error(missing: CallsMissing, name: str, words: Sequence[str]) -> CaiError:
    """Return the error of a merge that lacks calls, with the command that makes them for each shard.

    Args:
        missing: the missing calls by shard.
        name: the generator's name in ``cai data``.
        words: the command line of the merge, without the program.
    """
    lines = [str(missing)]
    kept = list(_without(words, ("--no-calls", "--overwrite", "--resume"), ("--shard", "--ray", "--shards")))
    for shard, prompts in missing.prompts.items():
        part = ["--shard", str(shard)] if shard.count > 1 else []
        command = shlex.join(["cai", "data", name, *kept, *part, "--resume"])
        lines.append(f"shard {shard}: {prompts} prompts, at least {missing.calls[shard]} calls: {command}")
    return CaiError("\n".join(lines))


def _without(words: Sequence[str], switches: Sequence[str], valued: Sequence[str]) -> Iterator[str]:
    """Yield a command line without some flags: `switches` have no value, `valued` have one."""
    rest = iter(words)
    for word in rest:
        flag, equals, _ = word.partition("=")
        # argparse accepts unambiguous beginnings of flags.
        if len(flag) > 2 and flag.startswith("--"):
            if any(name.startswith(flag) for name in switches):
                continue
            if any(name.startswith(flag) for name in valued):
                if not equals:
                    next(rest, None)
                continue
        yield word
