# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the seven steps this machine can run, what the others lack, and the command that installs it.

The components of the data half are imported. Of the training stack only the installed versions are read, because
importing it takes ten seconds. torch is imported in a subprocess, to list the CUDA devices that it can use. The driver
version is read separately, which shows when torch cannot use the GPUs of this machine.
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
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.extras import install_command
from nemo_aligner_cai.registry import BUILTIN, components

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
"""Distribution -> its import name."""
KEYS = ("NGC_API_KEY", "NVIDIA_API_KEY")
PARTS = ("data", "train", "all")
_TRAINING = ("nemo_toolkit", "nemo_aligner", "megatron-core", "torch", "hydra-core")
TORCH_TIMEOUT_S = 120.0
"""Longer than any import of torch; a file system or driver that hangs takes longer."""
# In the container nothing that is there may be changed.
_INSTALL_CORE = "pip install --constraint <(pip list --format=freeze) . in the checkout, in bash"
_CONTAINER = "docker run --gpus all -it nvcr.io/nvidia/nemo:25.02.01"
_INSTALL_TRAINING = f"{install_command('nemo')}, or use NVIDIA's NeMo container: {_CONTAINER}"
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
    """A package that some step uses.

    Attributes:
        name: the distribution.
        version: None if it is not installed; "unknown" if it can be imported without being installed.
        wanted: the tested versions as a PEP 440 specifier; None or "" for any.
    """

    name: str
    version: str | None
    wanted: str | None = None

    @property
    def warning(self) -> str:
        """The tested versions, if the installed one is not among them; else ""."""
        if not self.wanted or self.version is None or self.version == "unknown":
            return ""
        try:
            # NVIDIA's containers have builds such as 2.6.0a0+ecf3bae40a, which PEP 440 orders before 2.6.
            if Version(self.version).base_version in SpecifierSet(self.wanted):
                return ""
        except InvalidVersion:
            return f"{self.version} is not a version of PEP 440; tested with {self.wanted}"
        exact = re.fullmatch(r"==([\w.]+)", self.wanted)
        return f"tested with {exact[1]}" if exact else f"{self.wanted} is what is tested"


@dataclass(frozen=True)
class Graphics:
    """The NVIDIA driver, torch, and the GPUs that torch can use.

    Attributes:
        driver: the driver's version; None if no driver is loaded.
        driver_cuda: the newest CUDA version that the driver supports, e.g. "12.4"; "" if unknown.
        torch_cuda: the CUDA version that torch was built for, e.g. "12.6"; "" for a CPU build.
        devices: (name, gigabytes) of each GPU.
        error: why torch cannot be imported; "" if it can.
        cuda_error: torch's message if it cannot initialize CUDA.
        hidden: CUDA_VISIBLE_DEVICES hides all GPUs.
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
        """The obstacle to using the GPUs with torch, and the fix; two empty strings if there is none.

        A driver supports its own CUDA version, older ones, and newer ones of the same major version (CUDA's minor
        version compatibility).
        """
        if self.driver is None or self.devices or self.error or self.hidden:
            return "", ""
        cpu = 'to use the CPU, set CUDA_VISIBLE_DEVICES=""'
        if not self.torch_cuda:
            install = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"
            return "a CUDA build of torch", f"{install}; {cpu}"
        if self.driver_cuda and Version(self.driver_cuda).major < Version(self.torch_cuda).major:
            return (
                f"a driver for torch's CUDA {self.torch_cuda} ({self.driver} supports {self.driver_cuda})",
                f"update the driver, or install torch for CUDA {self.driver_cuda}; {cpu}",
            )
        return (
            f"a GPU that torch can use ({self.cuda_error or 'it finds none'})",
            f"python -c 'import torch; torch.cuda.init()' shows why; {cpu}",
        )


@dataclass(frozen=True)
class Step:
    """One of the seven steps. `missing` is what it lacks, "" if it is ready; `fix` says how to fix it."""

    part: str
    name: str
    missing: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """The state of this machine.

    Attributes:
        python: the interpreter's version.
        packages: those of `PACKAGES`, and other requirements whose version is not a tested one.
        graphics: None if torch was not queried.
        entries: the stages of `cai train` -> the script or module that runs.
        keys: names of the API keys that are set.
        steps: the seven steps.
    """

    python: str
    packages: tuple[Package, ...]
    graphics: Graphics | None
    entries: dict[str, str]
    keys: tuple[str, ...]
    steps: tuple[Step, ...]

    def ready(self, part: str) -> bool:
        """True if no step of a part lacks anything."""
        return all(not step.missing for step in self.steps if part in ("all", step.part))


def version(name: str) -> str | None:
    """The version of a distribution; None if it is not installed."""
    module = PACKAGES.get(name)
    try:
        if module is not None and importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:
        return None  # the parent package of a submodule is missing
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown" if module else None  # on the path without being installed


def driver_version() -> str | None:
    """The version of the kernel's NVIDIA driver; None if no driver is loaded."""
    try:
        text = _DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else "of unknown version"


def ask_torch() -> Graphics:
    """Query torch and the driver about GPUs. An import error or a timeout is in the result's `error`."""
    graphics = Graphics(driver=driver_version(), hidden=os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _ASK_TORCH],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=TORCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # No wait() afterwards: a process that hangs in the driver cannot be killed.
        process.kill()
        return replace(graphics, error=f"importing it took more than {TORCH_TIMEOUT_S:.0f} s")
    if process.returncode:
        return replace(graphics, error=(stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    found = json.loads(stdout.splitlines()[-1])
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
    """Examine this machine.

    Args:
        part: one of `PARTS`; torch is not queried for "data", which does not use it.
        find: returns a distribution's version, like `version`.
        ask: queries torch, like `ask_torch`; called only if torch is installed.
    """
    core, wanted = _requirements(""), _requirements("nemo")
    packages = [Package(name, find(name), wanted.get(name)) for name in PACKAGES]
    others = [Package(name, find(name), specifier) for name, specifier in wanted.items() if name not in PACKAGES]
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
        steps=_steps(installed, [name for name in core if find(name) is None], graphics or Graphics()),
    )


def _requirements(extra: str) -> dict[str, str]:
    """The tested versions of this package's own requirements and those of an extra, by distribution."""
    try:
        requirements = [Requirement(text) for text in metadata.requires("nemo_aligner_cai") or []]
    except metadata.PackageNotFoundError:
        return {}
    return {
        requirement.name: str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    }


def _entries(*, cuda: bool) -> dict[str, str]:
    """The script or module that `cai train` runs, by stage."""
    from nemo_aligner_cai.training.launch.entry import SCRIPTS, script

    return {
        stage: str(script(stage)) if cuda and script(stage) else f"nemo_aligner_cai.training ({stage})"
        for stage in SCRIPTS
    }


def _broken_component() -> str:
    """The import error of the first built-in or plug-in component that has one; "" if none has."""
    for kind in BUILTIN:
        for component in components(kind).values():
            try:
                component.load()
            except UsageError as error:
                return str(error)
    return ""


def _steps(installed: set[str], absent: list[str], graphics: Graphics) -> tuple[Step, ...]:
    """The seven steps; `absent` are the requirements of the data half that are not installed."""
    data = ("", "")
    if absent:
        data = (", ".join(absent), _INSTALL_CORE)
    elif broken := _broken_component():
        data = (broken, "reinstall nemo_aligner_cai, or the package that provides the component")
    lacking = [name for name in _TRAINING if name not in installed]
    missing, fix = (", ".join(lacking), _INSTALL_TRAINING) if lacking else ("", "")
    if graphics.error and not missing:
        missing, fix = f"a working torch ({graphics.error})", "python -c 'import torch' shows why"
    if not missing:
        missing, fix = graphics.misfit
    fused = [name for name in ("apex", "transformer_engine") if name not in installed]
    if graphics.devices and not missing and fused:
        missing = f"{', '.join(fused)}, which the GPU settings need"
        fix = f"use NVIDIA's NeMo container, {_CONTAINER}; or set hardware=1xgpu, which does not need them"
    critic = (missing, fix)
    if not missing and "nvidia-pytriton" not in installed:
        critic = ("nvidia-pytriton", "pip install nvidia-pytriton")
    return (
        Step("data", "1 data", *data),
        Step("train", "1 models (cai checkpoint)", missing, fix),
        Step("data", "2 SL-CAI data", *data),
        Step("train", "3 SL-CAI model", missing, fix),
        Step("data", "4 RL-CAI data", *data),
        Step("train", "5 reward model", missing, fix),
        Step("train", "6 PPO", *critic),
        Step("train", "7 inference (cai serve)", missing, fix),
    )
