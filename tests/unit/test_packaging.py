# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: what it imports, what it ships, what it is pinned to."""

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import nemo_aligner_cai
from nemo_aligner_cai.cli import COMMANDS
from tests.unit.pinned import PYTHONS, hashed, pinned
from tests.wheel import build_wheel, copy_sources, run_pip

# What the core does not require: were any of it imported, the data half would not start on a laptop.
NOT_CORE = [
    "datasets",
    "hydra",
    "lightning",
    "matplotlib",
    "megatron",
    "nemo",
    "nemo_aligner",
    "omegaconf",
    "pandas",
    "pytriton",
    "ray",
    "sentencepiece",
    "torch",
    "transformers",
]

# Imports every module but those of training/ and tiny/, and shows every command's help, with NOT_CORE out of reach.
IMPORT_THE_DATA_HALF = f"""
import contextlib, importlib, io, json, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {NOT_CORE!r}:
            raise ImportError(f"the data half imports {{name}}")

sys.meta_path.insert(0, Blocked())
import nemo_aligner_cai
from nemo_aligner_cai import cli

imported = []
def walk(package):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name in ("nemo_aligner_cai.training", "nemo_aligner_cai.tiny", "nemo_aligner_cai.conf"):
            continue
        imported.append(module.name)
        loaded = importlib.import_module(module.name)
        if module.ispkg:
            walk(loaded)
walk(nemo_aligner_cai)

for command in cli.COMMANDS:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        try:
            cli.main([command, "--help"])
        except SystemExit as stopped:
            assert stopped.code == 0, command
    assert f"cai {{command}}" in shown.getvalue(), command
json.dump(imported, sys.stdout)
"""

READ_SETUP_PY = """
import json, setuptools, sys
from distutils.core import run_setup
read = run_setup("setup.py", stop_after="init")
names = ("packages", "install_requires", "extras_require")
asked = {"version": read.get_version(), "classifiers": read.get_classifiers()}
json.dump({**asked, **{name: getattr(read, name) for name in names}}, sys.stdout)
"""

SHOW_HYDRA_PLUGINS = """
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
print([plugin.__module__ for plugin in Plugins.instance().discover(SearchPathPlugin)])
"""


# As upstream's scripts are: NeMo's decorator, configs of its own, and not a word of this package.
A_SCRIPT_OF_UPSTREAMS_KIND = """
import sys
from nemo.core.config import hydra_runner

@hydra_runner(config_path="conf", config_name="theirs")
def main(cfg):
    raise AssertionError("--cfg job only shows the configuration")

main()
sys.stderr.write("found in " + sys.modules["nemo_aligner_cai"].__file__ + "\\n")
"""


def run_python(code: str, *, cwd: Path, **env: str) -> str:
    """Run ``code`` in a new interpreter and return its standard output; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def definition(repo_root: Path) -> dict[str, Any]:
    """What ``setup.py`` says, as setuptools reads it."""
    pytest.importorskip("setuptools", reason="setuptools is needed to read setup.py")
    return json.loads(run_python(READ_SETUP_PY, cwd=repo_root))


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    """Each version of Python that the constraints are for."""
    return request.param


@pytest.fixture
def pins(python: str) -> dict[str, str]:
    """The tested version of each distribution, by its canonical name."""
    return pinned("cpu.txt", python)


def test_data_half_imports_neither_torch_nor_nemo(repo_root):
    imported = json.loads(run_python(IMPORT_THE_DATA_HALF, cwd=repo_root, PYTHONPATH=str(repo_root)))
    names = {name.removeprefix("nemo_aligner_cai.") for name in imported}
    assert {
        "constitution",
        "chat",
        "prompts",
        "models",
        "engine",
        "judges",
        "data",
        "stages",
        "evaluation",
        "cli",
    } <= names


def test_every_command_is_registered(repo_root):
    folder = repo_root / "nemo_aligner_cai" / "commands"
    modules = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in folder.rglob("*.py")
        if "\ndef add_arguments(" in path.read_text(encoding="utf-8")
    }
    assert {module for module, _ in COMMANDS.values()} == modules


def test_version_is_the_top_of_the_changelog(repo_root, definition):
    changelog = (repo_root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == nemo_aligner_cai.__version__
    assert definition["version"] == nemo_aligner_cai.__version__


def test_every_package_is_shipped(repo_root, definition):
    folders = {path.parent for path in (repo_root / "nemo_aligner_cai").rglob("*.py")}
    assert {".".join(folder.relative_to(repo_root).parts) for folder in folders} <= set(definition["packages"])
    assert all((folder / "__init__.py").is_file() for folder in folders)
    assert not (repo_root / "hydra_plugins" / "__init__.py").exists(), "would hide other distributions' plug-ins"


def test_every_source_file_has_the_licence_header(repo_root):
    header = (repo_root / "setup.py").read_text(encoding="utf-8").splitlines()[:2]
    assert header[1] == "# SPDX-License-Identifier: Apache-2.0"
    folders = ("nemo_aligner_cai", "hydra_plugins", "examples", "tests")
    files = [path for folder in folders for path in (repo_root / folder).rglob("*.py") if path.stat().st_size]
    assert len(files) > 20
    assert [path for path in files if path.read_text(encoding="utf-8").splitlines()[:2] != header] == []


def test_what_make_installs_is_pinned(definition, pins):
    extras = ("nemo", "dev")
    wanted = [
        *definition["install_requires"],
        *(line for extra in extras for line in definition["extras_require"][extra]),
    ]
    assert len(wanted) > 30
    for requirement in map(Requirement, wanted):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_torch_is_pinned_without_a_local_version(pins):
    # "2.13.0" accepts PyTorch's CPU build and the one with CUDA; "2.13.0+cpu" is on no default index.
    assert pins["torch"] == "2.13.0"


def test_installed_plugin_is_seen_by_hydra(tmp_path):
    pytest.importorskip("hydra", reason="Hydra comes with the extra nemo")
    try:
        importlib.metadata.distribution("nemo_aligner_cai")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed in this environment")
    seen = ast.literal_eval(run_python(SHOW_HYDRA_PLUGINS, cwd=tmp_path, PYTHONPATH=""))
    assert any(module.startswith("hydra_plugins.nemo_aligner_cai") for module in seen), seen


@pytest.fixture(scope="session")
def sources(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources."""
    return copy_sources(repo_root, tmp_path_factory.mktemp("sources") / "repository")


@pytest.fixture(scope="session")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build_wheel(sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def installed(request: pytest.FixtureRequest, sources: Path, tmp_path: Path) -> list[Path]:
    """The folders of Python's path that an installation adds: of the wheel, or an editable one."""
    target = tmp_path / "installed"
    install = ("install", "-q", "--no-deps", "--no-build-isolation", "--target", target)
    if request.param == "wheel":
        run_pip(*install, request.getfixturevalue("wheel"), cwd=tmp_path)
        return [target]
    run_pip(*install, "--editable", sources, cwd=tmp_path)
    # Python reads .pth files in its own folders only; a strict editable install's names one folder of links.
    (pth,) = target.glob("*.pth")
    (links,) = pth.read_text(encoding="utf-8").splitlines()
    assert Path(links).is_relative_to(sources)
    return [target, Path(links)]


@pytest.mark.slow
def test_wheel_holds_the_package_the_configs_and_the_plugin(wheel, repo_root):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(repo_root).as_posix()
        for path in (repo_root / "nemo_aligner_cai").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    conf = repo_root / "examples" / "nlp" / "gpt" / "conf"
    configs = {f"nemo_aligner_cai/conf/{path.relative_to(conf).as_posix()}" for path in conf.rglob("*.yaml")}
    assert len(configs) >= 5
    examples = {
        f"nemo_aligner_cai/examples/{path.name}"
        for path in (repo_root / "examples" / "nlp" / "cai").iterdir()
        if path.is_file()
    }
    assert {f"nemo_aligner_cai/examples/{name}.yaml" for name in ("mistral_7b", "mistral_7b_slurm")} < examples
    expected = (
        package
        | configs
        | examples
        | {"nemo_aligner_cai/conf/__init__.py", "hydra_plugins/nemo_aligner_cai/__init__.py"}
    )
    assert expected <= held
    assert {name for name in held - expected if not name.startswith("hydra_plugins/nemo_aligner_cai/")} == set()


@pytest.mark.slow
def test_wheel_requires_only_the_core(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()

    def values(field: str) -> list[str]:
        return [line.partition(": ")[2] for line in lines if line.startswith(f"{field}: ")]

    required = [Requirement(text) for text in values("Requires-Dist")]
    core = {requirement.name for requirement in required if "extra" not in str(requirement.marker)}
    assert core == {"aiohttp", "aiolimiter", "jinja2", "orjson", "packaging", "pydantic", "pyyaml", "rich", "scipy"}
    assert SpecifierSet(">=3.10,<3.13") in [SpecifierSet(text) for text in values("Requires-Python")]
    assert "nemo" in values("Provides-Extra")


@pytest.mark.slow
def test_plugin_of_the_wheel_finds_the_configs_of_the_wheel(wheel, tmp_path):
    pytest.importorskip("hydra", reason="Hydra comes with the extra nemo")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "from hydra import compose, initialize\n"
        "initialize(config_path=None, version_base=None)\n"
        "import nemo_aligner_cai; print(nemo_aligner_cai.__file__)\n"
        "print(sorted(compose('cai_sft')))"
    )
    where, keys = run_python(code, cwd=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert {"model", "trainer"} <= set(ast.literal_eval(keys))


@pytest.mark.slow  # NeMo's import
@pytest.mark.skipif(importlib.util.find_spec("nemo") is None, reason="NeMo comes with the extra nemo")
@pytest.mark.parametrize("installed", ["wheel", "editable"], indirect=True)
def test_a_script_of_upstreams_kind_finds_the_configs_and_groups_of_an_installation(installed, tmp_path):
    from omegaconf import OmegaConf

    from nemo_aligner_cai.training import config

    folder = tmp_path / "upstream"
    (folder / "conf").mkdir(parents=True)
    (folder / "conf" / "theirs.yaml").write_text("theirs: true\n", encoding="utf-8")
    (folder / "train_gpt_sft.py").write_text(A_SCRIPT_OF_UPSTREAMS_KIND, encoding="utf-8")
    groups = ["model=tiny", "hardware=cpu", "data=cai"]
    done = subprocess.run(
        [sys.executable, "train_gpt_sft.py", "--config-name=cai_sft", *groups, "--cfg", "job"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, installed))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"^found in (.+)$", done.stderr, re.MULTILINE)
    assert Path(found) == installed[-1] / "nemo_aligner_cai" / "__init__.py"
    expected = OmegaConf.to_yaml(config.compose("cai_sft", groups))
    assert yaml.safe_load(done.stdout) == yaml.safe_load(expected)


def test_c6_every_pin_has_a_hash(python: str, pins: dict[str, str]) -> None:
    assert pinned("cpu.hashes.txt", python) == pins
    hashes = hashed("cpu.hashes.txt", python)
    assert len(hashes) > 170
    assert all(hashes.values())
    assert pinned("torch-cpu.hashes.txt", python) == {"torch": f"{pins['torch']}+cpu"}
    assert hashed("torch-cpu.hashes.txt", python)["torch"].isdisjoint(hashes["torch"]), "without CUDA and with"


def test_c6_a_compiled_distribution_has_a_file_for_each_python(pins: dict[str, str]) -> None:
    # A wheel of each is for one version of Python: each version needs one of its own.
    for name in ("aiohttp", "numpy", "pyyaml", "sentencepiece", "torch"):
        assert len(hashed("cpu.hashes.txt", "3.11")[name]) >= len(PYTHONS), name
        assert name in pins


def test_c6_what_is_built_from_source_has_its_tools_first(python: str, pins: dict[str, str]) -> None:
    assert "setuptools" in pins
    # Megatron-Core has no wheel for Python 3.12, and its setup.py runs pybind11.
    assert ("pybind11" in pins) == (python == "3.12")


def test_c6_the_other_files_hold_nothing_but_what_is_needed_besides(
    python: str, pins: dict[str, str], definition: dict[str, Any]
) -> None:
    cpu, cuda, data, tests, docs = (
        hashed(f"{name}.hashes.txt", python) for name in ("cpu", "cuda", "data", "core", "docs")
    )
    assert any(name.startswith("nvidia-") for name in cuda)
    assert cuda.keys().isdisjoint(pins)
    core = {canonicalize_name(Requirement(line).name) for line in definition["install_requires"]}
    assert core <= data.keys() & docs.keys()
    assert all(hashes >= cpu[name] for name, hashes in data.items()), "the same versions, for more machines"
    assert data.keys() < tests.keys() and all(hashes == cpu[name] for name, hashes in tests.items())
    assert all(cuda.values()) and all(docs.values())


def test_c6_make_takes_the_versions_that_setup_names(repo_root: Path, python: str, definition: dict[str, Any]) -> None:
    assert f"Programming Language :: Python :: {python}" in definition["classifiers"]
    checks = re.findall(r"call CHECK_PYTHON,([\d. ]+)\)", (repo_root / "Makefile").read_text(encoding="utf-8"))
    assert checks.count(" ".join(PYTHONS)) == 3, "the data half, the docs and the training stack"
    assert set(checks) == {" ".join(PYTHONS), "3.11"}


def test_c6_make_and_docker_install_no_file_without_a_hash(repo_root: Path) -> None:
    for line in (repo_root / "Makefile").read_text(encoding="utf-8").splitlines():
        if line.startswith("\t") and ("pip install" in line or "$(PIP_INSTALL)" in line):
            assert "--require-hashes -r" in line or line.endswith(" -e ."), line
    data = (repo_root / "Dockerfile").read_text(encoding="utf-8").partition(" AS data")[2].partition("\nFROM ")[0]
    installs = re.findall(r"pip install ([^&]*)", data)
    assert len(installs) == 2
    assert all("--require-hashes" in one or "--no-index --no-deps" in one for one in installs)
