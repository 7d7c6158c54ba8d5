# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The strength of the tests: the share of small faults, put into the code one at a time, that a test finds.

mutmut makes the faults (mutants), `benchmarks/mutants.py` runs for each the tests that call its function. Both work in
a folder of their own, so nothing in the checkout changes; what survived is in ``survivors.diff`` there. mutmut is not
among the pins: ``.venv/bin/pip install -c constraints/cpu.txt mutmut==3.8.1``.

Resumable: a mutant that was tried with the same code is not tried again, unless ``--again`` asks it of those that
survived, as after a new test. A module that would take too long is measured by a sample (``--sample``): its mutants in
an order that the seed decides, of which a larger sample tries more.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Figure, show
from nemo_aligner_cai.evaluation.statistics.rates import Rate

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = "nemo_aligner_cai"
_BAR = 0.85
_COPIED = (
    "benchmarks",
    "docs",
    "examples",
    "hydra_plugins",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "CHANGELOG.md",
)


@dataclass(frozen=True)
class Module:
    """Code that is mutated, and the tests that must find the faults.

    Attributes:
        files: patterns of paths in the package.
        tests: patterns of file names in tests/unit; those that take seconds for each mutant are not among them.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]


MODULES = {
    "statistics": Module(
        ("evaluation/statistics/*.py",),
        (
            *("test_statistics.py", "test_rates.py", "test_bradley_terry.py", "test_calibration.py"),
            *("test_human_labels.py", "test_rank.py", "test_compare.py"),
        ),
    ),
    "journal": Module(
        ("engine/journal*.py",), ("test_journal.py", "test_journal_damage.py", "test_shard_journals.py")
    ),
    "judges": Module(
        ("judges/*.py",),
        ("test_judges.py", "test_options_judge.py", "test_pair_judge.py", "test_judge_few_shots.py"),
    ),
    "chat": Module(
        ("chat/*.py",),
        (
            *("test_chat_templates.py", "test_conversation.py", "test_control_tokens.py", "test_hf_chat.py"),
            "test_jinja_templates.py",
        ),
    ),
    "formats": Module(
        ("data/formats/*.py",),
        (
            *("test_*formats*.py", "test_other_trainers.py", "test_round_trip.py", "test_comparisons.py"),
            "test_anthropic_hh.py",
        ),
    ),
}

# The exit codes that mutmut's files have for a mutant.
_OUTCOMES = {0: "survived", 33: "no test", 36: "timed out", None: "not tried"}
_FOUND, _SURVIVED, _NOT_TRIED = ("found", "timed out"), ("survived", "no test"), "not tried"

# Steps of mutmut 3.8.1 that its command line does not have: mutants alone, and the differences of many at a time.
_GENERATE = """
from pathlib import Path
from mutmut.__main__ import copy_also_copy_files, copy_src_dir, create_mutants, setup_source_paths
Path("mutants").mkdir(exist_ok=True)
copy_src_dir()
copy_also_copy_files()
setup_source_paths()
create_mutants(1)
"""
_SHOW = """
import sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
for name in sys.argv[1:]:
    print("#", name, get_diff_for_mutant(name), "", sep="\\n")
"""
_OUTCOME_LINES = "outcomes.tsv"
_PYTEST = (
    *("-q", "-m", "not slow", "-p", "benchmarks.mutants", "-p", "no:xdist", "-p", "no:randomly"),
    *("-p", "no:cacheprovider", "--hypothesis-profile=mutants", "--capture=sys"),
    # Time is the plugin's business. pytest's usual folder is removed by other runs of pytest after a while.
    *("-o", "timeout=0", "--basetemp=../tmp", "-o", "tmp_path_retention_policy=failed"),
)


@dataclass(frozen=True)
class Sample:
    """The number of mutants that are tried, and the seed that draws them."""

    size: int
    seed: int

    def of(self, names: Iterable[str]) -> list[str]:
        """Draw from the names. A smaller sample with the same seed is the beginning of a larger one."""
        drawn = sorted(names)
        random.Random(self.seed).shuffle(drawn)
        return drawn[: self.size]


def score(exit_codes: Mapping[str, int | None]) -> tuple[Counter[str], Rate | None]:
    """The number of mutants by outcome, and the share of those tried that a test found.

    Args:
        exit_codes: name of a mutant -> the exit code of its tests. A test that fails or does not end finds it.

    Returns:
        The counts, and the share, with the interval for mutants that are a sample; None if no mutant was tried.
    """
    outcomes = [_outcome(code) for code in exit_codes.values()]
    tried = [outcome in _FOUND for outcome in outcomes if outcome != _NOT_TRIED]
    return Counter(outcomes), Rate.of(tried) if tried else None


def mutate(
    module: Module, folder: Path, *, options: Sequence[str], sample: Sample | None, again: bool
) -> dict[str, int | None]:
    """Run mutmut on a copy of the checkout in `folder`, whose earlier results are kept.

    Args:
        module: the code and its tests.
        folder: where mutmut works.
        options: of `mutants`.
        sample: the mutants to try; None for all.
        again: try those again that no test has found.

    Returns:
        Name of a mutant -> exit code.

    Raises:
        SystemExit: mutmut failed; the message names its log.
    """
    _record(folder)
    _copy(folder)
    (folder / "setup.cfg").write_text(settings(module), encoding="utf-8")
    _run(folder, "mutmut.log", ["-c", _GENERATE])
    codes = _exit_codes(folder)
    names = sample.of(codes) if sample else list(codes)
    untried = (_NOT_TRIED, *(_SURVIVED if again else ()))
    if to_try := [name for name in names if _outcome(codes[name]) in untried]:
        (folder / "to_try.txt").write_text("\n".join(to_try), encoding="utf-8")
        files = ["--mutants=../to_try.txt", f"--outcomes=../{_OUTCOME_LINES}", *files_of_tests(module)]
        _run(folder / "mutants", "../tests.log", ["-m", "pytest", *_PYTEST, *options, *files])
        _record(folder)
        codes = _exit_codes(folder)
    return {name: codes[name] for name in names}


def _record(folder: Path) -> None:
    """Move outcomes, also those of a run that was interrupted, to mutmut's files, which drop those of changed code."""
    lines = folder / _OUTCOME_LINES
    if not lines.exists():
        return
    outcomes = dict(line.split("\t") for line in lines.read_text(encoding="utf-8").splitlines())
    for file in (folder / "mutants").rglob("*.meta"):
        content = json.loads(file.read_text(encoding="utf-8"))
        codes = content["exit_code_by_key"]
        codes |= {name: int(outcomes[name]) for name in codes if name in outcomes}
        file.write_text(json.dumps(content), encoding="utf-8")
    lines.unlink()


def write_survivors(folder: Path, codes: Mapping[str, int | None]) -> None:
    """Write the differences of the mutants that no test found."""
    _run(folder, "survivors.diff", ["-c", _SHOW, *(name for name in codes if _outcome(codes[name]) in _SURVIVED)])


def _outcome(code: int | None) -> str:
    return _OUTCOMES.get(code, "found")


def _run(folder: Path, output: str, arguments: Sequence[str]) -> None:
    """Run Python in the folder, with its output in a file there; raises SystemExit if it fails."""
    log = folder / output
    environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=file, check=False)
    if done.returncode:
        sys.exit(f"failed; see {log}")


def _copy(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (_PACKAGE, "tests", *_COPIED):
        source, target = _ROOT / name, folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        else:
            shutil.copy2(source, target)


def settings(module: Module) -> str:
    """The setup.cfg with which mutmut changes a module."""
    lists = {
        "source_paths": [_PACKAGE],
        "only_mutate": [f"{_PACKAGE}/{pattern}" for pattern in module.files],
        "also_copy": list(_COPIED),
    }
    lines = ["[mutmut]"]
    for key, values in lists.items():
        lines += [f"{key} =", *(f"    {value}" for value in values)]
    return "\n".join([*lines, ""])


def files_of_tests(module: Module) -> list[str]:
    """The paths of the module's tests in a checkout."""
    return sorted({f"tests/unit/{path.name}" for name in module.tests for path in (_ROOT / "tests/unit").glob(name)})


def _exit_codes(folder: Path) -> dict[str, int | None]:
    codes: dict[str, int | None] = {}
    for file in sorted((folder / "mutants").rglob("*.meta")):
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Mutate the modules that are named; returns 1 if the share of one is below the bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--modules", nargs="+", choices=list(MODULES), default=list(MODULES), help="default: all")
    parser.add_argument("--folder", type=Path, default=Path("runs/mutation"), help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: %(default)s")
    parser.add_argument("--longest", type=float, default=float("inf"), help="leave out tests of more CPU seconds")
    parser.add_argument("--sample", type=int, help="try this many mutants of each module; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="try survivors of earlier runs again")
    chosen = parser.parse_args(arguments)
    sample = Sample(chosen.sample, chosen.seed) if chosen.sample else None
    options = [f"--workers={chosen.workers}", f"--longest={chosen.longest}"]
    figures: list[Figure] = []
    for name in chosen.modules:
        folder = chosen.folder.resolve() / name
        codes = mutate(MODULES[name], folder, options=options, sample=sample, again=chosen.again)
        counts, share = score(codes)
        if share is None:
            sys.exit(f"no mutant of {name} was tried; see {folder}")
        measured = f"{share} % of {len(codes)}" if sample else f"{share.value:.1%} of {len(codes)}"
        figures.append(Figure(f"{name}: mutants found", measured, f"≥ {_BAR:.0%}", share.value >= _BAR))
        figures.append(Figure(f"{name}: by outcome", ", ".join(f"{count} {one}" for one, count in counts.items())))
        write_survivors(folder, codes)
    return show("Mutation score", figures)


if __name__ == "__main__":
    sys.exit(main())
