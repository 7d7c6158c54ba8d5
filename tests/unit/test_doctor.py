# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai doctor` on machines with other packages, drivers and GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_aligner_cai import cli, registry
from nemo_aligner_cai.planning import doctor

_LIGHT = {"hydra-core", "sentencepiece"}


_H100 = (("NVIDIA H100 80GB HBM3", 85.0),)


def on_a_machine_with(*packages: str, graphics: doctor.Graphics | None = None) -> doctor.Report:
    there = {*packages, *doctor._requirements("")}
    return doctor.examine("all", lambda name: "1.0" if name in there else None, lambda: graphics or doctor.Graphics())


def test_packages_that_the_data_half_lacks_are_all_named() -> None:
    lacking = ("aiohttp", "orjson")
    report = doctor.examine("data", lambda name: None if name in lacking else "1.0")
    steps = {step.name: step for step in report.steps}
    assert steps["2 SL-CAI data"].missing == "aiohttp, orjson"
    assert "pip install --constraint" in steps["2 SL-CAI data"].fix and not report.ready("data")


def test_data_needs_no_training_stack() -> None:
    report = on_a_machine_with(*_LIGHT)
    assert report.ready("data")
    assert not report.ready("train")
    assert not report.ready("all")
    lacking = {step.name: step.missing for step in report.steps if step.missing}
    assert lacking["3 SL-CAI model"] == "nemo_toolkit, nemo_aligner, megatron-core, torch"
    assert all("pip install" in step.fix for step in report.steps if step.missing)


def test_a_component_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = registry.BUILTIN | {"judges": {"absent": "nemo_aligner_cai.absent:judge"}}
    for module in (registry, doctor):
        monkeypatch.setattr(module, "BUILTIN", broken)
    report = on_a_machine_with(*_LIGHT)
    assert not report.ready("data")
    assert any("judges: 'absent'" in step.missing for step in report.steps if step.part == "data")


def test_the_critic_needs_pytriton() -> None:
    everything = set(doctor.PACKAGES) - {"nvidia-pytriton"}
    lacking = {step.name: step.missing for step in on_a_machine_with(*everything).steps if step.missing}
    assert lacking == {"6 PPO": "nvidia-pytriton"}
    assert on_a_machine_with(*doctor.PACKAGES).ready("all")


@pytest.mark.parametrize(
    ("version", "wanted", "warning"),
    [
        ("0.6.0", "==0.7.0", "tested with 0.7.0"),
        ("2.5", "~=2.3", ""),
        ("3.0", "~=2.3", "~=2.3 is what is tested"),
        ("2.9.1", "==2.*", ""),
        ("3.0", "==2.*", "==2.* is what is tested"),
        ("0.7.0", "==0.7.0", ""),
        ("2.13.0+cpu", "<2.14,>=2.6", ""),
        ("2.6.0a0+ecf3bae40a.nv25.1", ">=2.6,<2.14", ""),
        ("2.14.0", ">=2.6,<2.14", ">=2.6,<2.14 is what is tested"),
        ("2.5.1", ">=2.6,<2.14", ">=2.6,<2.14 is what is tested"),
        ("1.3", ">1.3,<=1.3.2", ">1.3,<=1.3.2 is what is tested"),
        ("1.3.0", ">1.3", ">1.3 is what is tested"),
        ("1.3.2", ">1.3,<=1.3.2", ""),
        ("2", "<=2.0.0", ""),
        ("3.1", "!=3.1", "!=3.1 is what is tested"),
        ("unknown", "==0.7.0", ""),
        ("1.0", "", ""),
    ],
)
def test_a_version_outside_the_range_is_a_warning(version: str, wanted: str, warning: str) -> None:
    assert doctor.Package("package", version, wanted).warning == warning


def test_what_setup_asks_for_is_compared(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["rich>=13", "numpy<2; extra == 'nemo'", "ray[data]>=2.40; extra == 'ray'", "braceexpand; extra == 'nemo'"]
    asked += ["nvidia-pytriton<0.6,>=0.5.14; (sys_platform == 'linux') and extra == 'nemo'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: asked)
    installed = {"rich": "12.6", "numpy": "2.1", "ray": "2.0", "nvidia-pytriton": "0.7.0", "torch": "1.0"}
    report = doctor.examine("data", installed.get, doctor.Graphics)
    assert {package.name: package.warning for package in report.packages if package.warning} == {
        "rich": ">=13 is what is tested",
        "numpy": "<2 is what is tested",
        "nvidia-pytriton": "<0.6,>=0.5.14 is what is tested",
    }


@pytest.mark.parametrize(
    ("graphics", "lacks", "fix"),
    [
        (doctor.Graphics("550.54.15", "12.4", "12.8", _H100), "", ""),
        (doctor.Graphics(), "", ""),
        (doctor.Graphics("550.54.15", "12.4", "", hidden=True), "", ""),
        (
            doctor.Graphics("550.54.15", "12.4", ""),
            "a CUDA build of torch",
            "pip install --force-reinstall torch",
        ),
        (
            doctor.Graphics("470.1", "11.4", "12.8", cuda_error="too old"),
            "a driver for torch's CUDA 12.8 (470.1 supports 11.4)",
            "install torch for CUDA 11.4",
        ),
        (
            doctor.Graphics("550.54.15", "12.4", "12.8", cuda_error="CUDA unknown error"),
            "a GPU that torch can use (CUDA unknown error)",
            "torch.cuda.init",
        ),
    ],
)
def test_a_driver_that_torch_cannot_use(graphics: doctor.Graphics, lacks: str, fix: str) -> None:
    report = on_a_machine_with(*doctor.PACKAGES, graphics=graphics)
    training = [step for step in report.steps if step.part == "train"]
    assert {step.missing for step in training} == {lacks}
    assert all(step.fix.startswith(fix) or fix in step.fix for step in training)
    assert report.ready("all") is (not lacks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n", "550.54.15"),
        ("something else\n", "of unknown version"),
        (None, None),
    ],
)
def test_the_drivers_version(
    text: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_DRIVER", tmp_path / "version")
    if text is not None:
        (tmp_path / "version").write_text(text, encoding="utf-8")
    assert doctor.driver_version() == expected


@pytest.fixture
def fake_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a torch that a process started from here imports."""
    (tmp_path / "torch").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "torch" / "__init__.py"


def test_torch_is_asked(fake_torch: Path) -> None:
    fake_torch.write_text(
        "from types import SimpleNamespace as N\nversion = N(cuda='12.6')\n"
        "device = N(name='H100', total_memory=85e9)\n"
        "cuda = N(init=lambda: None, device_count=lambda: 2, get_device_properties=lambda n: device)\n",
        encoding="utf-8",
    )
    graphics = doctor.ask_torch()
    assert graphics.torch_cuda == "12.6"
    assert graphics.devices == (("H100", 85.0), ("H100", 85.0))
    fake_torch.write_text(
        "from types import SimpleNamespace as N\nversion = N(cuda='12.6')\n"
        "def init(): raise RuntimeError('The NVIDIA driver is too old\\nmore')\ncuda = N(init=init)\n",
        encoding="utf-8",
    )
    assert doctor.ask_torch().cuda_error == "The NVIDIA driver is too old"


def test_a_torch_that_cannot_be_imported_is_missing(fake_torch: Path) -> None:
    fake_torch.write_text("raise ImportError('no libcudart')\n", encoding="utf-8")
    graphics = doctor.ask_torch()
    assert graphics.error == "ImportError: no libcudart"
    report = on_a_machine_with(*doctor.PACKAGES, graphics=graphics)
    assert report.ready("data")
    assert all("no libcudart" in step.missing for step in report.steps if step.part == "train")


def test_a_torch_that_hangs_is_missing(fake_torch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch.write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setattr(doctor, "TORCH_TIMEOUT_S", 0.5)
    graphics = doctor.ask_torch()
    assert graphics.error == "importing it took more than 0 s"
    assert not on_a_machine_with(*doctor.PACKAGES, graphics=graphics).ready("train")


@pytest.mark.parametrize("terminal", [False, True])
def test_the_report_names_driver_gpus_and_mends(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphics = doctor.Graphics("550.54.15", "12.4", "12.6", _H100)
    report = on_a_machine_with(*set(doctor.PACKAGES) - {"nvidia-pytriton"}, graphics=graphics)
    monkeypatch.setattr("nemo_aligner_cai.commands.doctor.examine", lambda part: report)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    for part in (
        "NVIDIA driver 550.54.15 (CUDA up to 12.4), torch for CUDA 12.6",
        "GPU 0: NVIDIA H100 80GB HBM3, 85 GB",
        "lacks nvidia-pytriton",
        "pip install nvidia-pytriton",
    ):
        assert part in said
    assert ("\x1b[" in said) is terminal  # colors
    assert "step 6 PPO" in said


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NGC_API_KEY", "nvapi-secret")
    for flags in ([], ["--json"]):
        cli.main(["doctor", "--for", "data", *flags])
        said = capsys.readouterr().out
        assert "NGC_API_KEY" in said
        assert "secret" not in said


def test_a_light_installation_is_examined_without_torch(repo_root: Path) -> None:
    # As where neither is installed: importing one of them ends the process.
    code = (
        "import sys\nfor name in ('torch', 'nemo', 'nemo_aligner', 'hydra'): sys.modules[name] = None\n"
        "from nemo_aligner_cai import cli\nsys.exit(cli.main(['doctor', '--json', *sys.argv[1:]]))\n"
    )
    for part, expected in (("data", 0), ("train", 1)):
        done = subprocess.run(
            [sys.executable, "-c", code, "--for", part], cwd=repo_root, capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
        versions = {package["name"]: package["version"] for package in json.loads(done.stdout)["packages"]}
        assert versions["torch"] is None
