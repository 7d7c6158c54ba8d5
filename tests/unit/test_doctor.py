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
"""What `cai doctor` says about machines, this one and others."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_aligner_cai import cli, components, doctor

_LIGHT = {"hydra-core", "sentencepiece"}


def on_a_machine_with(*packages: str) -> doctor.Report:
    return doctor.examine(lambda name: "1.0" if name in packages else None, lambda: ((), ""))


def test_data_needs_no_training_stack() -> None:
    report = on_a_machine_with(*_LIGHT)
    assert report.ready("data")
    assert not report.ready("train")
    assert not report.ready("all")
    lacking = {step.name: step.missing for step in report.steps if step.missing}
    assert lacking["3 SL-CAI model"] == "nemo_toolkit, nemo_aligner, megatron-core, torch"
    assert all("pip install" in step.mend for step in report.steps if step.missing)


def test_a_component_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = components.OURS | {"judges": {"absent": "nemo_aligner_cai.absent:judge"}}
    for module in (components, doctor):
        monkeypatch.setattr(module, "OURS", broken)
    report = on_a_machine_with(*_LIGHT)
    assert not report.ready("data")
    assert any("judges: 'absent'" in step.missing for step in report.steps if step.part == "data")


def test_the_critic_needs_pytriton() -> None:
    everything = set(doctor.PACKAGES) - {"nvidia-pytriton"}
    lacking = {step.name: step.missing for step in on_a_machine_with(*everything).steps if step.missing}
    assert lacking == {"6 PPO": "nvidia-pytriton"}
    assert on_a_machine_with(*doctor.PACKAGES).ready("all")


def test_another_version_than_the_tested_one_is_a_warning() -> None:
    assert doctor.Package("nemo_aligner", "0.6.0", "==0.7.0").warning == "tested with 0.7.0"
    assert not doctor.Package("nemo_aligner", "0.7.0", "==0.7.0").warning
    assert not doctor.Package("torch", "2.13.0+cpu", ">=2.6,<2.14").warning


def test_a_torch_that_cannot_be_imported_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nemo_aligner", reason="the training extra is not installed")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no libcudart')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = doctor.examine()
    assert report.ready("data")
    assert all("no libcudart" in step.missing for step in report.steps if step.part == "train")


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
