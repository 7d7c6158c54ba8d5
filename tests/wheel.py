# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The wheel, and an environment that has nothing but the wheel and the packages that it asks for."""

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from packaging.requirements import Requirement


def copy_sources(repo_root: Path, target: Path) -> Path:
    """Copy the sources of the package: building writes into them."""
    ignored = shutil.ignore_patterns(".*", "build", "dist", "runs", "__pycache__", "*.egg-info")
    return Path(shutil.copytree(repo_root, target, ignore=ignored))


def run_pip(*arguments: str | Path, cwd: Path) -> None:
    """Run this environment's pip; it must succeed."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def build_wheel(sources: Path, folder: Path) -> Path:
    """Build the wheel of the sources into a folder, with this environment's setuptools."""
    run_pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ".", cwd=sources)
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, wheel: Path, extra: str = "") -> Path:
    """Create a virtual environment with a wheel and what it requires, and return its folder of programs.

    The required packages are links to this environment's files, so that no index is asked.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=600)
    python = folder / "bin" / "python"
    run_pip("--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for name in _closure(_requirements(wheel, extra)):
        distribution = importlib.metadata.distribution(name)
        # Python 3.10 takes the files of what its pip has built without a wheel from a list of the sources.
        tops = {file.parts[0] for file in distribution.files or ()}
        tops |= set((distribution.read_text("top_level.txt") or "").split())
        for top in tops - {"..", "__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin"


def _requirements(wheel: Path, extra: str) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    return _needed([line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")], extra)


def _needed(requirements: list[str], extra: str = "") -> list[str]:
    parsed = map(Requirement, requirements)
    return [one.name for one in parsed if one.marker is None or one.marker.evaluate({"extra": extra})]


def _closure(names: list[str]) -> set[str]:
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            names += _needed(importlib.metadata.requires(name) or [])
    return found
