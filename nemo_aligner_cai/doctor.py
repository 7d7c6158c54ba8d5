# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What this machine has for the seven steps, what is missing, and the command that mends it.

The data half is tried: each of its components is imported. The packages of the training stack are looked up, which
takes a moment where importing them takes ten seconds; torch alone is asked, in a process of its own, which CUDA
devices it sees.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from nemo_aligner_cai.components import OURS, components
from nemo_aligner_cai.errors import UsageError

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
_MEND = 'pip install "nemo_aligner_cai[nemo]", or work in NVIDIA\'s NeMo container'
_ASK_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())] if cuda else []
print(json.dumps([[device.name, device.total_memory / 1e9] for device in devices]))
"""


@dataclass(frozen=True)
class Package:
    """A package that some step uses. `version` is None where it is not installed; `wanted` is what is tested with."""

    name: str
    version: str | None
    wanted: str | None = None

    @property
    def warning(self) -> str:
        """What is unusual about its version; "" where nothing is."""
        exact = re.fullmatch(r"==([\w.]+)", self.wanted or "")
        if self.version is None or exact is None or self.version.split("+")[0] == exact[1]:
            return ""
        return f"tested with {exact[1]}"


@dataclass(frozen=True)
class Step:
    """One of the seven steps. `missing` is what it lacks, "" where it is ready; `mend` is the way to get that."""

    part: str
    name: str
    missing: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Report:
    """What was found. `devices` are names and gigabytes; `keys` the API keys that are set, by their variables."""

    python: str
    packages: tuple[Package, ...]
    devices: tuple[tuple[str, float], ...]
    entries: dict[str, str]
    keys: tuple[str, ...]
    steps: tuple[Step, ...]

    def ready(self, part: str) -> bool:
        """Whether every step of a part can be taken."""
        return all(not step.missing for step in self.steps if part in ("all", step.part))


def version(name: str) -> str | None:
    """The version of a distribution of `PACKAGES`, None where it is not installed."""
    module = PACKAGES[name]
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except ModuleNotFoundError:
        return None  # a submodule's package is not there
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"  # on the path without being installed


def cuda_devices() -> tuple[tuple[tuple[str, float], ...], str]:
    """The CUDA devices that torch sees, and why torch cannot be imported, "" where it can."""
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ASK_TORCH], capture_output=True, text=True, timeout=120, check=False
    )
    if asked.returncode:
        return (), (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
    return tuple((name, memory) for name, memory in json.loads(asked.stdout.splitlines()[-1])), ""


def examine(
    find: Callable[[str], str | None] = version,
    ask_torch: Callable[[], tuple[tuple[tuple[str, float], ...], str]] = cuda_devices,
) -> Report:
    """Look at this machine.

    Args:
        find: as `version`.
        ask_torch: as `cuda_devices`; called where torch is installed.
    """
    wanted = _wanted()
    packages = tuple(Package(name, find(name), wanted.get(name)) for name in PACKAGES)
    installed = {package.name for package in packages if package.version is not None}
    devices, torch_error = ask_torch() if "torch" in installed else ((), "")
    return Report(
        python=sys.version.split()[0],
        packages=packages,
        devices=devices,
        entries=_entries(cuda=bool(devices)) if installed.issuperset(_TRAINING) else {},
        keys=tuple(key for key in KEYS if os.environ.get(key)),
        steps=_steps(installed, cuda=bool(devices), torch_error=torch_error),
    )


def _wanted() -> dict[str, str]:
    """The versions that this package's extra `nemo` asks for."""
    try:
        requirements = metadata.requires("nemo_aligner_cai") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (re.match(r"([\w-]+)\s*([=<>!~][^;]*)?;.*extra == .nemo.", text) for text in requirements)
    return {match[1]: (match[2] or "").strip() for match in found if match}


def _entries(*, cuda: bool) -> dict[str, str]:
    """What `cai train` starts, by stage."""
    from nemo_aligner_cai.training.entry import SCRIPTS, script

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


def _steps(installed: set[str], *, cuda: bool, torch_error: str) -> tuple[Step, ...]:
    broken = _broken_component()
    data = (broken, "install nemo_aligner_cai again, or the package that gives it") if broken else ("", "")
    lacking = [name for name in _TRAINING if name not in installed]
    missing, mend = (", ".join(lacking), _MEND) if lacking else ("", "")
    if torch_error and not missing:
        missing, mend = f"a torch that can be imported ({torch_error})", "python -c 'import torch' shows why"
    fused = [name for name in ("apex", "transformer_engine") if name not in installed]
    if cuda and not missing and fused:
        missing, mend = f"{', '.join(fused)}, which the GPU settings want", "work in NVIDIA's NeMo container"
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
