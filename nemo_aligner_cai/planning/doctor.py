# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What this machine has for the seven steps, what is missing, and the command that mends it.

The data half is tried: each of its components is imported. The packages of the training stack are looked up, which
takes a moment where importing them takes ten seconds; torch alone is asked, in a process of its own, which CUDA
devices it sees. The driver is known without it, so that a torch that cannot use the GPUs is found.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import zip_longest
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.extras import install_command
from nemo_aligner_cai.registry import OURS, components

PACKAGES = {
    "nemo_toolkit": "nemo",
    "nemo_aligner": "nemo_aligner",
    "megatron-core": "megatron.core",
    "torch": "torch",
    "transformer_engine": "transformer_engine",
    "apex": "apex",
    "tensorrt_llm": "tensorrt_llm",
    "nvidia-pytriton": "pytriton",
    "hydra-core": "hydra",
    "sentencepiece": "sentencepiece",
    "tokenizers": "tokenizers",
    "datasets": "datasets",
}
"""Distribution -> the module that it is imported by."""
KEYS = ("NGC_API_KEY", "NVIDIA_API_KEY")
PARTS = ("data", "train", "all")
_TRAINING = ("nemo_toolkit", "nemo_aligner", "megatron-core", "torch", "hydra-core")
TORCH_TIMEOUT_S = 120.0
"""How long importing torch may take: minutes mean a file system or a driver that does not answer."""
_CONTAINER = "docker run --gpus all -it nvcr.io/nvidia/nemo:25.02.01"
_MEND = f"{install_command('nemo')}, or work in NVIDIA's NeMo container: {_CONTAINER}"
_ASK_TORCH = """
import ctypes, json, torch
found = {"cuda": torch.version.cuda, "driver_cuda": 0, "devices": [], "error": ""}
number = ctypes.c_int()
try:
    if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)) == 0:
        found["driver_cuda"] = number.value
except OSError:
    pass
try:
    if torch.version.cuda:
        torch.cuda.init()
        devices = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        found["devices"] = [[device.name, device.total_memory / 1e9] for device in devices]
except Exception as error:
    found["error"] = str(error).strip().split(chr(10))[0]
print(json.dumps(found))
"""
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Package:
    """A package that some step uses. `version` is None where it is not installed; `wanted` is what is tested with."""

    name: str
    version: str | None
    wanted: str | None = None

    @property
    def warning(self) -> str:
        """What is unusual about its version; "" where nothing is."""
        if self.version is None or self.version == "unknown" or not self.wanted or _within(self.version, self.wanted):
            return ""
        exact = re.fullmatch(r"==([\w.]+)", self.wanted)
        return f"tested with {exact[1]}" if exact else f"{self.wanted} is what is tested"


@dataclass(frozen=True)
class Graphics:
    """The NVIDIA driver, torch and the GPUs that it can use.

    Attributes:
        driver: the driver's version; None where the kernel has none.
        driver_cuda: the newest CUDA that the driver has, "12.4"; "" where that is not known.
        torch_cuda: the CUDA that torch was made for, "12.6"; "" for a torch without.
        devices: names and gigabytes.
        error: why torch cannot be imported; "" where it can.
        cuda_error: why torch cannot use CUDA, in its own words.
        hidden: whether the GPUs are hidden on purpose, by an empty CUDA_VISIBLE_DEVICES.
    """

    driver: str | None = None
    driver_cuda: str = ""
    torch_cuda: str = ""
    devices: tuple[tuple[str, float], ...] = ()
    error: str = ""
    cuda_error: str = ""
    hidden: bool = False

    @property
    def misfit(self) -> tuple[str, str]:
        """Why torch cannot use the GPUs of the driver, and what mends it; empty where it can, or there are none.

        A driver runs what is made for its own CUDA and for older ones, and for newer ones of the same major version
        (CUDA's minor version compatibility).
        """
        if self.driver is None or self.devices or self.error or self.hidden:
            return "", ""
        cpu = 'to work on the CPU all the same, set CUDA_VISIBLE_DEVICES=""'
        if not self.torch_cuda:
            mend = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"
            return "a torch that is made for CUDA", f"{mend}; {cpu}"
        if self.driver_cuda and _release(self.driver_cuda)[0] < _release(self.torch_cuda)[0]:
            return (
                f"a driver for CUDA {self.torch_cuda}, which torch is made for ({self.driver} has {self.driver_cuda})",
                f"update the driver, or install a torch for CUDA {self.driver_cuda}; {cpu}",
            )
        return (
            f"a GPU that torch can use ({self.cuda_error or 'it finds none'})",
            f"python -c 'import torch; torch.cuda.init()' shows why; {cpu}",
        )


@dataclass(frozen=True)
class Step:
    """One of the seven steps. `missing` is what it lacks, "" where it is ready; `mend` is the way to get that."""

    part: str
    name: str
    missing: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Report:
    """What was found. `graphics` is None where torch was not asked; `keys` are the API keys that are set, by name."""

    python: str
    packages: tuple[Package, ...]
    graphics: Graphics | None
    entries: dict[str, str]
    keys: tuple[str, ...]
    steps: tuple[Step, ...]

    def ready(self, part: str) -> bool:
        """Whether every step of a part can be taken."""
        return all(not step.missing for step in self.steps if part in ("all", step.part))


def version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    module = PACKAGES.get(name)
    try:
        if module is not None and importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:
        return None  # a submodule's package is not there
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown" if module else None  # on the path without being installed


def driver_version() -> str | None:
    """The version of the kernel's NVIDIA driver; None where there is none."""
    try:
        text = _DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else "of unknown version"


def ask_torch() -> Graphics:
    """What torch and the driver say of the GPUs; says so where torch cannot be imported, or not in time."""
    graphics = Graphics(driver=driver_version(), hidden=os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"))
    asked = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _ASK_TORCH],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said, complaints = asked.communicate(timeout=TORCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # Not waited for: a process that hangs in the driver cannot even be killed.
        asked.kill()
        return replace(graphics, error=f"importing it took more than {TORCH_TIMEOUT_S:.0f} s")
    if asked.returncode:
        return replace(graphics, error=(complaints.strip().splitlines() or [f"exit code {asked.returncode}"])[-1])
    found = json.loads(said.splitlines()[-1])
    number = int(found["driver_cuda"])
    return replace(
        graphics,
        driver_cuda=f"{number // 1000}.{number % 1000 // 10}" if number else "",
        torch_cuda=found["cuda"] or "",
        devices=tuple((name, memory) for name, memory in found["devices"]),
        cuda_error=found["error"],
    )


def examine(
    part: str = "all",
    find: Callable[[str], str | None] = version,
    ask: Callable[[], Graphics] = ask_torch,
) -> Report:
    """Look at this machine.

    Args:
        part: one of `PARTS`; torch is not asked for "data", which does not use it.
        find: as `version`.
        ask: as `ask_torch`; called where torch is installed.
    """
    wanted = _wanted()
    packages = [Package(name, find(name), wanted.get(name)) for name in PACKAGES]
    # Of the others only those are of interest whose version is not the tested one.
    others = [Package(name, find(name), range_) for name, range_ in wanted.items() if name not in PACKAGES]
    packages += [package for package in others if package.warning]
    installed = {package.name for package in packages if package.version is not None}
    graphics = ask() if "torch" in installed and part != "data" else None
    cuda = graphics is not None and bool(graphics.devices)
    return Report(
        python=sys.version.split()[0],
        packages=tuple(packages),
        graphics=graphics,
        entries=_entries(cuda=cuda) if graphics and installed.issuperset(_TRAINING) else {},
        keys=tuple(key for key in KEYS if os.environ.get(key)),
        steps=_steps(installed, graphics or Graphics()),
    )


def _wanted() -> dict[str, str]:
    """The versions that this package asks for, of what it needs itself and in its extra `nemo`."""
    try:
        requirements = metadata.requires("nemo_aligner_cai") or []
    except metadata.PackageNotFoundError:
        return {}
    ours = (text for text in requirements if "extra ==" not in text or re.search(r"extra == .nemo\b", text))
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*([=<>!~][^;]*)?", text) for text in ours)
    return {match[1]: (match[2] or "").strip() for match in found if match}


def _within(version: str, wanted: str) -> bool:
    """Whether a version is in a range such as ">=2.6,<2.14"; a build's mark such as "+cpu" does not count."""
    release = _release(version)
    for operator, bound in re.findall(r"(==|!=|>=|<=|>|<)\s*([\w.]+)", wanted):
        pairs = list(zip_longest(release, _release(bound), fillvalue=0))
        ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
        holds = {
            "==": ours == theirs,
            "!=": ours != theirs,
            ">=": ours >= theirs,
            "<=": ours <= theirs,
            ">": ours > theirs,
            "<": ours < theirs,
        }
        if not holds[operator]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 7, 0) of "2.7.0a0+7c8ec84dab.nv25.3"."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else (0,)


def _entries(*, cuda: bool) -> dict[str, str]:
    """What `cai train` starts, by stage."""
    from nemo_aligner_cai.training.launch.entry import SCRIPTS, script

    return {
        stage: str(script(stage)) if cuda and script(stage) else f"nemo_aligner_cai.training ({stage})"
        for stage in SCRIPTS
    }


def _broken_component() -> str:
    """Why a judge, prompt, generator, processor or format cannot be imported; "" where all can."""
    for kind in OURS:
        for component in components(kind).values():
            try:
                component.load()
            except UsageError as error:
                return str(error)
    return ""


def _steps(installed: set[str], graphics: Graphics) -> tuple[Step, ...]:
    again = "install again nemo_aligner_cai, from its checkout, or the package that gives it"
    data = (broken, again) if (broken := _broken_component()) else ("", "")
    lacking = [name for name in _TRAINING if name not in installed]
    missing, mend = (", ".join(lacking), _MEND) if lacking else ("", "")
    if graphics.error and not missing:
        missing, mend = f"a torch that can be imported ({graphics.error})", "python -c 'import torch' shows why"
    if not missing:
        missing, mend = graphics.misfit
    fused = [name for name in ("apex", "transformer_engine") if name not in installed]
    if graphics.devices and not missing and fused:
        missing = f"{', '.join(fused)}, which the GPU settings want"
        mend = f"work in NVIDIA's NeMo container, {_CONTAINER}; or give hardware=1xgpu, which does without"
    critic = (missing, mend)
    if not missing and "nvidia-pytriton" not in installed:
        critic = ("nvidia-pytriton", "pip install nvidia-pytriton")
    return (
        Step("data", "1 data", *data),
        Step("train", "1 models (cai checkpoint)", missing, mend),
        Step("data", "2 SL-CAI data", *data),
        Step("train", "3 SL-CAI model", missing, mend),
        Step("data", "4 RL-CAI data", *data),
        Step("train", "5 reward model", missing, mend),
        Step("train", "6 PPO", *critic),
        Step("train", "7 inference (cai serve)", missing, mend),
    )
