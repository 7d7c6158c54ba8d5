# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Every shipped Hydra config composes on every hardware, and accepts the tutorial's overrides."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nemo_aligner_cai.data.formats.all_formats import format_named
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.cpu import config as hardware

CONFIGS = (
    "cai_dpo",
    "cai_inference",
    "cai_ppo_actor",
    "cai_ppo_critic",
    "cai_pretrain",
    "cai_reward_model",
    "cai_sft",
)
HARDWARE = ("1xgpu", "1xh200", "2x8xh100", "8xh100", "cpu")
PROCESSORS = {
    "anthropic_hh": "anthropic-hh",
    "auto": "auto",
    "cai_comparisons": "cai-comparisons",
    "cai_revisions": "cai-revisions",
    "none": None,
    "red_team": "red-team",
}
WITH_DATA = ("cai_dpo", "cai_ppo_actor", "cai_reward_model", "cai_sft")

COMPARISONS = "{train: [a.jsonl], validation: [b.jsonl], test: [b.jsonl]}"

# The tutorial's overrides as its shell passes them on, step by step.
TUTORIAL: dict[str, list[str]] = {
    # it has no DPO
    "cai_dpo": [
        "pretrained_checkpoint.restore_from_path=mistral_7b_sl_cai_model.nemo",
        f"++model.data.data_prefix={COMPARISONS}",
        "exp_manager.explicit_log_dir=out",
    ],
    "cai_sft": [
        "model.megatron_amp_O2=True",
        "model.restore_from_path=mistral-7b.nemo",
        "model.data.num_workers=0",
        "model.data.train_ds.micro_batch_size=1",
        "model.data.train_ds.global_batch_size=128",
        "model.data.train_ds.file_path=cai_revisions_aligner_chat_template.jsonl",
        "model.data.train_ds.max_seq_length=4096",
        "model.data.validation_ds.micro_batch_size=1",
        "model.data.validation_ds.global_batch_size=128",
        "model.data.validation_ds.file_path=cai_revisions_aligner_chat_template.jsonl",
        "model.data.chat=True",
        "model.data.chat_prompt_tokens.system_turn_start='<extra_id_0>'",
        "model.data.chat_prompt_tokens.turn_start='<extra_id_1>'",
        "model.data.chat_prompt_tokens.label_start='<extra_id_2>'",
        "exp_manager.explicit_log_dir=out",
        "model.optim.lr=1e-6",
        "model.answer_only_loss=True",
        "trainer.sft.limit_val_batches=40",
        "trainer.sft.val_check_interval=50",
        "trainer.sft.save_interval=50",
    ],
    "cai_reward_model": [
        "pretrained_checkpoint.restore_from_path=/lustre/mistral_7b_sl_cai_model.nemo",
        f"++model.data.data_prefix={COMPARISONS}",
        "++model.micro_batch_size=1",
        "++model.global_batch_size=512",
        "++model.activations_checkpoint_granularity=full",
        "++model.activations_checkpoint_method=uniform",
        "++model.activations_checkpoint_num_layers=1",
        "++model.optim.bucket_cap_mb=200",
        "++model.data.seq_length=4096",
        "++model.data.data_impl=json",
        "exp_manager.explicit_log_dir=out",
        "exp_manager.checkpoint_callback_params.save_top_k=1",
        "exp_manager.checkpoint_callback_params.save_nemo_on_train_end=True",
        "trainer.rm.save_interval=25",
        "trainer.rm.val_check_interval=25",
        "trainer.rm.limit_val_batches=100000",
    ],
    "cai_ppo_critic": [
        "pretrained_checkpoint.restore_from_path=mistral_7b_sl_cai_rm_model.nemo",
        "trainer.ppo.inference_micro_batch_size=4",
        "trainer.ppo.port=5567",
        "++model.offload_adam_states=True",
        "++model.micro_batch_size=1",
        "++model.global_batch_size=64",
        "++model.seed=1234",
        "exp_manager.explicit_log_dir=out",
    ],
    "cai_ppo_actor": [
        "pretrained_checkpoint.restore_from_path=mistral_7b_sl_cai_model.nemo",
        "++model.data.data_impl=json",
        f"++model.data.data_prefix={COMPARISONS}",
        "exp_manager.explicit_log_dir=out",
        "++model.micro_batch_size=1",
        "++model.global_batch_size=64",
        "++model.activations_checkpoint_granularity=selective",
        "++model.activations_checkpoint_method=uniform",
        "++model.optim.lr=9e-8",
        "++model.optim.sched.min_lr=9e-9",
        "++model.ppo.num_rollout_samples=512",
        "++model.ppo.rollout_micro_batch_size=8",
        "++model.ppo.length_params.max_length=1024",
        "trainer.ppo.initial_policy_kl_penalty=0.02",
        "remote_critic_rm.critic.ip=10.0.0.1",
        "remote_critic_rm.critic.port=5567",
    ],
    "cai_inference": [
        "gpt_model_file=/results/mistral-7b-rl-cai-aligned.nemo",
        "pipeline_model_parallel_split_rank=0",
        "server=True",
        "tensor_model_parallel_size=8",
        "pipeline_model_parallel_size=1",
        "trainer.precision=bf16",
        "trainer.devices=8",
        "trainer.num_nodes=1",
        "web_server=False",
        "port=1427",
    ],
}


def overridden(cfg: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            name = f"{path}.{key}" if path else str(key)
            walk(value, name) if isinstance(value, dict) else flat.update({name: value})

    walk(OmegaConf.to_container(cfg, resolve=False), "")
    return flat


def test_these_are_all_configs(repo_root: Path) -> None:
    conf = repo_root / "examples" / "nlp" / "gpt" / "conf"
    # `cai_data` is no trainer's: see test_data_groups.py. `cai_merge_lora` is `cai_inference` with two paths.
    assert sorted(path.stem for path in conf.glob("*.yaml")) == sorted([*CONFIGS, "cai_data", "cai_merge_lora"])
    assert sorted(path.stem for path in (conf / "hardware").glob("*.yaml")) == sorted(HARDWARE)
    assert sorted(path.stem for path in (conf / "data_processor").glob("*.yaml")) == sorted(PROCESSORS)
    assert config.config_dir() == conf


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("machine", HARDWARE)
def test_every_config_composes_on_every_hardware(name: str, machine: str) -> None:
    cfg = config.compose(name, [f"hardware={machine}"])
    assert cfg.trainer.accelerator == ("cpu" if machine == "cpu" else "gpu")
    assert cfg.trainer.precision == (32 if machine == "cpu" else "bf16")


@pytest.mark.parametrize("name", WITH_DATA)
def test_every_data_processor_is_a_format_and_changes_nothing_else(name: str) -> None:
    plain = config.compose(name, [])
    assert plain.data_processor == {"format": None, "system_message": None, "cache": None}
    for processor, wanted in PROCESSORS.items():
        chosen = config.compose(name, [f"data_processor={processor}"])
        assert chosen.data_processor == {"format": wanted, "system_message": None, "cache": None}
        assert wanted in (None, "auto") or format_named(wanted).name == wanted
        chosen.data_processor = plain.data_processor
        assert chosen == plain


def test_a_format_can_be_named_without_the_group() -> None:
    cfg = config.compose("cai_sft", ["data_processor.format=messages", "data_processor.cache=shared/cache"])
    assert cfg.data_processor == {"format": "messages", "system_message": None, "cache": "shared/cache"}


def test_stages_without_data_files_take_no_processor() -> None:
    for name in sorted(set(CONFIGS) - set(WITH_DATA)):
        with pytest.raises(UsageError, match="data_processor"):
            config.compose(name, ["data_processor=auto"])


@pytest.mark.filterwarnings("ignore:provider=nemo_aligner_cai:UserWarning")  # a checkout that is not installed
@pytest.mark.parametrize("name", WITH_DATA)
def test_an_application_with_configs_of_its_own_composes_ours_with_their_groups(
    name: str, tmp_path: Path, repo_root: Path
) -> None:
    """As upstream's scripts are, which find ours behind their own; the processor is one more section to them."""
    (tmp_path / "theirs.yaml").write_text(f"defaults: [{name}, _self_]\n", encoding="utf-8")
    search = f"hydra.searchpath=[file://{repo_root / 'examples' / 'nlp' / 'gpt' / 'conf'}]"
    config.register_resolvers()
    with initialize_config_dir(str(tmp_path), version_base=None):
        theirs = compose("theirs", [search, "hardware=cpu", "data_processor=auto", *TUTORIAL[name]])
    assert theirs.data_processor == {"format": "auto", "system_message": None, "cache": None}
    assert theirs == config.compose(name, ["hardware=cpu", "data_processor=auto", *TUTORIAL[name]])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_cpu_configs_leave_nothing_to_replace(name: str) -> None:
    assert hardware.adapt_to_cpu(config.compose(name, ["hardware=cpu"])) == []


@pytest.mark.parametrize("name", TUTORIAL)
@pytest.mark.parametrize("machine", HARDWARE)
def test_the_tutorials_overrides_are_accepted(name: str, machine: str) -> None:
    cfg = config.compose(name, [f"hardware={machine}", *TUTORIAL[name]])
    assert config.missing_keys(cfg) == []
    values = overridden(cfg)
    for override in TUTORIAL[name]:
        key = override.partition("=")[0].lstrip("+")
        assert key in values or f"{key}.train" in values, override


@pytest.mark.parametrize("name", [name for name in TUTORIAL if name != "cai_inference"])
def test_the_tutorials_values_are_the_defaults_on_gpus(name: str) -> None:
    """Except for paths and addresses."""
    window = "++model.encoder_seq_length=4096"  # otherwise it is the checkpoint's
    plain, given = config.compose(name, [window]), config.compose(name, [window, *TUTORIAL[name]])
    differing = {key for key in overridden(given) if config.select(plain, key) != config.select(given, key)}
    allowed = ("path", "data_prefix", "explicit_log_dir", "critic.ip", "data_impl", "seq_length")
    assert {key for key in differing if not any(part in key for part in allowed)} == set()


def test_on_a_cpu_gpu_settings_are_replaced_one_line_each() -> None:
    gpu = ["model.megatron_amp_O2=True", "trainer.precision=bf16", "model.optim.bucket_cap_mb=50"]
    given = [*TUTORIAL["cai_reward_model"], *gpu]
    cfg = config.compose("cai_reward_model", ["hardware=cpu", *given])
    lines = hardware.adapt_to_cpu(cfg)
    assert len(lines) == 3
    assert all("\n" not in line and line.startswith("no GPU here: ") for line in lines)
    assert "bucket_cap_mb" not in cfg.model.optim
    assert cfg.model.megatron_amp_O2 is False
    assert cfg.trainer.precision == 32


@pytest.mark.parametrize("name", ["cai_dpo", "cai_ppo_actor", "cai_ppo_critic", "cai_reward_model"])
def test_the_arguments_of_apexs_optimizer_are_given_for_gpus_and_gone_on_a_cpu(name: str) -> None:
    given = {argument: value for argument, value in hardware.APEX_ARGUMENTS.items() if value is not None}
    for plus in ("", "++"):
        cfg = config.compose(name, ["hardware=cpu", f"{plus}model.optim.bucket_cap_mb=200"])
        assert given == {argument: value for argument, value in cfg.model.optim.items() if argument in given}
        assert hardware.adapt_to_cpu(cfg) == []
        assert not cfg.model.optim.keys() & hardware.APEX_ARGUMENTS.keys()


def test_the_chat_tokens_survive_the_shells_quotes() -> None:
    cfg = config.compose("cai_sft", TUTORIAL["cai_sft"])
    tokens = OmegaConf.to_container(cfg.model.data.chat_prompt_tokens)
    assert tokens == {
        "system_turn_start": "<extra_id_0>",
        "turn_start": "<extra_id_1>",
        "label_start": "<extra_id_2>",
        "end_of_turn": "\n",
        "end_of_name": "\n",
    }


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.optim.learning_rate=1", "learning_rate"),
        ("hardware=abacus", "abacus"),
        ("++model.data.data_prefix{train: [a]}", "data_prefix"),
        ("model.optim.lr", "model.optim.lr"),
    ],
)
def test_a_wrong_override_is_a_usage_error_on_one_line(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        config.compose("cai_sft", [override])
    assert "\n" not in str(error.value)


def test_an_unknown_config_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cai_nothing"):
        config.compose("cai_nothing", [])


@pytest.mark.parametrize(
    ("overrides", "cuda", "expected"),
    [
        ([], False, ["hardware=cpu"]),
        (["name=a"], False, ["hardware=cpu", "name=a"]),
        (["~hardware"], False, ["~hardware"]),
        (["hardware=8xh100"], False, ["hardware=8xh100"]),
        ([], True, []),
    ],
)
def test_the_cpu_is_chosen_only_where_the_user_did_not_and_there_is_no_gpu(
    overrides: list[str], cuda: bool, expected: list[str]
) -> None:
    assert config.choose_hardware("cai_sft", overrides, cuda=cuda) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: {seed: 1}\n", []),
        ("defaults: [data_processor: none, _self_]\n", []),
        ("defaults: [cai_sft, _self_]\n", ["hardware=cpu"]),
        ("defaults: [cai_sft, override hardware: 1xh200]\n", ["hardware=cpu"]),
    ],
)
def test_the_cpu_is_chosen_only_in_a_config_that_has_hardware_to_choose(
    text: str, expected: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    overrides = config.choose_hardware("mine", [], search=[tmp_path], cuda=False)
    assert overrides == expected
    assert config.compose("mine", overrides, search=[tmp_path])


def test_hydra_finds_the_configs_through_the_plugin() -> None:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

    from hydra_plugins.nemo_aligner_cai import CONFIG_PACKAGE, CaiSearchPath

    search_path = ConfigSearchPathImpl()
    CaiSearchPath().manipulate_search_path(search_path)
    assert [element.path for element in search_path.get_path()] == [CONFIG_PACKAGE]


@pytest.mark.parametrize(
    "name", ["a b", "a'b", "a\\b", "a\\'b", "a\\", "a\\\\", "a${x}b", "a\\${x}", 'a"b', "a,b=[c]{d}:e", "$x", "${"]
)
def test_a_quoted_path_is_the_same_path_to_hydra(tmp_path: Path, name: str) -> None:
    cfg = config.compose("cai_inference", [f"gpt_model_file={config.quoted(tmp_path / name)}"])
    assert cfg.gpt_model_file == str(tmp_path / name)


@pytest.mark.parametrize("name", ["cai_dpo", "cai_ppo_actor", "cai_sft"])
def test_adapters_are_a_group(name: str) -> None:
    whole, adapters = (config.compose(name, [f"peft={option}"]) for option in ("none", "lora"))
    assert (whole.model.peft.peft_scheme, adapters.model.peft.peft_scheme) == ("none", "lora")
    assert adapters.model.optim.lr > whole.model.optim.lr
    assert config.compose(name, ["peft=lora", "model.optim.lr=3e-4"]).model.optim.lr == 3e-4


@pytest.mark.parametrize(
    "name", ["cai_dpo", "cai_ppo_actor", "cai_ppo_critic", "cai_pretrain", "cai_reward_model", "cai_sft"]
)
def test_what_ppo_reads_of_a_models_configuration_is_there(name: str) -> None:
    """Whatever model it begins with: a checkpoint may lack it, and upstream fails in the first rollout."""
    assert config.compose(name, []).model.activations_checkpoint_layers_per_pipeline is None
