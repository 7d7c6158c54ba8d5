# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The strength of the tests: the share of small faults, put into the code one at a time, that a test finds.

mutmut makes the faults (mutants) and runs for each the tests that call its function. It works in a folder of its own,
so nothing in the checkout changes; what survived is in ``survivors.diff`` there. It needs mutmut
(``.venv/bin/pip install -c constraints/cpu.txt mutmut==3.8.1``) and Linux' unshare: mutmut 3.8.1 sends a signal to the
process id of each mutant when its time would be up, ended or not, and by then another program may have that id. In a
namespace of its own it reaches nothing else.

Resumable: a mutant that was tried with the same code is not tried again. With ``--sample``, that many mutants of each
module are tried, drawn at random; the share has a 95 % interval.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
        tests: patterns of file names in tests/unit.
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
        ("engine/journal*.py",),
        ("test_journal.py", "test_journal_counting.py", "test_journal_damage.py", "test_shard_journals.py"),
    ),
    "judges": Module(
        ("judges/*.py",),
        (
            *("test_judges.py", "test_options_judge.py", "test_pair_judge.py", "test_judge_few_shots.py"),
            "test_judge_orders.py",
        ),
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

# The exit codes that mutmut records for a mutant.
_OUTCOMES = {0: "survived", 33: "no test", 5: "no test", 2: "interrupted", None: "not tried", 34: "skipped"}
_NOT_COUNTED = ("interrupted", "not tried", "skipped")


def score(exit_codes: Mapping[str, int | None]) -> tuple[Counter[str], Rate]:
    """The number of mutants by outcome, and the share of those tried that a test found.

    Args:
        exit_codes: name of a mutant -> the exit code that mutmut recorded. A test that fails or does not end finds it.
    """
    counts = Counter(map(_outcome, exit_codes.values()))
    tried = (outcome for outcome in counts.elements() if outcome not in _NOT_COUNTED)
    return counts, Rate.of(outcome == "found" for outcome in tried)


def _outcome(exit_code: int | None) -> str:
    return _OUTCOMES.get(exit_code, "found")


def mutate(module: Module, folder: Path, *, workers: int, sample: int | None) -> dict[str, int | None]:
    """Run mutmut on a copy of the checkout in `folder`, whose earlier results are kept.

    Args:
        module: what is mutated.
        folder: of the copy and the results.
        workers: mutants that are tried at the same time.
        sample: number of mutants to draw; None tries all.

    Returns:
        Name of a mutant, of the sample's if there is one -> exit code.

    Raises:
        SystemExit: mutmut failed; the message names its log.
    """
    _copy(folder)
    (folder / "setup.cfg").write_text(settings(module), encoding="utf-8")
    command = [*_alone(), sys.executable, "-m", "mutmut", "run", "--max-children", str(workers)]
    environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    log = folder / "mutmut.log"

    def run(*names: str) -> int:
        with log.open("w", encoding="utf-8") as output:
            return subprocess.run(
                [*command, *names], cwd=folder, env=environment, stdout=output, stderr=output, check=False
            ).returncode

    if sample is None:
        failed = run()
        codes = _exit_codes(folder)
    else:
        # Mutants have names once they are made, and mutmut makes them before it finds that no name matches this one.
        run("none")
        names = drawn(_exit_codes(folder), sample)
        left = [name for name, code in _exit_codes(folder).items() if name in names and _outcome(code) in _NOT_COUNTED]
        failed = run(*left) if left else 0
        codes = {name: code for name, code in _exit_codes(folder).items() if name in names}
    if failed or not codes:
        sys.exit(f"mutmut failed; see {log}")
    return codes


def drawn(names: Collection[str], sample: int) -> set[str]:
    """A random sample of the mutants, the same in each call; all of them if there are no more."""
    return set(random.Random(0).sample(sorted(names), min(sample, len(names))))


def survivors(folder: Path, codes: Mapping[str, int | None]) -> str:
    """The differences of the mutants that no test found."""
    names = [name for name, code in codes.items() if _outcome(code) in ("survived", "no test")]
    shown = (
        subprocess.run(
            [sys.executable, "-m", "mutmut", "show", name], cwd=folder, capture_output=True, text=True, check=False
        ).stdout
        for name in names
    )
    return "\n".join(shown)


def _alone() -> list[str]:
    """The command that runs another one in a namespace of process ids of its own."""
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    # The first process inherits the orphans of tests that are killed; mutmut would fail at one that it did not start.
    shell = ("sh", "-c", '"$@"; exit "$?"', "sh")
    return ["unshare", *as_user, "--pid", "--fork", "--kill-child", "--mount-proc", *shell]


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
    """The setup.cfg with which mutmut changes a module and runs its tests."""
    tests = sorted({f"tests/unit/{path.name}" for name in module.tests for path in (_ROOT / "tests/unit").glob(name)})
    lists = {
        "source_paths": [_PACKAGE],
        "only_mutate": [f"{_PACKAGE}/{pattern}" for pattern in module.files],
        "also_copy": list(_COPIED),
        "pytest_add_cli_args": [
            *("-m", "not slow", "-p", "no:xdist", "-p", "no:randomly"),
            "--hypothesis-profile=mutants",
        ],
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = ["[mutmut]"]
    for key, values in lists.items():
        lines += [f"{key} =", *(f"    {value}" for value in values)]
    return "\n".join([*lines, ""])


def _exit_codes(folder: Path) -> dict[str, int | None]:
    codes: dict[str, int | None] = {}
    mutants = folder / "mutants"
    for file in sorted(mutants.rglob("*.meta")):
        if not (folder / file.relative_to(mutants)).with_suffix("").is_file():
            # Of a module that was removed or renamed since.
            continue
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Mutate the modules that are named; returns 1 if the share of one is below the bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--modules", nargs="+", choices=list(MODULES), default=list(MODULES), help="default: all")
    parser.add_argument("--folder", type=Path, default=Path("runs/mutation"), help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: %(default)s")
    parser.add_argument("--sample", type=int, metavar="N", help="mutants of each module to draw; default: all")
    chosen = parser.parse_args(arguments)
    figures: list[Figure] = []
    for name in chosen.modules:
        folder = chosen.folder.resolve() / name
        codes = mutate(MODULES[name], folder, workers=chosen.workers, sample=chosen.sample)
        counts, share = score(codes)
        figures.append(Figure(f"{name}: mutants found", str(share), f"≥ {_BAR:.0%}", share.value >= _BAR))
        figures.append(Figure(f"{name}: by outcome", ", ".join(f"{count} {one}" for one, count in counts.items())))
        (folder / "survivors.diff").write_text(survivors(folder, codes), encoding="utf-8")
    return show("Mutation score", figures)


if __name__ == "__main__":
    sys.exit(main())
