# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The checks of the stages raise a UsageError with the key for ordinary mistakes."""

import io
import json
import logging
import shlex
import socket
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai import cli
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import critic_server, ppo_actor
from nemo_aligner_cai.training.checkpoints.nemo_archive import MODEL_CONFIG
from nemo_aligner_cai.training.checks import (
    all_stages,
    data_files,
    model_file,
    model_kind,
    model_needs,
    model_tokenizer,
    parallelism,
    schedule,
    values,
)

MODEL = "gpt_model_file"
PROMPTS = data_files.DatasetSpec("ppo-prompts", MODEL, None, None)


def archive(path: Path, config: bytes = b"encoder_seq_length: 64\n", weights: bytes = b"w" * 5000) -> Path:
    """A .nemo file with this configuration and these weights."""
    with tarfile.open(path, "w") as tar:
        for name, content in ((MODEL_CONFIG, config), ("weights.ckpt", weights)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def config(dotted: dict[str, Any]) -> DictConfig:
    cfg = OmegaConf.create({})
    for key, value in dotted.items():
        OmegaConf.update(cfg, key, value)
    OmegaConf.set_struct(cfg, True)
    return cfg


@pytest.mark.parametrize("value", ["x", 0, -1, 1.5, True, [1]])
def test_an_invalid_number(value: object) -> None:
    with pytest.raises(UsageError, match=r"^model\.data\.seq_length="):
        model_file.sequence_length(config({"model.data.seq_length": value}), "model.data.seq_length", None)
    with pytest.raises(UsageError, match=r"^trainer\.sft\.max_epochs="):
        schedule.check(config({"trainer.sft.max_epochs": value}), "sft")


@pytest.mark.parametrize("value", ["x", 0])
def test_an_invalid_batch_size(value: object) -> None:
    with pytest.raises(UsageError, match=r"^micro="):
        parallelism.check_batch(config({"micro": value, "batch": 8}), "micro", "batch")
    with pytest.raises(UsageError, match=r"^batch="):
        parallelism.check_batch(config({"micro": 1, "batch": value}), "micro", "batch")


def test_valid_numbers() -> None:
    cfg = config({"length": 64, "micro": 2, "batch": 8})
    assert model_file.sequence_length(cfg, "length", 64) == 64
    assert model_file.sequence_length(cfg, "absent", 64) is None
    parallelism.check_batch(cfg, "micro", "batch")


def test_an_invalid_context_length(tmp_path: Path) -> None:
    model = str(archive(tmp_path / "m.nemo"))
    with pytest.raises(UsageError, match=r"^model\.encoder_seq_length=x: "):
        model_file.context_length(config({MODEL: model, "model.encoder_seq_length": "x"}), MODEL)
    assert model_file.context_length(config({MODEL: model, "model.micro_batch_size": 1}), MODEL) == 64


def test_the_context_length_of_learned_positions(tmp_path: Path) -> None:
    learned = b"encoder_seq_length: 64\nposition_embedding_type: learned_absolute\n"
    cfg = config({MODEL: str(archive(tmp_path / "m.nemo", learned)), "model.encoder_seq_length": 64})
    assert model_file.context_length(cfg, MODEL) == 64
    cfg.model.encoder_seq_length = 128
    with pytest.raises(UsageError, match=r"^model\.encoder_seq_length=128: .* 64 "):
        model_file.context_length(cfg, MODEL)


def test_a_context_length_beyond_that_of_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nemo_aligner_cai"), "propagate", True)
    caplog.set_level(logging.WARNING)
    rope = b"encoder_seq_length: 64\nposition_embedding_type: rope\nmax_position_embeddings: 64\n"
    cfg = config({MODEL: str(archive(tmp_path / "m.nemo", rope)), "model.encoder_seq_length": 128})
    assert model_file.context_length(cfg, MODEL) == 128
    assert "model.encoder_seq_length=128" in caplog.text


def test_an_invalid_model_path() -> None:
    with pytest.raises(UsageError, match=r"^gpt_model_file: 5 "):
        model_file.nemo_model(config({MODEL: 5}), MODEL)


@pytest.mark.parametrize("kept", [2000, 1024 + 512 + 4999])
def test_a_truncated_model(tmp_path: Path, kept: int) -> None:
    path = archive(tmp_path / "m.nemo")
    cfg = config({MODEL: str(path)})
    assert model_file.nemo_model(cfg, MODEL) == path
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=r"^gpt_model_file: .*m\.nemo cannot be read to its end"):
        model_file.nemo_model(cfg, MODEL)


def test_an_unreadable_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "m.nemo")

    def refuse(*_: object, **__: object) -> None:
        # Permissions do not stop the superuser, as whom tests may run.
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"^gpt_model_file: .*m\.nemo cannot be read: .*Permission denied"):
        model_file.nemo_model(config({MODEL: str(path)}), MODEL)
    with pytest.raises(UsageError, match="cannot be read"):
        model_file.nemo_model(config({MODEL: "x" * 300}), MODEL)


@pytest.mark.parametrize("content", [b"", b"- a\n", b"text", b"a: [", b"\xff\xfe\x00"])
def test_a_model_with_an_invalid_configuration(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"m\.nemo: its model_config\.yaml[ ,]"):
        model_file.model_config(archive(tmp_path / "m.nemo", content))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / MODEL_CONFIG).write_bytes(content)
    with pytest.raises(UsageError, match=r"folder: its model_config\.yaml[ ,]"):
        model_file.model_config(folder)


def test_tokenizer_settings_that_are_not_a_mapping(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.nemo", b"tokenizer: a.model\n")
    assert model_tokenizer.tokenizer_settings(config({MODEL: str(path)}), path) == {}


@pytest.mark.parametrize("train", [None, [], 5, [5], [0.5, "a", 0.5], ["a", "b"], {"a": 1}])
def test_a_split_without_files(train: object) -> None:
    cfg = config({"model.data.data_prefix": {"train": train, "validation": ["b"], "test": ["b"]}})
    with pytest.raises(UsageError, match=r"^model\.data\.data_prefix\.train"):
        data_files.check_splits(cfg, PROMPTS, "batch")


def test_a_split_that_is_not_a_list() -> None:
    cfg = config({"model.data.data_prefix": {"train": "a.jsonl", "validation": ["b"], "test": ["b"]}})
    with pytest.raises(UsageError, match=r"data_prefix\.train=a\.jsonl: .*\[a\.jsonl\]$"):
        data_files.check_splits(cfg, PROMPTS, "batch")


def test_the_fix_of_a_blend_keeps_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count in (("a 1.jsonl", 6), ("b.jsonl", 6)):
        rows = [
            {"text": f"<extra_id_0>System\n\n<extra_id_1>User\n{name} {n}\n<extra_id_1>Assistant\n"}
            for n in range(count)
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prefix = {"train": [0.5, "a 1.jsonl", 1, "b.jsonl"], "validation": ["b"], "test": ["b"]}
    with pytest.raises(UsageError, match=r"^model\.data\.data_prefix\.train: ") as caught:
        data_files.check_splits(
            config({"model.data.data_prefix": prefix}),
            PROMPTS,
            "batch",
        )
    command = shlex.split(str(caught.value).split("`")[1])
    assert command[0] == "cai"
    assert cli.main(command[1:]) == 0
    rows = [json.loads(line) for line in (tmp_path / "blend_train.jsonl").read_text().splitlines()]
    assert Counter(row["dataset"] for row in rows) == {"a 1": 3, "b": 6}
    assert str(caught.value).endswith("and give [blend_train.jsonl]")


@pytest.mark.parametrize("prefix", [5, None, "a.jsonl", ["a.jsonl"], {"train": ["a"]}])
def test_data_without_three_splits(prefix: object) -> None:
    cfg = config({"model.data.data_prefix": prefix})
    with pytest.raises(UsageError, match=r"^model\.data\.data_prefix: "):
        data_files.check_splits(cfg, PROMPTS, "batch")


def test_a_batch_size_that_is_a_string(tmp_path: Path) -> None:
    data = tmp_path / "p.jsonl"
    data.write_text('{"text": "<extra_id_1>User\\nHello\\n<extra_id_1>Assistant\\n"}\n', encoding="utf-8")
    cfg = config({MODEL: str(archive(tmp_path / "m.nemo")), "batch": "x"})
    with pytest.raises(UsageError, match=r"^batch=x: "):
        data_files.check_file(cfg, data, "file", data_files.DatasetSpec("ppo-prompts", MODEL, None, "batch"))


@pytest.mark.parametrize("port", ["abc", None, 0, 65536])
def test_an_invalid_port(tmp_path: Path, port: object) -> None:
    source = {"pretrained_checkpoint.restore_from_path": str(archive(tmp_path / "m.nemo"))}
    needed = {"model.output_sequence": True, "model.loss_clip_val": 0.2, "trainer.ppo.inference_micro_batch_size": 1}
    batches = {"model.micro_batch_size": 1, "model.global_batch_size": 1, "trainer.max_steps": 1}
    cfg = config(source | batches | needed | {"trainer.ppo.port": port})
    with pytest.raises(UsageError, match=r"^trainer\.ppo\.port="):
        critic_server.check(cfg)


@pytest.mark.parametrize("host", ["a..b", "no such host", 5])
def test_an_invalid_host_is_not_a_port_in_use(host: Any) -> None:
    with pytest.raises(UsageError, match=r"^port: .*5000.*host"):
        values.check_port(host, 5000, "port")


def test_a_port_in_use() -> None:
    taken = pytest.raises(UsageError, match=r"^port: .* in use")
    with socket.create_server(("127.0.0.1", 0)) as other, taken:
        values.check_port("127.0.0.1", other.getsockname()[1], "port")


def test_invalid_lengths_and_critic_of_an_actor(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "pretrained_checkpoint.restore_from_path": str(archive(tmp_path / "m.nemo")),
        **{"trainer.ppo.max_epochs": 1, "trainer.ppo.max_steps": -1},
        **{"trainer.ppo.save_interval": 10, "trainer.ppo.val_check_interval": 10},
        "model.data.seq_length": 64,
        "model.ppo.length_params.max_length": "x",
        "model.ppo.sampling_params.end_strings": ["<extra_id_1>"],
    }
    with pytest.raises(UsageError, match=r"^model\.ppo\.length_params\.max_length=x: "):
        ppo_actor.check(config(settings))
    critic = {"ip": "127.0.0.1", "name": {"infer": "critic_infer"}}
    with pytest.raises(UsageError, match=r"^remote_critic_rm\.critic\.port=x: "):
        ppo_actor._check_critic(config({"remote_critic_rm.critic": critic | {"port": "x"}}))
    with pytest.raises(UsageError, match="no critic server is ready at a b:5567"):
        ppo_actor._check_critic(config({"remote_critic_rm.critic": critic | {"ip": "a b", "port": 5567}}))


@pytest.mark.parametrize(
    ("scheme", "head", "good"), [("lora", False, True), ("lora", True, False), ("ia3", False, False)]
)
def test_adapters_that_a_model_does_not_support(scheme: str, head: bool, good: bool) -> None:
    cfg = config({"model.peft.peft_scheme": scheme})
    if good:
        all_stages._check_peft(cfg, head)
        return
    with pytest.raises(UsageError, match=rf"^model\.peft\.peft_scheme={scheme}: "):
        all_stages._check_peft(cfg, head)


def test_a_sliding_window_on_a_cpu() -> None:
    model = OmegaConf.create({"window_size": [4096, 0], "encoder_seq_length": 4096})
    assert "model.window_size=[4096, 0]" in str(model_needs.drop_sliding_window(model))
    assert model.window_size is None
    assert model_needs.drop_sliding_window(model) is None
    for longer in (4097, None):
        model = OmegaConf.create({"window_size": [4096, 0], "encoder_seq_length": longer})
        with pytest.raises(UsageError, match=r"^model\.encoder_seq_length=.* model\.encoder_seq_length=4096$"):
            model_needs.drop_sliding_window(model)


@pytest.mark.parametrize("name", ["/nowhere/llama", "meta-llama/Meta-Llama-3-8B", None])
def test_a_hugging_face_tokenizer_is_not_in_the_file(tmp_path: Path, name: str | None) -> None:
    stored = f"tokenizer: {{library: huggingface, type: {name or tmp_path}}}\n".encode()
    model = {MODEL: str(archive(tmp_path / "m.nemo", stored))}
    if name == "/nowhere/llama":
        said = r"m\.nemo: .* /nowhere/llama,.* \+\+a\.type=FOLDER"
        with pytest.raises(UsageError, match=said):
            model_needs.check(config(model), MODEL, tokenizer="a.type")
        with pytest.raises(UsageError, match="/not/there"):
            model_needs.check(config(model | {"a.type": "/not/there"}), MODEL, tokenizer="a.type")
        model_needs.check(config(model | {"a.library": "sentencepiece"}), MODEL, tokenizer="a.type")
        model["a.type"] = str(tmp_path)
    model_needs.check(config(model), MODEL, tokenizer="a.type")


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("apply_embedding_scaling: true", "apply_embedding_scaling"),
        ("mcore_customization_config: {final_logit_softcapping: 30.0}", "final_logit_softcapping"),
        ("drop_layers: [1]", "drop_layers"),
        ("apply_embedding_scaling: false\nscale_positional_embedding: true", None),
    ],
)
def test_a_model_that_upstreams_reward_model_would_build_otherwise(
    stored: str, name: str | None, tmp_path: Path
) -> None:
    cfg = config({MODEL: str(archive(tmp_path / "m.nemo", stored.encode()))})
    model_needs.check(cfg, MODEL)
    if name is None:
        model_needs.check(cfg, MODEL, head=True)
        return
    with pytest.raises(UsageError, match=rf"^gpt_model_file: .*m\.nemo .*{name}"):
        model_needs.check(cfg, MODEL, head=True)


_CLASSES = {
    "language": "nemo_aligner.models.nlp.gpt.gpt_sft_model.GPTSFTModel",
    "reward": "nemo_aligner.models.nlp.gpt.megatron_gpt_reward_model.MegatronGPTRewardModel",
    "critic": "nemo_aligner.models.nlp.gpt.megatron_gpt_critic.MegatronGPTCriticModel",
    "speech": "nemo.collections.asr.models.EncDecCTCModel",
}


@pytest.mark.parametrize(
    ("kind", "needed", "good"),
    [
        ("language", model_kind.LANGUAGE_MODEL, True),
        ("reward", model_kind.REWARD_MODEL, True),
        ("critic", model_kind.REWARD_MODEL, True),
        ("language", model_kind.REWARD_MODEL, False),
        ("reward", model_kind.LANGUAGE_MODEL, False),
        ("critic", model_kind.LANGUAGE_MODEL, False),
        ("speech", model_kind.LANGUAGE_MODEL, False),
    ],
)
def test_d6_a_model_of_another_kind_is_refused(tmp_path: Path, kind: str, needed: str, good: bool) -> None:
    path = archive(tmp_path / "m.nemo", f"target: {_CLASSES[kind]}\npeft: {{peft_scheme: none}}\n".encode())
    if good:
        model_needs.check(config({MODEL: str(path)}), MODEL, kinds=(needed,))
    else:
        with pytest.raises(UsageError, match=r"^gpt_model_file: .*m\.nemo holds "):
            model_needs.check(config({MODEL: str(path)}), MODEL, kinds=(needed,))


def test_d6_adapters_are_not_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / MODEL_CONFIG).write_text(f"target: {_CLASSES['language']}\npeft: {{peft_scheme: lora}}\n")
    model_needs.check(config({MODEL: str(folder)}), MODEL)  # trained with adapters and merged
    (folder / "model_weights.ckpt").touch()
    with pytest.raises(UsageError, match=r"^gpt_model_file: .* holds adapters: `cai merge-lora`"):
        model_needs.check(config({MODEL: str(folder)}), MODEL)


def test_d6_a_hugging_face_folder_is_named_with_its_converter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"Hugging Face folder.*`cai checkpoint to-nemo "):
        model_file.nemo_model(config({MODEL: str(tmp_path)}), MODEL)


def test_d6_chat_checks_the_model_before_it_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = archive(tmp_path / "rm.nemo", f"target: {_CLASSES['reward']}\n".encode())
    assert cli.main(["chat", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a reward model" in line
