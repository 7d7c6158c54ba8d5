# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model made on the spot, as a .nemo file: the same logits, trained from there, and back again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import cli
from nemo_aligner_cai.training.checkpoints.nemo_archive import MODEL_CONFIG
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.launch import jobs, stage_main
from tests.functional.conftest import ENV, TIMEOUT_S, Lab
from tests.functional.model_job import TE_STATES

# Llama 3.2's factor, which NeMo's converter does not know.
_LLAMA32_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "sliding_window": 64, "head_dim": 16},
    "llama3": {
        "model_type": "llama",
        "rope_scaling": _LLAMA32_ROPE,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
}
ELSEWHERE = "/nowhere/llama3"
"""What the Llama's .nemo file names as its tokenizer's folder: one that was moved away since."""


@pytest.fixture(scope="module", params=MODELS)
def kind(request: pytest.FixtureRequest) -> str:
    """Mistral: float32, safetensors, SentencePiece. Llama 3: bfloat16, pytorch_model.bin, tokenizer.json, tied."""
    return request.param


@pytest.fixture(scope="module")
def folder(kind: str, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp(kind)
    pieces = SentencePieceProcessor(model_file=str(lab.folder / "tokenizer.model"))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            **MODELS[kind],
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            vocab_size=pieces.vocab_size(),
            initializer_range=0.2,
        )
    )
    if kind == "mistral":
        model.save_pretrained(folder, max_shard_size="100KB")
        shutil.copy(lab.folder / "tokenizer.model", folder)
    else:
        model.bfloat16().save_pretrained(folder, max_shard_size="100KB", safe_serialization=False)
        assert len(list(folder.glob("pytorch_model-*.bin"))) > 1
        words(pieces, folder)
    return folder


def words(pieces: Any, folder: Path) -> None:
    """Write the pieces as words of a tokenizer in Hugging Face's form."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {pieces.id_to_piece(number).removeprefix("▁"): number for number in range(pieces.vocab_size())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def nemo(kind: str, folder: Path) -> Path:
    """The folder as a .nemo file in the precision of its weights: by the command, or by a job, which is faster."""
    target = folder.parent / f"{folder.name}-made" / "model.nemo"
    if kind == "mistral":
        command = [sys.executable, "-m", "nemo_aligner_cai.cli", "checkpoint", "to-nemo", str(folder), str(target)]
        root = str(Path(__file__).resolve().parents[2])
        env = os.environ | ENV | {"PYTHONPATH": root, "NEMO_HOME": str(folder)}
        done = subprocess.run(
            [*command, "--precision", "32"], env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said, dtype = done.stderr, "float32"
    else:
        log = folder.parent / f"{folder.name}.log"
        overrides = [f"gpt_model_file={target}", f"+source={folder}", f"+tokenizer_name={ELSEWHERE}"]
        jobs.finish(jobs.start("tests.functional.convert_job", overrides, log, ENV), TIMEOUT_S)
        said, dtype = log.read_text(), "bfloat16"
    assert f"weights of {dtype}, stored as {dtype}" in said
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return target


def tokenizer_of(kind: str, folder: Path, key: str = "tokenizer.type") -> list[str]:
    return [] if kind == "mistral" else [f"{key}={folder}"]


def assert_same_logits(folder: Path, nemo: Path, place: Path, *more: str) -> None:
    """Compare the models' logits on random tokens: 1e-4, and the greedy token wherever it is not a tie."""
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    ids = torch.randint(3, theirs.config.vocab_size, (2, 48), generator=torch.Generator().manual_seed(0))
    torch.save(ids, place / "ids.pt")
    overrides = [f"gpt_model_file={nemo}", f"+ids={place / 'ids.pt'}", f"+out={place / 'out.pt'}", "hardware=cpu"]
    jobs.finish(jobs.start("tests.functional.model_job", [*overrides, *more], place / "job.log", ENV), TIMEOUT_S)
    logits = torch.load(place / "out.pt")[..., : theirs.config.vocab_size]
    with torch.no_grad():
        expected = theirs(ids).logits
    assert expected.abs().max() > 0.5
    assert (logits - expected).abs().max() <= 1e-4
    best = expected.topk(2).values
    clear = best[..., 0] - best[..., 1] > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(logits.argmax(-1)[clear], expected.argmax(-1)[clear])


def test_logits_and_weights_are_the_same(kind: str, folder: Path, nemo: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    back = tmp_path / "back"
    assert cli.main(["checkpoint", "to-hf", str(nemo), str(folder), str(back)]) == 0
    dtype = torch.float32 if kind == "mistral" else torch.bfloat16
    theirs, again = (AutoModelForCausalLM.from_pretrained(path, torch_dtype="auto") for path in (folder, back))
    state, other = theirs.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) and other[name].dtype == dtype for name in state)
    assert_same_logits(folder, nemo, tmp_path, "+te_states=true", *tokenizer_of(kind, folder))


def test_a_converted_model_does_not_say_that_it_knows_nemos_chat_template(nemo: Path) -> None:
    assert "chat_prompt_tokens" not in model_file.model_config(nemo)["data"]


def test_the_entries_are_those_of_transformer_engines_layers(nemo: Path, tmp_path: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    with tarfile.open(nemo) as archive:
        archive.extractall(tmp_path, filter="data")
    found = set(FileSystemReader(str(tmp_path / "model_weights")).read_metadata().state_dict_metadata)
    # The weights' names in NeMo 2.2.1's converters, whose models have TE's layers, and TE's states.
    attention = ("linear_qkv.weight", "linear_qkv.layer_norm_weight", "linear_proj.weight")
    mlp = ("linear_fc1.weight", "linear_fc1.layer_norm_weight", "linear_fc2.weight")
    inside = [f"self_attention.{name}" for name in attention] + [f"mlp.{name}" for name in mlp]
    linear = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
    states = [f"layers.{name}._extra_state" for name in linear] + [TE_STATES[0]]
    outside = ("decoder.final_layernorm.weight", "embedding.word_embeddings.weight", "output_layer.weight")
    wanted = {f"model.{name}" for name in outside} | {f"model.decoder.layers.{name}" for name in inside}
    wanted |= {f"model.decoder.{state}/shard_{layer}_2" for state in states for layer in range(2)}
    assert found == wanted | {f"model.decoder.{TE_STATES[1]}/shard_0_1"}


def test_a_converted_model_is_trained_and_goes_back(
    kind: str, folder: Path, nemo: Path, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "mistral":
        sft = lab.run("sft", "converted", *lab.sft_overrides(nemo, 10))
        losses = sft.series("train/loss")
        assert len(losses) == 10
        assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
        trained = sft.nemo("cai_sft")
        assert cli.main(["checkpoint", "to-hf", str(trained), str(folder), str(tmp_path / "back")]) == 0
        assert_same_logits(tmp_path / "back", trained, tmp_path)
        return
    overrides = [
        f"pretrained_checkpoint.restore_from_path={nemo}",
        lab.splits("rm"),
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.optim.lr=1e-3",
        "trainer.rm.max_steps=2",
        "trainer.rm.val_check_interval=2",
        "trainer.rm.save_interval=2",
        "model.data.seq_length=64",
    ]
    key = "++model.tokenizer.type"
    from nemo_aligner_cai.training import reward_model

    assert stage_main.main(reward_model.STAGE, [*overrides, "exp_manager.explicit_log_dir=none"]) == 2
    said = capsys.readouterr().err
    assert str(ELSEWHERE) in said and f"{key}=FOLDER" in said
    head = lab.run("reward_model", "converted-rm", *overrides, *tokenizer_of(kind, folder, key))
    assert len(head.series("train/loss")) == 2
    assert "its positions are scaled (Llama 3.1 and later)" in head.log.read_text()
    model = head.nemo("cai_reward_model")
    assert cli.main(["checkpoint", "to-hf", str(model), str(folder), str(tmp_path / "back")]) == 2
    assert "reward model" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["mistral"], indirect=True)
def test_a_sliding_window_of_nemos_converter_is_within_the_sequence(nemo: Path, tmp_path: Path, folder: Path) -> None:
    import yaml

    settings = model_file.model_config(nemo) | {"window_size": [64, 0]}
    with tarfile.open(nemo) as archive:
        archive.extractall(tmp_path / "extracted", filter="data")
    (tmp_path / "extracted" / MODEL_CONFIG).write_text(yaml.safe_dump(settings))
    assert_same_logits(folder, tmp_path / "extracted", tmp_path)
    assert "model.window_size=[64, 0] dropped" in (tmp_path / "job.log").read_text()
    back = tmp_path / "back"
    assert (
        cli.main(["checkpoint", "to-hf", str(tmp_path / "extracted"), str(folder), str(back), "--precision", "16"])
        == 0
    )
    assert json.loads((back / "config.json").read_text())["torch_dtype"] == "float16"


STAND_IN = """
import os, pathlib, signal, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--output_path") + 1])
out.write_text(" ".join(sys.argv[1:]))
if "--precision 16" in " ".join(sys.argv):
    pathlib.Path(os.environ["NEMO_HOME"], "pid").write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(600)
sys.exit("--precision bf16" not in " ".join(sys.argv))
"""


@pytest.fixture
def converters(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A NEMO_HOME with a stand-in for the converter, which fails unless the precision is bf16."""
    name = {"llama3": "convert_llama", "mistral": "convert_mistral_7b"}[kind]
    scripts = tmp_path / "nemo" / "scripts" / "checkpoint_converters"
    scripts.mkdir(parents=True)
    (scripts / f"{name}_hf_to_nemo.py").write_text(STAND_IN)
    monkeypatch.setenv("NEMO_HOME", str(tmp_path / "nemo"))
    return scripts


def works(pid: int) -> bool:
    """Whether a process is there and has not ended; one that has may wait to be asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "XZ"
    except OSError:
        return False


def test_nemos_own_converter_is_started_where_it_and_a_gpu_are(
    folder: Path, converters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((folder / "config.json").read_text())
    target = tmp_path / "deep" / "out.nemo"
    words = ["checkpoint", "to-nemo", str(folder), str(target)]
    assert cli.main([*words, "--print-command"]) == 0
    assert "in this process" in capsys.readouterr().out
    monkeypatch.setattr(stage_main, "gpu_count", lambda: 1)
    if settings["model_type"] == "llama":
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert "rope_scaling: " in said and "{'scale_factor': 32.0, " in said
        return
    assert cli.main([*words, "--print-command"]) == 0
    end = f"--input_name_or_path {folder} --precision bf16 --output_path {target}\n"
    assert capsys.readouterr().out.endswith(f"{converters / 'convert_mistral_7b_hf_to_nemo.py'} {end}")
    assert cli.main([*words, "--precision", "32"]) == 1
    assert "out.nemo: NeMo's converter ended with exit code 1" in capsys.readouterr().err
    assert not list(target.parent.iterdir()), "half a file is left behind"
    assert cli.main([*words, "--precision", "16"]) == 130  # the converter sends what a batch system does
    assert not list(target.parent.iterdir())
    converter = int((tmp_path / "nemo" / "pid").read_text())
    deadline = time.monotonic() + 10
    while works(converter):
        assert time.monotonic() < deadline, "the converter goes on"
        time.sleep(0.05)
    assert cli.main(words) == 0
    assert "--precision bf16 --output_path" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["out.nemo"]
    assert cli.main([*words[:3], str(tmp_path / "other.nemo"), "--tokenizer", "a/b"]) == 2
    assert "model.tokenizer.type=a/b" in capsys.readouterr().err
