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
"""A Hugging Face model made on the spot, as a .nemo file: the same logits, and back the same weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.training import run
from tests.functional.conftest import ENV, TIMEOUT_S, Lab

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "sliding_window": 64, "head_dim": 16},
    "llama3": {
        "model_type": "llama",
        "rope_scaling": _LLAMA3_ROPE,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
}
# In a process of its own: the CPU module's patches are for NeMo, not for the tests beside it.
_LOGITS = """
import sys, torch
from nemo_aligner_cai.training import config, cpu
cpu.install()
from nemo_aligner_cai.training.inference_server import load_model
cfg = config.compose("cai_inference", [f"gpt_model_file={sys.argv[1]}", "hardware=cpu"])
model = load_model(cfg)
ids = torch.load(sys.argv[2])
positions = torch.arange(ids.shape[1]).expand_as(ids)
mask = torch.triu(torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool), 1)[None, None]
from megatron.core import parallel_state
if not torch.distributed.is_initialized():
    model.trainer.strategy.launcher.launch(lambda: None, trainer=model.trainer)
    model.trainer.strategy.setup_environment()
with torch.no_grad():
    torch.save(model.model(ids, positions, mask), sys.argv[3])
"""


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp(request.param)
    vocabulary = SentencePieceProcessor(model_file=str(lab.folder / "tokenizer.model")).vocab_size()
    settings = MODELS[request.param]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            **settings,
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            vocab_size=vocabulary,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(folder, max_shard_size="100KB")
    shutil.copy(lab.folder / "tokenizer.model", folder)
    return folder


def test_logits_and_weights_are_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    nemo, back = tmp_path / "model.nemo", tmp_path / "back"
    convert = [sys.executable, "-m", "nemo_aligner_cai.cli", "checkpoint"]
    monkeypatch.setenv("NEMO_HOME", str(tmp_path))
    env = os.environ | ENV | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}

    def start(*command: str) -> None:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    start(*convert, "to-nemo", str(folder), str(nemo), "--precision", "32")
    assert cli.main(["checkpoint", "to-hf", str(nemo), str(folder), str(back)]) == 0
    theirs, again = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (folder, back))
    state, other = theirs.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)

    ids = torch.randint(3, theirs.config.vocab_size, (2, 48), generator=torch.Generator().manual_seed(0))
    torch.save(ids, tmp_path / "ids.pt")
    start(sys.executable, "-c", _LOGITS, str(nemo), str(tmp_path / "ids.pt"), str(tmp_path / "logits.pt"))
    logits = torch.load(tmp_path / "logits.pt")[..., : theirs.config.vocab_size]
    with torch.no_grad():
        expected = theirs(ids).logits
    assert expected.abs().max() > 0.5
    assert (logits - expected).abs().max() <= 1e-4


def test_what_is_not_known_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.loads((folder / "config.json").read_text())
    for key, value in (
        ("model_type", "gpt2"),
        ("attention_bias", True),
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    ):
        other = tmp_path / key
        shutil.copytree(folder, other)
        (other / "config.json").write_text(json.dumps(settings | {key: value}))
        assert cli.main(["checkpoint", "to-nemo", str(other), str(tmp_path / "out.nemo")]) == 2
        assert f"{key}=" in capsys.readouterr().err


def test_a_weight_that_is_missing_or_too_many_is_named_before_nemo_is_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    for change, said in (("missing", "model.norm.weight is missing"), ("extra", "no place for the weight a.b")):
        other = tmp_path / change
        shutil.copytree(folder, other)
        for file in other.glob("*.safetensors"):
            weights = load_file(file)
            weights.pop("model.norm.weight" if change == "missing" else "", None)
            save_file(weights | ({"a.b": next(iter(weights.values())).clone()} if change == "extra" else {}), file)
        assert cli.main(["checkpoint", "to-nemo", str(other), str(tmp_path / "out.nemo")]) == 2
        assert said in capsys.readouterr().err


def test_nemos_own_converter_is_started_where_it_and_a_gpu_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((folder / "config.json").read_text())
    name = {"llama": "convert_llama", "mistral": "convert_mistral_7b"}[settings["model_type"]]
    script = tmp_path / "scripts" / "checkpoint_converters" / f"{name}_hf_to_nemo.py"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setenv("NEMO_HOME", str(tmp_path))
    words = ["checkpoint", "to-nemo", str(folder), str(tmp_path / "out.nemo"), "--print-command"]
    assert cli.main(words) == 0
    assert "in this process" in capsys.readouterr().out
    monkeypatch.setattr(run, "gpu_count", lambda: 1)
    if settings["model_type"] == "llama":
        assert cli.main(words) == 2
        assert "rope_scaling.factor=4.0" in capsys.readouterr().err
        return
    assert cli.main(words) == 0
    end = f"--input_name_or_path {folder} --output_path {tmp_path / 'out.nemo'} --precision bf16\n"
    assert capsys.readouterr().out.endswith(f"{script} {end}")
