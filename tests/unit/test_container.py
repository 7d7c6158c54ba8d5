# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile and the versions in the NeMo container; no engine builds images here."""

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import nemo_aligner_cai
from nemo_aligner_cai.cli import COMMANDS
from tests.unit.pinned import pinned

CORE = {"aiohttp", "aiolimiter", "jinja2", "orjson", "packaging", "pydantic", "pyyaml", "rich", "scipy"}


@pytest.fixture(scope="module")
def dockerfile(repo_root: Path) -> str:
    return (repo_root / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def instructions(dockerfile: str) -> list[str]:
    """The Dockerfile's instructions, one a line, without comments."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    return [line for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(scope="module")
def container(repo_root: Path) -> dict[str, SpecifierSet]:
    """What is published of the container's versions, by canonical name."""
    lines = (repo_root / "constraints" / "nemo-container-25.02.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len(found) >= 15
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in found}


@pytest.fixture(scope="module")
def core(repo_root: Path) -> list[Requirement]:
    source = (repo_root / "setup.py").read_text(encoding="utf-8")
    block = re.search(r"^CORE = \[\n(.*?)^\]$", source, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [Requirement(text) for text in re.findall(r'"([^"]+)"', block[1])]


def linter(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; the extra dev brings it")
    return found


def lint(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_nothing_in_the_dockerfile(repo_root: Path) -> None:
    lint(linter("hadolint"), repo_root / "Dockerfile")


def test_hadolint_is_at_work(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN cd /tmp\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="DL3007"):
        lint(linter("hadolint"), bad)


def test_shellcheck_finds_nothing_and_scripts_can_be_run(repo_root: Path) -> None:
    scripts = sorted(path for folder in ("examples", "tests") for path in (repo_root / folder).rglob("*.sh"))
    scripts += sorted((repo_root / "tests" / "functional" / "test_cases").iterdir())
    assert len(scripts) >= 7
    assert [path for path in scripts if not path.stat().st_mode & 0o100] == []
    lint(linter("shellcheck"), "-x", *scripts)


def test_the_default_target_is_the_nemo_container_and_the_other_has_a_user(instructions: list[str]) -> None:
    stages = [line.split() for line in instructions if line.startswith("FROM ")]
    assert [stage[3] for stage in stages] == ["wheel", "data", "nemo"]
    assert stages[-1][1] == "${NEMO_IMAGE}", "the last stage is what `docker build .` makes"
    images = dict(line[4:].split("=", 1) for line in instructions if line.startswith("ARG "))
    assert images["NEMO_IMAGE"] == "nvcr.io/nvidia/nemo:25.02.01"
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", images["PYTHON_IMAGE"])
    assert [line for line in instructions if line.startswith("USER ")] == ["USER 10001"]


def test_labels_give_the_version(dockerfile: str) -> None:
    versions = re.findall(r'image\.version="([^"]+)"', dockerfile)
    assert versions == [nemo_aligner_cai.__version__] * 2


def test_only_what_the_container_lacks_is_installed(instructions: list[str]) -> None:
    nemo = instructions[next(n for n, line in enumerate(instructions) if line.endswith(" AS nemo")) :]
    (install,) = (line for line in nemo if "pip install" in line)
    before, after = install.index("pip list"), install.rindex("pip list")
    assert before < install.index("--constraint /opt/nemo_aligner_cai/container_packages.txt") < after
    assert "comm -23" in install and "exit 1" in install
    assert not any(flag in install for flag in ("--upgrade", " -U ", "--force-reinstall", "--ignore-installed"))


def test_the_commands_that_check_an_image_exist(instructions: list[str]) -> None:
    used = re.findall(r"\bRUN cai (\S+)", "\n".join(instructions))
    assert len(used) == 2
    assert set(used) <= set(COMMANDS)


def test_the_wheel_is_built_from_all_that_setup_reads(repo_root: Path) -> None:
    lines = (repo_root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*", "nothing is sent to the builder unless it is named"
    assert {path for path in kept if not (repo_root / path).exists()} == set()
    needed = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "nemo_aligner_cai", "hydra_plugins", "examples"}
    assert needed | {"constraints"} <= kept
    assert not any(fnmatch(".git", path) or fnmatch(".venv", path) for path in kept)


def test_the_core_and_the_containers_packages_have_versions_in_common(
    core: list[Requirement], container: dict[str, SpecifierSet]
) -> None:
    assert {requirement.name for requirement in core} == CORE
    tested = {name: Version(version) for name, version in pinned("cpu.txt", "3.12").items()}
    shared = [requirement for requirement in core if requirement.name in container]
    assert {requirement.name for requirement in shared} == {"aiohttp", "jinja2", "pydantic", "pyyaml"}
    for requirement in shared:
        both = requirement.specifier & container[requirement.name]
        assert both.contains(tested[requirement.name]), (
            f"{requirement}: the container has {container[requirement.name]}"
        )


@pytest.mark.slow
def test_pip_resolves_the_core_under_the_containers_versions(
    repo_root: Path, core: list[Requirement], tmp_path: Path
) -> None:
    constraints = repo_root / "constraints" / "nemo-container-25.02.txt"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # An empty target: pip answers from the index, not from what is installed here.
    command = [*pip, "install", "--dry-run", "--ignore-installed", "--target", str(tmp_path), "-c", str(constraints)]
    done = subprocess.run([*command, *map(str, core)], capture_output=True, text=True, timeout=300, check=False)
    if (
        done.returncode
        and "Could not find a version that satisfies" in done.stderr
        and "from versions: none" in done.stderr
    ):
        pytest.skip("no package index is reached here")
    assert done.returncode == 0, done.stderr
    chosen = done.stdout.partition("Would install ")[2]
    assert all(re.search(rf"\b{name}-\d", chosen, re.IGNORECASE) for name in CORE), chosen
