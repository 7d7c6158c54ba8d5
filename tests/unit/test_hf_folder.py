# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""The converter reads valid Hugging Face folders and refuses invalid ones, and invalid .nemo files, without NeMo."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the training extra is not installed")
pytest.importorskip("hydra", reason="the training extra is not installed")

import torch
from safetensors.torch import save_file

from nemo_aligner_cai import cli
from nemo_aligner_cai.training import convert_checkpoint
from nemo_aligner_cai.training.checkpoints import hf_folder
from nemo_aligner_cai.training.checkpoints.hf_config import Shape, model_settings
from nemo_aligner_cai.training.checkpoints.hf_layout import to_huggingface, to_megatron, weight_shapes
from nemo_aligner_cai.training.checkpoints.nemo_archive import MODEL_CONFIG

pytestmark = pytest.mark.slow  # imports torch

SETTINGS: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "sliding_window": None,
    "vocab_size": 9,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
FORMS = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]


def random_weights(dtype: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = weight_shapes(SETTINGS, tied=False)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def write(folder: Path, weights: dict[str, Any], form: str, settings: dict[str, Any] = SETTINGS) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").write_text(json.dumps(WORDS))
    save = save_file if "safetensors" in form else torch.save
    if not form.endswith(".json"):
        save(weights, folder / form)
        return folder
    stem, ending = form.removesuffix(".index.json").split(".")
    names = sorted(weights)
    places = {name: f"{stem}-0000{1 + number % 3}-of-00003.{ending}" for number, name in enumerate(names)}
    for place in set(places.values()):
        save({name: weights[name] for name in names if places[name] == place}, folder / place)
    (folder / form).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


WORDS: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {f"w{number}": number for number in range(9)}, "unk_token": "w0"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "hf", random_weights(torch.bfloat16), "model.safetensors.index.json")


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What the command says of a folder that it refuses, before any work and without leaving anything."""
    before = set(folder.parent.iterdir())
    assert cli.main(["checkpoint", "to-nemo", str(folder), str(folder.parent / "out.nemo"), *more]) == 2
    assert set(folder.parent.iterdir()) == before
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_read_in_every_form_and_go_both_ways_unchanged(tmp_path: Path, form: str, dtype: str) -> None:
    given = random_weights(getattr(torch, dtype))
    # Mistral's folders have a copy in another layout, and the hub's older ones one of another format.
    source = write(tmp_path / "hf", given, form)
    save_file({"layers.0.attention.wq.weight": torch.zeros(2)}, source / "consolidated.safetensors")
    found = hf_folder.open_weights(source)
    hf_folder.check_weights(found, weight_shapes(SETTINGS, tied=False), source)
    assert {weight.dtype for weight in found.values()} == {dtype}
    shape = Shape.of(SETTINGS)
    ours = dict(to_megatron(lambda name: found[name].read(), shape, tied=False))
    back: dict[str, Any] = {}
    for name in {name.replace(".layers.0.", ".layers.") for name in ours if ".layers.1." not in name}:
        layers = [ours[name.replace(".layers.", f".layers.{layer}.")] for layer in range(shape.layers)]
        back |= to_huggingface(name, torch.stack(layers) if ".layers." in name else layers[0], shape)
    assert back.keys() == given.keys()
    assert all(torch.equal(back[name], given[name]) and back[name].dtype == given[name].dtype for name in given)


def remove_a_shard(folder: Path) -> str:
    (folder / "model-00002-of-00003.safetensors").unlink()
    return "model-00002-of-00003.safetensors of model.safetensors.index.json is missing (1 of 3 files"


def remove_the_index(folder: Path) -> str:
    (folder / "model.safetensors.index.json").unlink()
    return "model.safetensors, model.safetensors.index.json, pytorch_model.bin"


def empty_the_index(folder: Path) -> str:
    (folder / "model.safetensors.index.json").write_text("{}")
    return "model.safetensors.index.json: it has no weight_map"


def cut_a_shard(folder: Path) -> str:
    file = folder / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    return f"{file} cannot be read; copy or download it again"


def cut_a_pickle(folder: Path) -> str:
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(random_weights(torch.float32), folder / "pytorch_model.bin")
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-200])
    return f"{file} cannot be read; copy or download it again"


def change_the_vocabulary(folder: Path) -> str:
    (folder / "config.json").write_text(json.dumps(SETTINGS | {"vocab_size": 10}))
    return "model.embed_tokens.weight has shape (9, 8), and config.json implies (10, 8)"


def quantize(folder: Path) -> str:
    file = next(folder.glob("model-00001*.safetensors"))
    save_file(
        {name: torch.zeros(w.shape, dtype=torch.int8) for name, w in hf_folder.open_weights(folder).items()}, file
    )
    return "is stored as I8"


def take_the_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "no tokenizer: neither tokenizer.model nor tokenizer.json"


def break_the_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text("{}")
    return "tokenizer.json: "


def add_tokens(folder: Path) -> str:
    vocabulary = {f"w{number}": number for number in range(11)}
    (folder / "tokenizer.json").write_text(json.dumps(WORDS | {"model": WORDS["model"] | {"vocab": vocabulary}}))
    return "the tokenizer has 11 tokens, and the model 9 (vocab_size)"


def break_the_settings(folder: Path) -> str:
    (folder / "config.json").write_text("[]")
    return "config.json: a JSON object is needed"


def take_the_settings(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "config.json"


BREAKS = (
    remove_a_shard,
    remove_the_index,
    empty_the_index,
    cut_a_shard,
    cut_a_pickle,
    change_the_vocabulary,
    quantize,
)
BREAKS += (take_the_tokenizer, break_the_tokenizer, add_tokens, break_the_settings, take_the_settings)


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda value: value.__name__)
def test_a_broken_folder_is_refused_in_one_line(
    folder: Path, break_it: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = break_it(folder)
    assert said in refused(folder, capsys)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "bloom"}, "model_type=bloom: only llama, mistral"),
        ({"model_type": "gemma2"}, "Llama, Mistral or Qwen2.5 works"),
        ({"model_type": "qwen3"}, "model_type=qwen3: NeMo 2.2.1"),
        ({"model_type": "phi3", "partial_rotary_factor": 0.75}, "partial_rotary_factor=0.75"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu: must be silu"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config={'quant_method': 'gptq'}"),
        ({"num_hidden_layers": None}, "num_hidden_layers: "),
        ({"num_key_value_heads": "2"}, "num_key_value_heads: "),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: "),
        ({"sliding_window": "all"}, "sliding_window: "),
        ({"rope_scaling": ["llama3"]}, "rope_scaling: "),
        ({"rms_norm_eps": -1}, "rms_norm_eps: "),
        ({"head_dim": None, "hidden_size": 9}, "hidden_size=9 is not a multiple of num_attention_heads=4"),
        ({"hidden_act": "a\nb"}, r"hidden_act=a\nb: "),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 is not a multiple of num_key_value_heads=3"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "only llama3 "),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "with factor, low_freq_factor",
        ),
    ],
)
def test_a_model_that_nemo_does_not_support(
    folder: Path, changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.json").write_text(json.dumps(SETTINGS | changed))
    assert said in refused(folder, capsys)


def test_positions() -> None:
    def settings(**changed: Any) -> dict[str, Any]:
        return model_settings(SETTINGS | changed, "x")

    assert settings()["encoder_seq_length"] == 32
    # Mistral-7B v0.1 says 4,096 in 32,768; one that says nothing has 4,096 too.
    assert settings(sliding_window=4096, max_position_embeddings=32768)["encoder_seq_length"] == 4096
    silent = {key: value for key, value in SETTINGS.items() if key != "sliding_window"} | {
        "max_position_embeddings": 32768
    }
    assert model_settings(silent, "x")["encoder_seq_length"] == 4096
    assert model_settings(silent | {"model_type": "llama"}, "x")["encoder_seq_length"] == 32768
    assert settings()["rotary_base"] == 1e6
    assert "scale_positional_embedding" not in settings()
    for changed in ({"rope_scaling": LLAMA3}, {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}, "rope_theta": None}):
        found = settings(model_type="llama", **changed)
        assert found["rotary_base"] == (5e5 if "rope_parameters" in changed else 1e6)
        scaling = (
            "scale_positional_embedding",
            "scale_factor",
            "low_freq_factor",
            "high_freq_factor",
            "old_context_len",
        )
        assert [found[key] for key in scaling] == [True, 32.0, 1.0, 4.0, 8192]


def test_the_rows_that_a_tokenizer_is_padded_to(folder: Path) -> None:
    for vocabulary, divisor in ((9, 1), (10, 2), (128, 128), (11, 11)):
        assert hf_folder.tokenizer_settings(folder, vocabulary)["make_vocab_size_divisible_by"] == divisor


@pytest.mark.parametrize(
    ("tokens", "vocabulary"),
    [
        (151665, 151936),  # Qwen2.5-0.5B
        (151665, 152064),  # Qwen2.5-7B
        (32000, 32064),  # Phi-3 mini
        (100280, 100352),
        (32000, 32000),
        (128256, 128256),
    ],
)
def test_tensor_parallelism_adds_no_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tokens: int, vocabulary: int
) -> None:
    monkeypatch.setattr(hf_folder, "load_tokenizer", lambda file: SimpleNamespace(size=tokens))
    divisor = hf_folder.tokenizer_settings(folder, vocabulary)["make_vocab_size_divisible_by"]
    assert {nemo_rows(tokens, divisor, size) for size in (1, 2, 4, 8)} == {vocabulary}


def test_rows_that_cannot_be_divided_get_the_fewest_more(folder: Path) -> None:
    # 9 tokens, so that 10 rows are those of the divisors 2, 5 and 10.
    divisor = hf_folder.tokenizer_settings(folder, 10)["make_vocab_size_divisible_by"]
    assert [nemo_rows(9, divisor, size) for size in (1, 2, 4, 8)] == [10, 12, 16, 16]


def nemo_rows(tokens: int, divisor: int, tensor_parallel: int) -> int:
    """The rows of NeMo's embedding; `MegatronBaseModel._vocab_size_with_padding`."""
    multiple = divisor * tensor_parallel
    return (tokens + multiple - 1) // multiple * multiple


def test_a_tokenizer_outside_the_file_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    found = hf_folder.tokenizer_settings(folder, 9)["tokenizer"]
    assert (found["library"], found["type"]) == ("huggingface", str(folder))
    assert f"{folder}; --tokenizer" in caplog.text
    (folder / "tokenizer.model").touch()
    named = hf_folder.tokenizer_settings(folder, 9, "meta-llama/Meta-Llama-3-8B")["tokenizer"]
    assert named["library"] == "huggingface"
    assert "meta-llama/Meta-Llama-3-8B" in caplog.text


def test_rounding_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    convert_checkpoint._log_precision({"float32", "bfloat16"}, "bfloat16", Path("hf"))
    assert caplog.records[-1].levelname == "WARNING"
    assert "hf: weights of bfloat16 and float32 are rounded to bfloat16" in caplog.text
    for found, dtype in (({"bfloat16"}, "float32"), ({"float16"}, "float16")):
        convert_checkpoint._log_precision(found, dtype, Path("hf"))
        assert caplog.records[-1].levelname == "INFO"


def test_with_apex_the_converter_names_the_alternatives(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(convert_checkpoint, "installed", lambda package: package == "apex")
    assert "RMSNorm" in refused(folder, capsys, "--print-command")
    said = refused(folder, capsys)
    assert "with Apex installed" in said and "NeMo's own converter is used, or convert" in said and "make venv" in said
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen2"}
    (folder / "config.json").write_text(json.dumps(settings))
    weights = {name: torch.zeros(shape) for name, shape in weight_shapes(settings, tied=False).items()}
    save_file(weights, folder / "model.safetensors")
    said = refused(folder, capsys)
    assert "RMSNorm: convert qwen2 where Apex is not" in said


def archive(path: Path, settings: dict[str, Any], *names: str) -> Path:
    """A .nemo file with these settings and files of these names."""
    with tarfile.open(path, "w") as tar:
        for name in (MODEL_CONFIG, *names):
            content = json.dumps(settings).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


MODELS = "nemo_aligner.models.nlp.gpt"


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        (
            {"target": f"{MODELS}.megatron_gpt_reward_model.MegatronGPTRewardModel"},
            "model_weights/x",
            "a reward model or critic",
        ),
        (
            {"target": f"{MODELS}.megatron_gpt_critic.MegatronGPTCriticModel"},
            "model_weights/x",
            "a reward model or critic",
        ),
        ({"target": "GPTSFTModel", "peft": {"peft_scheme": "lora"}}, "model_weights.ckpt", "cai merge-lora"),
        ({"target": "GPTSFTModel", "hidden_size": 16}, "model_weights/x", "hidden_size=16, and "),
        ({"target": "GPTSFTModel", "kv_channels": 2}, "model_weights/x", "kv_channels=2, and "),
    ],
)
def test_a_nemo_file_of_another_model(
    folder: Path, settings: dict[str, Any], name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = archive(folder.parent / "m.nemo", settings, name)
    assert cli.main(["checkpoint", "to-hf", str(file), str(folder), str(folder.parent / "deep" / "back")]) == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in folder.parent.iterdir()} == {"hf", "m.nemo"}


def test_a_truncated_nemo_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = archive(folder.parent / "m.nemo", {"a": "b" * 9000}, "model_weights/x")
    file.write_bytes(file.read_bytes()[:9000])
    assert cli.main(["checkpoint", "to-hf", str(file), str(folder), str(folder.parent / "back")]) == 2
    assert "cannot be read to its end" in capsys.readouterr().err
    assert cli.main(["checkpoint", "to-hf", str(folder / "no.nemo"), str(folder), str(folder.parent / "back")]) == 2
    assert f"there is no file {folder / 'no.nemo'}" in capsys.readouterr().err


def test_nothing_is_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "out.nemo").touch()
    assert "out.nemo: already exists; remove it or choose another name" in refused(folder, capsys)
    file = archive(folder.parent / "m.nemo", {}, "model_weights/x")
    assert cli.main(["checkpoint", "to-hf", str(file), str(folder), str(folder)]) == 2
    assert f"{folder}: already exists" in capsys.readouterr().err


def test_an_interrupted_conversion_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import safetensors.torch

    target = folder.parent / "back"

    def fail(weights: dict[str, Any], file: Path, **more: Any) -> None:
        assert file.parent.parent.parent == folder.parent
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    monkeypatch.setattr(convert_checkpoint, "_converted", lambda place, shape: random_weights(torch.float32).items())
    file = archive(folder.parent / "m.nemo", {}, "model_weights/x")
    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint.to_hf(file, folder, target)
    assert {path.name for path in folder.parent.iterdir()} == {"hf", "m.nemo"}
