# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A step is repeated when what its model answers with has changed, and in no other place or process for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

pytest.importorskip("hydra", reason="the training extra is not installed")

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import write_jsonl
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.pipeline.layout import MEASURE, REWARD_MODEL, RL_CAI, Layout
from nemo_aligner_cai.pipeline.serving.clients import Clients
from nemo_aligner_cai.pipeline.serving.model_files import ModelFiles, as_step
from nemo_aligner_cai.pipeline.step_cache import StepCache
from nemo_aligner_cai.pipeline.steps import three_models, trainers
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.pipeline.steps.data import data_step
from nemo_aligner_cai.pipeline.steps.data_stages import rl_cai_config, rl_cai_step, sl_cai_config, sl_cai_step
from nemo_aligner_cai.pipeline.steps.measure import measure_step
from nemo_aligner_cai.pipeline.steps.trainers import LOG_DIR
from nemo_aligner_cai.training.config import compose
from nemo_aligner_cai.training.metrics.files import METRICS_FILE

ENDPOINT = '{endpoint: "http://127.0.0.1:1/v1", model: m, identity: one%s}'
MODEL = f"{{nemo: {packaged_files.MODEL}}}"


def context(folder: Path, *overrides: str) -> RunContext:
    config = load_run_config(packaged_files.QUICKSTART, overrides)
    layout = Layout(folder)
    files = ModelFiles(config.models, layout)
    return RunContext(config, layout, files, Clients(config, files, StepCache(folder).identity))


@pytest.mark.parametrize(
    ("override", "sl_cai", "rl_cai", "measure"),
    [
        ("serve={helpful_only: {chat_template: chatml}}", True, False, True),
        ("serve={policy: {chat_template: chatml}}", False, True, True),
        ("serve={judge: {overrides: [trainer.precision=32]}}", False, True, False),
        ("serve={policy: {engine: vllm, dtype: float16}}", False, True, True),
        ("serve={policy: {engine: vllm, arguments: [--chat-template, x.jinja]}}", False, True, True),
        ("serve={policy: {overrides: [trainer.devices=8, ++tensor_model_parallel_size=8]}}", False, False, False),
        ("serve={policy: {ready_timeout_s: 900}}", False, False, False),
        ("models.judge=" + ENDPOINT % ", extra_body: {top_k: 4}", False, True, False),
        ("models.helpful_only=" + ENDPOINT % ", omit: {seed: null}", True, False, True),
        ("models.helpful_only=" + ENDPOINT % ", concurrency: 4", False, False, False),
    ],
)
def test_settings_that_determine_replies_are_those_of_the_steps_that_use_them(
    tmp_path: Path, override: str, sl_cai: bool, rl_cai: bool, measure: bool
) -> None:
    key = override.partition("=")[0]
    fixed = [f"models.{role}={MODEL}" for role in ("helpful_only", "base", "judge")]
    if key == "serve" and "vllm" in override:
        fixed[1] = f"models.base={{nemo: {packaged_files.MODEL}, hf: {tmp_path}}}"
    before = [*fixed, f"{key}={ENDPOINT % ''}"] if key.startswith("models.") else fixed
    one, other = context(tmp_path, *before), context(tmp_path, *fixed, override)
    changed = [make(one).settings != make(other).settings for make in (sl_cai_step, rl_cai_step, measure_step)]
    assert changed == [sl_cai, rl_cai, measure]


@pytest.mark.parametrize(
    ("override", "other"),
    [
        ("serve={policy: {overrides: [trainer.precision=32]}}", True),
        ("serve={policy: {overrides: [trainer.devices=8]}}", False),
    ],
)
def test_replies_of_other_settings_are_not_in_the_journal(tmp_path: Path, override: str, other: bool) -> None:
    fixed = [f"models.{role}={MODEL}" for role in ("helpful_only", "base", "judge")]
    keys: list[object] = []
    for overrides in (fixed, [*fixed, override]):
        run = context(tmp_path, *overrides)
        clients = Clients(run.config, run.files, lambda path: "0" * 64, no_calls=True)
        with clients.trained("3_sft", tmp_path / "log", 8) as client:
            keys.append(dict(client.identity))
    assert (keys[0] != keys[1]) == other


def test_both_data_stages_read_the_tokenizer_that_counts_their_rows(tmp_path: Path) -> None:
    copy = Path(shutil.copy(packaged_files.MODEL.with_name("tokenizer.model"), tmp_path / "other.model"))
    helpful = f"models.helpful_only={ENDPOINT % ''}"
    base = f"{{nemo: {packaged_files.MODEL}, tokenizer: {copy}}}"
    run = context(tmp_path, helpful, f"models.judge={MODEL}", f"models.base={base}")
    for step in (sl_cai_step, rl_cai_step, data_step):
        assert copy in step(run).reads


@pytest.mark.parametrize("group", ["model=mistral_7b", "model=none"])
def test_the_length_filter_reserves_the_reply_of_the_actor(tmp_path: Path, group: str) -> None:
    half = "'${int_div:${model.encoder_seq_length}, 2}'"  # upstream's default
    actor = f'ppo.actor=["{group}", "model.ppo.length_params.max_length={half}"]'
    for length in (96, 128):
        run = context(tmp_path, actor, f"ppo.seq_length={length}")
        trainer = trainers.actor(run, host="h", port=1)
        cfg = compose(trainer.config, trainer.overrides)
        files = rl_cai_config(run, tmp_path).files
        assert (cfg.model.encoder_seq_length, cfg.model.ppo.length_params.max_length) == (length, length // 2)
        assert (files.ppo_seq_length, files.ppo_response_length) == (length, length // 2)


def test_a_length_that_refers_to_nothing_is_refused(tmp_path: Path) -> None:
    run = context(tmp_path, "ppo.actor=['model.ppo.length_params.max_length=${model.none}']")
    with pytest.raises(UsageError, match=r"^model\.ppo\.length_params\.max_length: .*model\.none"):
        rl_cai_step(run)


def test_sft_learns_earlier_replies_of_the_tiny_world_only(tmp_path: Path) -> None:
    file = f"data.red_team={tmp_path / 'attempts.jsonl'}"
    explicit = "sl_cai.learn_earlier_replies=%s"
    cases = {(): True, (file,): False, (file, explicit % "true"): True, (explicit % "false",): False}
    for overrides, learned in cases.items():
        run = context(tmp_path, *overrides)
        assert sl_cai_config(run, tmp_path).learn_earlier_replies is learned, overrides
        assert sl_cai_step(run).settings["learn_earlier_replies"] is learned, "the step knows which rows it has"


def test_a_download_is_the_same_input_before_and_after_it(tmp_path: Path) -> None:
    models = ["models.helpful_only={hf: owner/name}", "models.base={hf: owner/name}", "models.judge={hf: owner/name}"]
    before = data_step(context(tmp_path, *models)).reads
    folder = tmp_path / "0_helpful_only_download" / "hf"
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer.model"):
        (folder / name).write_text("{}")
    run = context(tmp_path, *models)
    assert data_step(run).reads == before and folder in before
    assert run.files.tokenizer == folder / "tokenizer.model", "the one that `cai checkpoint to-nemo` takes"


def test_a_conversion_is_the_same_wherever_the_run_is(tmp_path: Path) -> None:
    inputs: list[str] = []
    vllm = ["serve={policy: {engine: vllm}}", "models.helpful_only={hf: owner/name}"]
    vllm += ["models.base={hf: owner/name}", "models.judge={hf: owner/name}"]
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "3_sft").mkdir(parents=True)
        (folder / "3_sft" / "model.nemo").write_text("trained")
        run = context(folder, *vllm)
        run.files.trained_hf("3_sft")
        cache = StepCache(folder)
        for step in map(as_step, run.files.conversions.values()):
            inputs.append(f"{step.name} {cache._inputs(step)}")  # pyright: ignore[reportPrivateUsage]
    half = len(inputs) // 2
    assert inputs[:half] == inputs[half:] and any(one.startswith("3_sft_hf") for one in inputs)


def test_another_reference_makes_another_folder(tmp_path: Path) -> None:
    reads: list[tuple[Path, ...]] = []
    for name in ("a", "b"):
        base = f"{{nemo: {packaged_files.MODEL}, hf: {tmp_path / name}}}"
        run = context(tmp_path, "serve={policy: {engine: vllm}}", f"models.base={base}")
        run.files.trained_hf("3_sft")
        reads.append(as_step(run.files.conversions["3_sft_hf"]).reads)
    assert [one[-1] for one in reads] == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize(("by_dpo", "accuracy"), [(False, 0.875), (True, None)])
def test_the_measurement_has_the_reward_model_of_a_run_by_ppo_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_dpo: bool, accuracy: float | None
) -> None:
    tree = yaml.safe_load(packaged_files.QUICKSTART.read_text(encoding="utf-8"))
    if by_dpo:
        del tree["ppo"]
        tree["dpo"] = tree.pop("reward_model") | {"overrides": []}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    config = load_run_config(tmp_path / "config.yaml")
    layout = Layout(tmp_path / "run")
    files = ModelFiles(config.models, layout)
    run = RunContext(config, layout, files, Clients(config, files, StepCache(layout.folder).identity))
    # Also in the folder of the run by DPO: that of an earlier run by PPO.
    write_jsonl(layout.file(REWARD_MODEL, LOG_DIR) / METRICS_FILE, [{"step": 1, "val/acc": 0.875}])
    write_jsonl(layout.file(RL_CAI, "comparisons.jsonl"), [])
    monkeypatch.setattr(three_models, "ask_each", lambda *given: {})
    layout.file(MEASURE, "").mkdir()
    figures = measure_step(run).work(layout.file(MEASURE, ""))
    assert figures["reward_model"].get("val/acc") == accuracy
