# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A mistake in a command or its files ends in a message of one line and exit code 2, before anything is loaded."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_aligner_cai.training.launch.stage_main import main
from tests.functional import world
from tests.functional.conftest import Lab


@pytest.fixture
def attempt(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a stage that must refuse; returns its one line on standard error."""

    def refuse(stage: str, *overrides: str) -> str:
        module = importlib.import_module(f"nemo_aligner_cai.training.{stage}")
        loaded = set(sys.modules)
        log_dir = tmp_path / "log"
        extra = [] if stage == "inference_server" else [f"exp_manager.explicit_log_dir={log_dir}"]
        assert main(module.STAGE, [*overrides, *extra, "hardware=cpu"]) == 2
        assert not log_dir.exists(), "something was written"
        assert not {name for name in set(sys.modules) - loaded if name.startswith("nemo.")}, "NeMo was loaded"
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cai: ")]
        assert len(said) == 1
        return said[0]

    return refuse


def sft(lab: Lab, model: Path, **files: Path) -> list[str]:
    return [
        f"model.restore_from_path={model}",
        f"model.data.train_ds.file_path={files.get('train', lab.folder / 'sft_train.jsonl')}",
        f"model.data.validation_ds.file_path={files.get('validation', lab.folder / 'sft_test.jsonl')}",
        "model.data.train_ds.global_batch_size=16",
    ]


def test_keys_without_a_value_are_named(attempt: Callable[..., str]) -> None:
    assert "model.data.train_ds.file_path, model.data.validation_ds.file_path" in attempt("sft")


def test_an_unknown_key(attempt: Callable[..., str]) -> None:
    assert "model.optim.learning_rate" in attempt("sft", "model.optim.learning_rate=1")


def test_an_unknown_flag(attempt: Callable[..., str]) -> None:
    assert "--epochs=3" in attempt("sft", "--epochs=3")


def test_a_model_that_is_not_there(attempt: Callable[..., str], lab: Lab) -> None:
    assert "nowhere.nemo" in attempt("sft", *sft(lab, Path("nowhere.nemo")))


def test_a_model_that_is_none(attempt: Callable[..., str], lab: Lab) -> None:
    assert "tokenizer.model is not a .nemo model" in attempt("sft", *sft(lab, lab.folder / "tokenizer.model"))
    assert "is not a .nemo model" in attempt("inference_server", f"gpt_model_file={lab.folder / 'corpus.jsonl'}")


def test_a_data_file_that_is_not_there(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    assert "model.data.train_ds.file_path: " in attempt("sft", *sft(lab, base, train=Path("no.jsonl")))


def test_an_empty_data_file(attempt: Callable[..., str], lab: Lab, base: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert str(empty) in attempt("sft", *sft(lab, base, train=empty))


def test_a_row_of_another_format(attempt: Callable[..., str], lab: Lab, base: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    good = world.sft_row("fix", "lamp", world.refused("fix", "lamp"))
    mixed.write_text(json.dumps(good) + "\n" + json.dumps({"text": "a prompt"}) + "\n", encoding="utf-8")
    assert f"{mixed}:2: " in attempt("sft", *sft(lab, base, train=mixed))


def test_less_than_a_batch(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    said = attempt("sft", *sft(lab, base), "model.data.train_ds.global_batch_size=1000")
    assert "80 samples" in said and "model.data.train_ds.global_batch_size=1000" in said


def test_sequences_longer_than_the_model(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    said = attempt("sft", *sft(lab, base), "model.data.train_ds.max_seq_length=4096")
    assert "max_seq_length=4096 " in said and " 64 tokens" in said


def test_comparisons_longer_than_the_reward_model_reads(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    overrides = [f"pretrained_checkpoint.restore_from_path={base}", lab.splits("rm"), "model.global_batch_size=16"]
    said = attempt("reward_model", *overrides, "model.data.seq_length=8")
    assert "rm_train.jsonl:1: " in said
    assert "80 of 80 texts are longer than 8 tokens" in said


def test_a_run_of_no_epoch(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    assert "trainer.sft.max_epochs=-1" in attempt("sft", *sft(lab, base), "trainer.sft.max_epochs=-1")


def test_batches_that_do_not_divide(attempt: Callable[..., str], lab: Lab, base: Path, free_port: int) -> None:
    overrides = [f"pretrained_checkpoint.restore_from_path={base}", lab.splits("ppo")]
    overrides += ["model.ppo.length_params.max_length=20", "model.ppo.num_rollout_samples=48"]
    said = attempt("ppo_actor", *overrides)
    assert "model.ppo.num_rollout_samples=48 must be a multiple of model.global_batch_size=64" in said


def test_a_checkpoint_between_two_validations(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    rm = [f"pretrained_checkpoint.restore_from_path={base}", lab.splits("rm"), "model.global_batch_size=16"]
    # 80 pairs, or conversations, are 5 steps.
    said = attempt("reward_model", *rm, "trainer.rm.val_check_interval=0.7")
    assert all(
        part in said for part in ("trainer.rm.save_interval=25 ", " 3 steps", "val_check_interval=0.7", " 5 steps")
    )
    said = attempt("sft", *sft(lab, base), "trainer.sft.val_check_interval=0.4", "trainer.sft.save_interval=5")
    assert all(
        part in said for part in ("trainer.sft.save_interval=5 ", " 2 steps", "val_check_interval=0.4", " 5 steps")
    )


def test_forward_batches_that_do_not_divide(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    overrides = [f"pretrained_checkpoint.restore_from_path={base}", lab.splits("ppo")]
    overrides += ["model.ppo.length_params.max_length=20", "model.ppo.forward_micro_batch_size=3"]
    said = attempt("ppo_actor", *overrides)
    assert "model.ppo.num_rollout_samples=512 must be a multiple of model.ppo.forward_micro_batch_size=3" in said
    overrides = [f"pretrained_checkpoint.restore_from_path={base}", lab.splits("ppo")]
    said = attempt("dpo", *overrides, "model.dpo.log_prob_forward_micro_batch_size=3")
    assert "model.global_batch_size=64 must be a multiple of model.dpo.log_prob_forward_micro_batch_size=3" in said


def test_a_model_that_cannot_be_divided(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    said = attempt("sft", *sft(lab, base), "trainer.devices=3")
    assert "global_batch_size=16 must be a multiple of model.data.train_ds.micro_batch_size=1 x 3 copies" in said
    parallel = ["trainer.devices=5", "model.pipeline_model_parallel_size=5"]
    assert "model.pipeline_model_parallel_size=5: the model has num_layers=" in attempt(
        "sft", *sft(lab, base), *parallel
    )


def test_an_actor_without_a_critic(attempt: Callable[..., str], lab: Lab, base: Path, free_port: int) -> None:
    overrides = [f"pretrained_checkpoint.restore_from_path={base}", lab.splits("ppo")]
    overrides += ["model.ppo.length_params.max_length=20", "model.ppo.num_rollout_samples=16"]
    overrides += ["model.global_batch_size=16", "model.ppo.num_val_samples=16"]
    overrides += ["remote_critic_rm.critic.ip=127.0.0.1", f"remote_critic_rm.critic.port={free_port}"]
    assert f"no critic server is ready at 127.0.0.1:{free_port}" in attempt("ppo_actor", *overrides)


def test_an_output_that_exists(attempt: Callable[..., str], lab: Lab, base: Path) -> None:
    before = base.stat()
    overrides = [f"corpus.file={lab.folder / 'corpus.jsonl'}", f"output={base}"]
    assert "already exists" in attempt(
        "pretrain", *overrides, f"model.tokenizer.model={lab.folder / 'tokenizer.model'}"
    )
    assert base.stat() == before
