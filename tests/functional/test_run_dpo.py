# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai run` with DPO: adapters are trained, merged and converted back to Hugging Face, from a small random Llama."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.cli import main
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.tiny.data import Sizes, write_data
from nemo_aligner_cai.tiny.language import language
from tests.functional.small_run import Runs
from tests.unit.fake_servers import FakeOpenAI
from tests.unit.fake_vllm import write_fake_vllm
from tests.unit.rl_run import judge

STEPS = ("0_base_nemo", "1_data", "2_sl_cai", "3_sft", "3_sft_hf", "4_rl_cai", "5_dpo", "5_dpo_hf")
ADAPTED = "self_attn"


def reply(body: dict[str, Any]) -> str:
    """Another text for each conversation, so that a revision differs from its answer."""
    return f"thought number {zlib.crc32(json.dumps(body['messages']).encode()) % 10**6} of them."


def write_llama(folder: Path) -> None:
    """A random Llama with the tiny assistant's tokenizer."""
    import torch
    from safetensors.torch import save_file

    from nemo_aligner_cai.data.tokenizer import load_tokenizer
    from nemo_aligner_cai.training.checkpoints.hf_layout import weight_shapes

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {
        **sizes,
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": 2,
        "vocab_size": load_tokenizer(packaged_files.TOKENIZER).size,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "tokenizer.model").write_bytes(packaged_files.TOKENIZER.read_bytes())
    random = torch.Generator().manual_seed(1)
    shapes = weight_shapes(settings, tied=False)
    save_file(
        {name: 0.1 * torch.randn(shape, generator=random) for name, shape in shapes.items()},
        folder / "model.safetensors",
    )


def config(folder: Path, helpful_only: str, judge: str) -> Path:
    """A run of one or two steps of each trainer."""
    tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
    for name in ("reward_model", "ppo", "measure", "plan"):
        tree.pop(name, None)
    # A reply for each seed.
    arguments = ["--reply", "thought number {number} of them."]
    write_data(folder / "data", language(), Sizes(32, 16, 16, 16, 2), seed=1)
    tree["models"] = {
        "helpful_only": {"endpoint": helpful_only, "model": "fake", "identity": "fake"},
        "judge": {"endpoint": judge, "model": "fake", "identity": "fake"},
        "base": {"hf": str(folder / "llama"), "precision": "32"},
        "constitution": "tiny",
    }
    tree["serve"] = {
        "policy": {"engine": "vllm", "executable": write_fake_vllm(folder / "vllm"), "arguments": arguments}
    }
    tree["data"] = {
        "red_team": {"path": str(folder / "data" / "red_team_attempts.jsonl")},
        "helpful_sft": {"path": str(folder / "data" / "helpful_sft.jsonl")},
        "helpful_preferences": {"path": str(folder / "data"), "subsets": ["helpful-base"]},
        "max_prompt_tokens": 128,
        "sl_share": 0.5,
    }
    tree["sl_cai"] |= {"validation_share": 0.25}
    tree["rl_cai"] = {"decoding": tree["rl_cai"]["decoding"], "num_responses": 4, "test_share": 0.5}
    shared = ["peft=lora", "model.optim.lr=1e-2", "model.optim.sched.warmup_steps=0"]
    tree["sft"] = {
        "seq_length": 256,
        "overrides": [
            *shared,
            *("model.data.train_ds.micro_batch_size=4", "model.data.train_ds.global_batch_size=4"),
            *("trainer.sft.max_steps=2", "trainer.sft.val_check_interval=2", "trainer.sft.save_interval=2"),
        ],
    }
    tree["dpo"] = {
        "seq_length": 256,
        "overrides": [
            *shared,
            *("++model.micro_batch_size=4", "++model.global_batch_size=4"),
            *("trainer.dpo.max_steps=2", "trainer.dpo.val_check_interval=2", "trainer.dpo.save_interval=2"),
        ],
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.mark.timeout(1800)
def test_adapters_are_merged_and_converted_back_after_sft_and_dpo(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    runs, output = Runs(), tmp_path / "run"
    write_llama(tmp_path / "llama")
    with FakeOpenAI(reply) as helpful_only, FakeOpenAI(judge) as judging:
        urls = [f"http://127.0.0.1:{server.port}/v1" for server in (helpful_only, judging)]
        path = config(tmp_path, *urls)
        runs.finish(path, output)
        runs.assert_none_left()
    assert [step for step in STEPS if (output / step / "step.json").is_file()] == list(STEPS)
    folders = [tmp_path / "llama", output / "3_sft_hf" / "hf", output / "5_dpo_hf" / "hf"]
    base, sft, dpo = (load_file(folder / "model.safetensors") for folder in folders)
    assert base.keys() == sft.keys() == dpo.keys()
    for before, after in ((base, sft), (sft, dpo)):
        changed = {name for name in before if not before[name].allclose(after[name], atol=1e-6)}
        assert changed and all(ADAPTED in name for name in changed), "the adapters alone were trained"
    for step in ("3_sft", "5_dpo"):
        assert (output / step / "adapters.nemo").is_file()
        assert read_json(output / step / "step.json")["outputs"].keys() == {"model.nemo"}
    assert main(["run", str(path), "--output", str(output), "--step", "5_dpo_hf"]) == 0
