# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The config groups: every stage composes with every model, hardware and data, and its numbers fit together."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import OmegaConf

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.packaged_files import MODEL, QUICKSTART
from nemo_aligner_cai.stages import RlOutputs
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.cpu import config as hardware

MODELS = ("llama3_8b", "mistral_7b", "none", "tiny")
HARDWARE = {"1xgpu": 1, "1xh200": 1, "2x8xh100": 16, "8xh100": 8, "cpu": 1}  # with the number of its devices
DATA = ("cai", "cai_blend", "none")
# Which groups a stage has besides `hardware`.
STAGES = {
    "dpo": ("model",),
    "inference": ("model",),
    "ppo_actor": ("data", "model"),
    "ppo_critic": ("model",),
    "pretrain": (),
    "reward_model": ("data", "model"),
    "sft": ("data", "model"),
}
#: What a user must give, or the checkpoint has where no model is chosen.
GIVEN = {
    "exp_manager.explicit_log_dir": "results",
    "gpt_model_file": "model.nemo",
    "model.restore_from_path": "model.nemo",
    "pretrained_checkpoint.restore_from_path": "model.nemo",
    "model.data.train_ds.file_path": "train.jsonl",
    "model.data.validation_ds.file_path": "validation.jsonl",
    "model.data.data_prefix": {"train": ["train.jsonl"], "validation": ["test.jsonl"], "test": ["test.jsonl"]},
    "data.blend": "helpful",
    "corpus.file": "corpus.jsonl",
    "output": "model.nemo",
    "model.tokenizer.model": "tokenizer.model",
}

OVERLAYS = {
    "data": {"ppo_actor", "reward_model", "sft"},
    "model": {"dpo", "inference", "ppo_actor", "ppo_critic", "reward_model", "sft"},
    "hardware": {"dpo", "ppo_actor", "ppo_critic", "pretrain", "reward_model"},
}


def combinations() -> list[tuple[str, str | None, str, str | None]]:
    """Stage, model, hardware and data of every run that can be asked for."""
    found: list[tuple[str, str | None, str, str | None]] = []
    for stage, groups in STAGES.items():
        models = MODELS if "model" in groups else (None,)
        data = DATA if "data" in groups else (None,)
        found += product((stage,), models, HARDWARE, data)
    return found


def composed(stage: str, model: str | None, machine: str, data: str | None) -> Any:
    """The configuration of a combination, with what the user and the checkpoint add."""
    chosen = {"model": model, "hardware": machine, "data": data}
    cfg = config.compose(f"cai_{stage}", [f"{group}={option}" for group, option in chosen.items() if option])
    OmegaConf.set_struct(cfg, False)
    for key in config.missing_keys(cfg):
        OmegaConf.update(cfg, key, GIVEN[key])
    if model == "none" and stage != "inference":
        cfg.model.encoder_seq_length = 4096
    return cfg


def quickstart_overrides(stage: str) -> list[str]:
    content = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    where = {"sft": ("sft", "overrides"), "reward_model": ("reward_model", "overrides")}
    section, key = where.get(stage, ("ppo", stage.removeprefix("ppo_")))
    length = content[section]["seq_length"]
    window = "model.data.train_ds.max_seq_length" if stage == "sft" else "++model.encoder_seq_length"
    return [*content[section][key], f"{window}={length}"]


def test_these_are_all_groups_options_and_overlays(repo_root: Path) -> None:
    conf = repo_root / "examples" / "nlp" / "gpt" / "conf"
    for group, options in {"model": MODELS, "hardware": HARDWARE, "data": DATA}.items():
        assert sorted(path.stem for path in (conf / group).glob("*.yaml")) == sorted(options)
        folders = {path.name: path for path in (conf / group).iterdir() if path.is_dir()}
        assert set(folders) == OVERLAYS[group]
        for folder in folders.values():
            names = {path.stem for path in folder.iterdir()}
            assert names <= set(options), f"{folder} has an overlay of no option"
            assert names


@pytest.mark.parametrize("stage", STAGES)
def test_the_head_of_a_stage_names_its_groups_and_their_options(stage: str, repo_root: Path) -> None:
    conf = repo_root / "examples" / "nlp" / "gpt" / "conf"
    text = (conf / f"cai_{stage}.yaml").read_text(encoding="utf-8")
    groups = [entry for entry in yaml.safe_load(text)["defaults"] if entry != "_self_"]
    expected = {
        group: (default, {path.stem for path in (conf / group).glob("*.yaml")})
        for entry in groups
        for group, default in entry.items()
        if not group.startswith("optional ")
    }
    lines = re.findall(r"^#   (\w+)  +([\w, ]+?)(?:[:;].*)?$", text.partition("\ndefaults:")[0], re.MULTILINE)
    assert {group: (options.split(", ")[0], set(options.split(", "))) for group, options in lines} == expected


def test_no_line_of_a_config_is_longer_than_119(repo_root: Path) -> None:
    configs = list((repo_root / "examples" / "nlp" / "gpt" / "conf").rglob("*.yaml"))
    assert len(configs) > 40
    lines = [(path, line) for path in configs for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(path, line) for path, line in lines if len(line) > 119] == []


@pytest.mark.slow  # 15 to 100 ms each
def test_every_combination_resolves_and_its_numbers_fit_together() -> None:
    every = combinations()
    assert len(every) == 3 * 4 * 5 * 3 + 3 * 4 * 5 + 5
    for stage, model, machine, data in every:
        asked = f"cai_{stage} model={model} hardware={machine} data={data}"
        cfg = composed(stage, model, machine, data)
        OmegaConf.resolve(cfg)
        devices = cfg.trainer.devices * cfg.trainer.num_nodes
        sizes = cfg if stage == "inference" else cfg.model
        tensor, pipeline = sizes.tensor_model_parallel_size, sizes.pipeline_model_parallel_size
        assert devices % (tensor * pipeline) == 0, asked
        if model == "tiny":
            assert devices == 1, asked
        elif stage != "inference":
            assert devices == HARDWARE[machine], asked
        if stage == "inference":
            assert model == "none" or devices == tensor * pipeline, asked  # a server has one copy of the model
        else:
            check_batches(stage, cfg, devices // (tensor * pipeline), asked)
        if machine == "cpu":
            assert hardware.adapt_to_cpu(cfg) == [], asked


def check_batches(stage: str, cfg: Any, data_parallel: int, asked: str) -> None:
    assert cfg.model.global_batch_size % (cfg.model.micro_batch_size * data_parallel) == 0, asked
    if stage == "sft":
        for section in (cfg.model.data.train_ds, cfg.model.data.validation_ds):
            assert section.global_batch_size % (section.micro_batch_size * data_parallel) == 0, asked
            assert section.max_seq_length <= cfg.model.encoder_seq_length, asked
    if stage == "ppo_actor":
        ppo = cfg.model.ppo
        assert ppo.num_rollout_samples % (ppo.rollout_micro_batch_size * data_parallel) == 0, asked
        assert ppo.num_val_samples % (ppo.val_rollout_micro_batch_size * data_parallel) == 0, asked
        assert ppo.num_rollout_samples % cfg.model.global_batch_size == 0, asked
        # A prompt may have half of the sequence.
        assert ppo.length_params.max_length <= cfg.model.encoder_seq_length // 2, asked
    if stage in ("ppo_actor", "reward_model"):
        assert cfg.model.data.seq_length == cfg.model.encoder_seq_length, asked


@pytest.mark.slow
def test_the_two_halves_of_ppo_agree_for_every_model() -> None:
    for model in MODELS:
        actor, critic = (config.compose(f"cai_ppo_{half}", [f"model={model}"]) for half in ("actor", "critic"))
        assert actor.model.global_batch_size == critic.model.global_batch_size
        assert actor.model.get("encoder_seq_length") == critic.model.get("encoder_seq_length")
        assert actor.remote_critic_rm.critic.port == critic.trainer.ppo.port


@pytest.mark.slow
def test_without_groups_a_stage_is_as_with_none_of_them() -> None:
    for stage, groups in STAGES.items():
        nothing = [f"{group}=none" for group in groups]
        assert config.compose(f"cai_{stage}", nothing) == config.compose(f"cai_{stage}", [])


def test_a_group_and_single_values_live_together() -> None:
    cfg = config.compose("cai_sft", ["model=mistral_7b", "model.seed=7", "model.tensor_model_parallel_size=4"])
    assert (cfg.model.seed, cfg.model.tensor_model_parallel_size, cfg.model.encoder_seq_length) == (7, 4, 4096)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward_model", "ppo_critic", "ppo_actor"])
def test_the_tiny_models_settings_are_the_quickstarts(stage: str) -> None:
    by_group = config.compose(f"cai_{stage}", ["model=tiny", "hardware=cpu"])
    by_hand = config.compose(f"cai_{stage}", ["hardware=cpu", *quickstart_overrides(stage)])
    by_group, by_hand = (OmegaConf.to_container(cfg) for cfg in (by_group, by_hand))
    if stage == "sft":
        by_group["model"].pop("encoder_seq_length")  # the quickstart leaves it to the checkpoint
        assert by_group["model"].pop("restore_from_path") == "${cai_tiny_model:}"
        by_hand["model"].pop("restore_from_path")
    assert by_group == by_hand


def test_the_tiny_model_needs_no_path() -> None:
    sft = config.compose("cai_sft", ["model=tiny", "hardware=cpu"])
    assert sft.model.restore_from_path == str(MODEL)
    assert sorted(config.missing_keys(sft)) == [
        "exp_manager.explicit_log_dir",
        "model.data.train_ds.file_path",
        "model.data.validation_ds.file_path",
    ]
    assert config.missing_keys(config.compose("cai_inference", ["model=tiny", "hardware=cpu"])) == []
    assert MODEL.is_file()


def test_the_data_group_names_what_the_generation_commands_write() -> None:
    written = RlOutputs.named("/data", blend="helpful").splits
    for stage, kind in (("reward_model", "comparisons"), ("ppo_actor", "prompts")):
        for data, made in (("cai", "own"), ("cai_blend", "blended")):
            cfg = config.compose(f"cai_{stage}", [f"data={data}", "data.folder=/data", "++data.blend=helpful"])
            train, test = ([str(getattr(written[split], made)[kind])] for split in ("train", "test"))
            assert cfg.model.data.data_prefix == {"train": train, "validation": test, "test": test}


def test_a_path_counts_more_than_the_data_group() -> None:
    sft = config.compose("cai_sft", ["data=cai", "data.folder=/data", "model.data.validation_ds.file_path=v.jsonl"])
    assert sft.model.data.train_ds.file_path == "/data/cai_revisions_aligner_chat_template.jsonl"
    assert sft.model.data.validation_ds.file_path == "v.jsonl"
    prefix = "++model.data.data_prefix={train: [0.5, a, 0.5, b], validation: [c], test: [d]}"
    actor = config.compose("cai_ppo_actor", ["data=cai", prefix])
    assert actor.model.data.data_prefix == {"train": [0.5, "a", 0.5, "b"], "validation": ["c"], "test": ["d"]}


def test_the_blend_of_comparisons_must_be_named() -> None:
    assert "data.blend" in config.missing_keys(config.compose("cai_reward_model", ["data=cai_blend"]))
    assert "data.blend" not in config.missing_keys(config.compose("cai_sft", ["data=cai_blend"]))


def test_a_users_own_config_may_begin_with_ours(tmp_path: Path) -> None:
    folder = tmp_path / "a b, 'c'"
    folder.mkdir()
    text = "defaults:\n  - cai_sft\n  - override model: mistral_7b\n  - _self_\nmodel: {seed: 7}\n"
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    cfg = config.compose("mine", ["hardware=cpu"], search=[folder])
    assert cfg == config.compose("cai_sft", ["model=mistral_7b", "hardware=cpu", "model.seed=7"])


def test_a_folder_of_ones_own_adds_options_to_our_groups(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# @package _global_\nmodel: {seed: 7}\n", encoding="utf-8")
    assert config.compose("cai_sft", ["model=mine"], search=[tmp_path]).model.seed == 7


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent$"):
        config.compose("cai_sft", [], search=[tmp_path / "absent"])
