# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: what is wrong is named before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.console.printable import redacted
from nemo_aligner_cai.constitution import load_constitution
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import closed_values, load_run_config


def test_the_quickstart_configuration_loads() -> None:
    config = load_run_config(packaged_files.QUICKSTART)
    assert config.seed == 1
    assert config.data.tiny is not None and config.data.tiny.measure >= 300
    assert config.data.tiny.measured_split == "test"


def test_overrides_are_yaml_values() -> None:
    config = load_run_config(
        packaged_files.QUICKSTART,
        [
            "seed=7",
            "data.red_team=/a b/red=team.jsonl",
            "sft.overrides=[trainer.sft.max_steps=3]",
            "rl_cai.margin=0.5",
        ],
    )
    assert config.seed == 7
    assert config.data.red_team is not None and config.data.red_team.path == "/a b/red=team.jsonl"
    assert config.data.red_team.turns == "all", "the short form applies"
    assert config.sft.overrides == ("trainer.sft.max_steps=3",)
    assert config.rl_cai.margin == 0.5


def test_one_hardware_is_that_of_all_trainers_that_choose_none() -> None:
    overrides = ["hardware=8xh100", "sft.overrides=[hardware=cpu]"]
    config = load_run_config(packaged_files.QUICKSTART, overrides)
    chosen = {key: [one for one in trainer.overrides if "hardware" in one] for key, trainer in config.trainers.items()}
    all_others = {key: ["hardware=8xh100"] for key in ("reward_model", "ppo.critic", "ppo.actor")}
    assert chosen == {"sft": ["hardware=cpu"], **all_others}
    assert not any("hardware" in one for one in load_run_config(packaged_files.QUICKSTART).sft.overrides)


@pytest.mark.parametrize("name", packaged_files.TINY_CONSTITUTIONS)
def test_a_constitution_of_the_tiny_assistant_has_a_name(name: str) -> None:
    config = load_run_config(packaged_files.QUICKSTART, [f"models.constitution={name}"])
    assert config.models.constitution == packaged_files.TINY_CONSTITUTIONS[name]
    assert load_constitution(config.models.constitution).name == name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "seed: .*KEY=VALUE"),
        ("sede=1", "no key 'sede'"),
        ("sft.steps=1", r"no key 'sft\.steps'"),
        ("seed.deep=1", r"no key 'seed\.deep'"),
        ("seed=one", "seed: "),
        ("+seed=2", r"\+seed=2: only the overrides of trainers"),
        ("sl_cai.temperature=0.7", r"quickstart\.yaml; did you mean sl_cai\.decoding\.temperature"),
        ("tracking.wandb=cai", r"quickstart\.yaml; it has no section tracking, which tracking="),
        ("hardware=8xh10", r"hardware: there is no hardware '8xh10'; did you mean 8xh100\? known: 1xgpu, .*, cpu"),
        (
            "sft.trainer.max_steps=9",
            r"trainer\.sft\.max_steps is .*cai_sft\.yaml; add '.*=9' to the list sft\.overrides",
        ),
        ("++ppo.actor.trainer.devices=9", r"trainer\.devices is .*cai_ppo_actor\.yaml; .* the list ppo\.actor in "),
        ("reward_model.hardware=cpu", r"'hardware=cpu' to the list reward_model\.overrides"),
        ("trainer.devices=2", r"a setting of a trainer; .* sft\.overrides, "),
        ("rl_cai.margin=1.5", r"rl_cai\.margin: "),
        ("data.tiny.measured_split=train", r"data\.tiny\.measured_split: "),
        ("sl_cai.decoding={temperature: 1, max: 2}", r"sl_cai\.decoding\.max: Unexpected"),
        ("sl_cai.decoding.temperature=-1", r"quickstart\.yaml: sl_cai\.decoding\.temperature: must be "),
        ("sl_cai.decoding={temperature: 1, seed: 2}", r"sl_cai\.decoding: seed: "),
        ("sl_cai.validation_share=null", r"sl_cai: validation_share: "),
        ("models.helpful_only={file: a}", r"models\.helpful_only: a model is "),
        ("models.helpful_only={endpoint: 'http://h'}", r"models\.helpful_only\.endpoint\.model: missing"),
        ("models.helpful_only={endpoints_dir: pool}", r"models\.helpful_only\.endpoint\.model: missing"),
        (
            "models.helpful_only={endpoint: 'http://h', endpoints_dir: pool, model: m}",
            "give endpoint, .* or endpoints_dir",
        ),
        ("models.helpful_only={endpoint: [], model: m}", "give endpoint, .* or endpoints_dir"),
        ("data.red_team={path: a, hf: b/c}", r"data\.red_team: give path"),
        ("data.tiny=null", "give helpful_preferences, helpful_sft, red_team"),
        ("ppo={seq_length: 9, critic: [], actor: [], actor_gpus: [1, 1]}", "names a GPU twice"),
        ("ppo=null", "give reward_model and ppo, or dpo"),
        ("measure=null", "measure.*belong together"),
        ("measure={max_tokens: 1, batch_size: 1, more: 2}", r"measure\.more: unknown key"),
        ("rl_cai.pairs=some", r"rl_cai\.pairs: "),
        ("seed=[", "not YAML"),
        ("models.helpful_only=s3://cai/a.nemo", r"models\.helpful_only\.nemo: s3:"),
        ("models={helpful_only: tiny, judge: {hf: 'gs://cai/model'}}", r"models\.judge\.hf: gs:"),
        ("sl_cai.few_shots=s3://cai/shots.json", r"sl_cai\.few_shots: s3:"),
    ],
)
def test_a_wrong_override_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_run_config(packaged_files.QUICKSTART, [override])
    assert "\n" not in str(caught.value).strip()


_SECRET = "hunter2-very-secret"
_BODY = f"extra_body: {{api_key: {_SECRET}}}"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (
            f"serve={{policy: {{engine: vllm, environment: {{AWS_SECRET_ACCESS_KEY: {_SECRET}}}}}}}",
            "serve.policy.environment.AWS_SECRET_ACCESS_KEY",
        ),
        (f"serve={{judge: {{engine: vllm, arguments: [--api-key, {_SECRET}]}}}}", "serve.judge.arguments"),
        (
            f"models={{helpful_only: tiny, judge: {{endpoint: 'http://h', model: m, {_BODY}}}}}",
            "models.judge.extra_body.api_key",
        ),
        (f"sft.overrides=[+exp_manager.wandb_logger_kwargs.api_key={_SECRET}]", "sft.overrides"),
    ],
)
def test_a_secret_is_refused_by_its_key_and_not_shown(override: str, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_run_config(packaged_files.QUICKSTART, [override])
    message = str(caught.value)
    assert f": {key}: " in message
    assert _SECRET not in message
    # A traceback shows pydantic's error, which has the values.
    assert _SECRET not in redacted(f"{caught.value.__cause__} {_SECRET}")


def test_a_prompt_may_speak_of_passwords() -> None:
    prompts = "answers={prompts: ['Is password: hunter2-safe good?'], decoding: {temperature: 0.0, max_tokens: 9}}"
    config = load_run_config(packaged_files.QUICKSTART, [prompts])
    assert config.answers is not None and "hunter2-safe" in config.answers.prompts[0]


def test_closed_values_are_those_that_users_choose_from() -> None:
    values = closed_values()
    assert {"vllm", "bfloat16", "best-worst", "xstest", "dpo", "8xh100", "with-pairs"} <= values
    assert not {"", "tiny", "http://h"} & values


def test_a_missing_key_of_the_file_is_named(tmp_path: Path) -> None:
    tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
    del tree["sft"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(UsageError, match=r"run\.yaml: sft: missing"):
        load_run_config(path)


@pytest.mark.parametrize("text", ["- a\n- list", "", "a: [", "\tseed: 1"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"run\.yaml"):
        load_run_config(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sft.seq_length=100000"], r"sft\.seq_length=100000 .* 256"),
        (["data.max_prompt_tokens=257"], r"data\.max_prompt_tokens=257 is longer"),
        (["sft.overrides=[trainer.sft.max_stepz=1]"], "max_stepz"),
        (["ppo.critic=[model.nothing=1]"], "nothing"),
        (["models.helpful_only=HERE/none.nemo"], r"none\.nemo"),
        (["models.helpful_only=HERE/text.nemo"], r"text\.nemo is not a \.nemo model"),
        (["models.constitution=HERE/text.nemo"], r"text\.nemo"),
        (["data.red_team=HERE/none.jsonl"], r"none\.jsonl"),
        (["data.red_team=HERE/empty"], "empty: no "),
        (["data.helpful_sft=HERE/empty"], "empty: no "),
        (["data.helpful_preferences=HERE/empty"], r"empty: has no train\.jsonl\.gz"),
        (["data.helpful_preferences=HERE/pairs.jsonl"], r"pairs\.jsonl: no file of the split 'test'"),
        (["data.helpful_preferences={path: HERE/empty, format: dpo}"], "empty: no "),
        (["data.helpful_preferences={path: HERE/pairs.jsonl, format: dpo}"], r"pairs\.jsonl: .*'train'.*test\.jsonl"),
        (["data.helpful_preferences={path: HERE/pairs, format: dpo}"], r"pairs: .*'train'.*test\.jsonl"),
        (["rl_cai.judge=best"], "'best'.* best-worst"),
        (["rl_cai.judge=chain-of-thought"], "no pair has the margin"),
        (["sft.overrides=[++model.data.chat_prompt_tokens.turn_start='<turn>']"], "sft: .*chat_prompt_tokens"),
        (
            ["reward_model.overrides=[++model.data.chat_prompt_tokens.label_start='<l>']"],
            "reward_model: .*chat_prompt",
        ),
        (["ppo.actor=[++model.data.chat_prompt_tokens.end_of_turn='.']"], r"ppo\.actor: .*chat_prompt_tokens"),
        (["ppo.critic=[++model.data.chat_prompt_tokens.end_of_turn='.']"], r"ppo\.critic: .*chat_prompt_tokens"),
        (['ppo.actor=["model.ppo.sampling_params.end_strings=[b]"]'], r"sampling_params\.end_strings=.*turn_start"),
        (["serve={policy: {chat_template: chatml}}"], r"serve\.policy\.chat_template=chatml: .*<extra_id_1>"),
        (["models.judge={nemo: HERE/own.nemo}"], r"serve\.judge\.chat_template=nemo: .*own\.nemo .*'<turn>'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(tmp_path: Path, overrides: list[str], message: str) -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("sentencepiece")
    from nemo_aligner_cai.pipeline.run import Pipeline
    from tests.unit.test_train_inputs import archive

    (tmp_path / "text.nemo").write_text("not: [a model")
    archive(tmp_path / "own.nemo", b"data: {chat: true, chat_prompt_tokens: {turn_start: <turn>}}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.jsonl").touch()
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "pairs.jsonl").touch()
    (tmp_path / "tokenizer.model").write_bytes(packaged_files.TOKENIZER.read_bytes())
    config = load_run_config(packaged_files.QUICKSTART, [text.replace("HERE", str(tmp_path)) for text in overrides])
    with pytest.raises(UsageError, match=message):
        Pipeline(config, tmp_path / "run")
