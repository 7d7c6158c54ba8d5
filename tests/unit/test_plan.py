# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai plan`: each formula against figures worked out by hand, and the configuration that is shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hydra", reason="the training extra is not installed")

from nemo_aligner_cai.cli import main
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.planning import estimate
from nemo_aligner_cai.planning.estimate import ResourceEstimate
from nemo_aligner_cai.planning.recipe import Generation, Recipe, Trainer, recipe

_BEST_WORST = ("rl_cai.judge=best-worst", "rl_cai.pairs=best-worst")
_NO_CRITIQUE = "sl_cai={decoding: {temperature: 0}, critique: false, few_shots: null, validation_share: 0.02}"
_HOSTED = "models={helpful_only: tiny, judge: {endpoint: 'http://judge', model: m, requests_per_minute: 40}}"
_TRAINERS = {"sft": "sft", "reward_model": "rm", "dpo": "dpo"}


@pytest.fixture
def shipped(repo_root: Path) -> Path:
    return repo_root / "examples" / "nlp" / "cai" / "mistral_7b.yaml"


def _recipe(path: Path, *overrides: str) -> Recipe:
    return recipe(load_run_config(path, overrides))


def _steps(path: Path, *overrides: str) -> dict[str, ResourceEstimate]:
    return {needs.step: needs for needs in estimate.plan(_recipe(path, *overrides))}


def _trainer(**changes: Any) -> Trainer:
    return replace(Trainer(8, 2, 1, 1, 8, 1000, 1, "none", 2), **changes)


def test_training_takes_six_operations_a_parameter_and_token_and_eight_with_recomputation() -> None:
    assert estimate.training_flops(10, 100, recompute=False) == 6000
    assert estimate.training_flops(10, 100, recompute=True) == 8000
    assert estimate.forward_flops(10, 100) == 2000


def test_weights_gradients_and_adam() -> None:
    # 800 parameters on two ways of tensor parallelism and four copies: 400 x (6 + 12 / 4).
    assert estimate.training_bytes(800, _trainer()) == 3600
    assert estimate.training_bytes(800, _trainer(tensor_parallel=1, gpus=1)) == 800 * 18


def test_adapters_need_the_weights_alone() -> None:
    assert estimate.training_bytes(800, _trainer(adapters=True)) == 800


def test_activations_with_and_without_recomputation(shipped: Path) -> None:
    overrides = ("plan.model.layers=2", "plan.model.hidden=10", "plan.model.vocabulary=100")
    model = _recipe(shipped, *overrides).plan.model
    # A layer: 1000 tokens x 10 x (10 + 24 / 2); logits: 4 x 1000 x 100 / 2.
    assert estimate.activation_bytes(model, _trainer()) == 2 * 220_000 + 200_000
    assert estimate.activation_bytes(model, _trainer(recompute="full")) == 2 * 20_000 + 220_000 + 200_000
    assert estimate.activation_bytes(model, _trainer(texts=2)) == 2 * (2 * 220_000 + 200_000)


def test_keys_and_values_of_mistral_take_128_kib_a_token(shipped: Path) -> None:
    model = _recipe(shipped).plan.model
    assert estimate.serving_bytes(model, Generation(1, 1), 1) - 2 * model.parameters == 128 * 1024


def test_a_checkpoint_is_seven_times_the_nemo_file() -> None:
    assert estimate.checkpoint_bytes(100, 0) == 200
    assert estimate.checkpoint_bytes(100, 2) == 200 + 2 * 1400


@pytest.mark.parametrize(
    ("overrides", "calls"),
    [
        ((), (3, 4, 12)),
        (_BEST_WORST, (3, 4, 2)),
        (("rl_cai.temperatures=[1, 2]",), (3, 2, 2)),
        ((_NO_CRITIQUE,), (2, 4, 12)),
    ],
)
def test_calls_are_those_of_the_generation_steps(
    shipped: Path, overrides: tuple[str, ...], calls: tuple[int, int, int]
) -> None:
    assert estimate.calls_per_prompt(_recipe(shipped, *overrides)) == calls


def test_a_hosted_judge_takes_calls_over_its_quota_and_an_own_one_operations_over_speed(shipped: Path) -> None:
    rows = ("plan.data.red_team=2400", "plan.data.tokens.judge_request=400", "plan.data.tokens.judge_answer=150")
    hosted = _steps(shipped, *rows, *_BEST_WORST, _HOSTED)["4 RL-CAI data: judge"]
    assert hosted.judge_calls == 2400
    assert hosted.hours == 1.0  # 2400 calls, 40 a minute
    assert hosted.gpu_hours == 0.0
    own = _steps(shipped, *rows, *_BEST_WORST)["4 RL-CAI data: judge"]
    # 2400 x (400 + 40 + 4 x 200 + 150) tokens, 2 x 7.24e9 operations each, on 4 x 989e12 x 0.05 a second.
    assert own.hours == pytest.approx(2400 * 1390 * 2 * 7241732096 / (4 * 989e12 * 0.05) / 3600)
    assert own.gpu_hours == pytest.approx(4 * own.hours)


def test_an_endpoint_uses_no_gpus_and_the_stricter_of_its_limits_is_its_time(shipped: Path) -> None:
    rows = ("plan.data.red_team=2400", "plan.data.tokens.judge_request=400", "plan.data.tokens.judge_answer=150")
    one = "{{endpoint: 'http://h', model: m, {0}}}"
    served = f"models={{{{helpful_only: {one}, base: tiny, judge: {one}}}}}"
    steps = _steps(shipped, *rows, *_BEST_WORST, served.format("requests_per_minute: 40, tokens_per_minute: 139000"))
    model, judge = steps["2 SL-CAI data"], steps["4 RL-CAI data: judge"]
    # 1200 prompts, each with three calls that read 640 + 900 + 1060 tokens and write 200 + 120 + 200.
    assert model.hours == 1200 * 3 / 40 / 60 == pytest.approx(1.5)
    assert model.hours > 1200 * 3120 / 139_000 / 60
    assert judge.hours == 2400 / 40 / 60 > 2400 * 1390 / 139_000 / 60
    tokens = _steps(shipped, *rows, *_BEST_WORST, served.format("requests_per_minute: 4000, tokens_per_minute: 1390"))
    assert tokens["4 RL-CAI data: judge"].hours == pytest.approx(2400 / 60)
    for step in (model, judge):
        assert (step.gpu_hours, step.memory_gb, step.fits) == (0.0, 0.0, True)
    assert steps["4 RL-CAI data: candidates"].gpu_hours > 0, "the run serves the trained model itself"
    without = _steps(shipped, *rows, *_BEST_WORST, served.format("concurrency: 4"))
    assert without["2 SL-CAI data"].hours == 0.0, "the speed of an endpoint is not known"


@pytest.mark.parametrize(
    ("name", "section", "step"),
    [
        ("mistral_7b", "sft", "3 SL-CAI model"),
        ("mistral_7b", "reward_model", "5 reward model"),
        ("llama3_8b_dpo_1gpu", "dpo", "5 RL-CAI model"),
    ],
)
def test_a_trainer_ends_at_its_steps_or_at_its_rows(shipped: Path, name: str, section: str, step: str) -> None:
    path = shipped.with_name(f"{name}.yaml")
    trainer = yaml.safe_load(path.read_text(encoding="utf-8"))[section]
    steps: dict[int, ResourceEstimate] = {}
    for most in (-1, 10, 10_000_000):
        overrides = [*trainer["overrides"], f"trainer.{_TRAINERS[section]}.max_steps={most}"]
        steps[most] = _steps(path, f"{section}={json.dumps(trainer | {'overrides': overrides})}")[step]
    assert steps[10].tokens_in < steps[-1].tokens_in == steps[10_000_000].tokens_in
    share = steps[10].tokens_in / steps[-1].tokens_in
    assert steps[10].gpu_hours == pytest.approx(share * steps[-1].gpu_hours)
    assert steps[10].disk_gb == steps[-1].disk_gb


def test_the_steps_of_the_reward_model_have_its_batch(shipped: Path) -> None:
    section = yaml.safe_load(shipped.read_text(encoding="utf-8"))["reward_model"]
    section["overrides"] += ["trainer.rm.max_steps=10", "model.global_batch_size=64"]
    needs = _steps(shipped, f"reward_model={json.dumps(section)}")["5 reward model"]
    assert needs.tokens_in == 10 * 64 * 2 * 4096


def test_tokens_of_critique_and_revision(shipped: Path) -> None:
    needs = _steps(shipped, "plan.data.red_team=20")["2 SL-CAI data"]
    assert needs.model_calls == 30
    # Read: 640, then 640 + 200 + 60, then 900 + 120 + 40.
    assert needs.tokens_in == 10 * (640 + 900 + 1060)
    assert needs.tokens_out == 10 * (200 + 120 + 200)
    direct = _steps(shipped, "plan.data.red_team=20", _NO_CRITIQUE)["2 SL-CAI data"]
    # Read: 640, then 640 + 200 + 40.
    assert direct.tokens_in == 10 * (640 + 880)
    assert direct.tokens_out == 10 * (200 + 200)


def test_the_reward_model_reads_both_texts_padded(shipped: Path) -> None:
    needs = _steps(shipped, "plan.data.red_team=2000", "plan.data.helpful_pairs=520")["5 reward model"]
    assert needs.tokens_in == pytest.approx(2 * (1000 * 0.8 * 3 + 520) * 4096)


def test_ppo_stops_at_its_steps_or_at_its_prompts(shipped: Path) -> None:
    ppo = yaml.safe_load(shipped.read_text(encoding="utf-8"))["ppo"]
    ppo["actor"].append("trainer.ppo.max_steps=2")
    steps = f"ppo={json.dumps(ppo)}"
    assert _steps(shipped, steps)["6 RL-CAI model"].model_calls == 1024
    few = ("plan.data.red_team=200", "plan.data.helpful_pairs=20", steps)
    assert _steps(shipped, *few)["6 RL-CAI model"].model_calls == 100


def test_actor_and_critic_fit_one_node_on_halves_of_its_gpus_and_not_on_the_same(shipped: Path) -> None:
    plan = _recipe(shipped)
    assert plan.ppo is not None and not plan.ppo.shared
    assert plan.ppo.actor.gpus + plan.ppo.critic.gpus == 8
    # 7.24e9 / 2 x (6 + 12 / 2) bytes, and 32 layers x 4096 tokens x 4096 x 22 bytes, and logits.
    half = (7241732096 / 2 * 12 + 32 * 4096 * 4096 * 22 + 4 * 4096 * 32000 / 2) / 1e9
    assert estimate.ppo_memory_gb(plan, plan.ppo) == pytest.approx(half)
    assert half < plan.plan.hardware.memory_gb == 80
    ppo = yaml.safe_load(shipped.read_text(encoding="utf-8"))["ppo"]
    whole = ppo | {"critic_gpus": [], "actor_gpus": []}
    for job in ("actor", "critic"):
        whole[job] = [line.replace("devices=4", "devices=8") for line in ppo[job]]
    needs = _steps(shipped, f"ppo={json.dumps(whole)}")["6 RL-CAI model"]
    assert round(needs.memory_gb) == 89
    assert not needs.fits


def test_the_shipped_recipes_fit(shipped: Path) -> None:
    for name in ("mistral_7b", "mistral_7b_slurm", "llama3_8b_dpo_1gpu"):
        steps = estimate.plan(_recipe(shipped.with_name(f"{name}.yaml")))
        assert all(step.fits for step in steps), name
        assert len(steps) == (6 if "dpo" in name else 7)


def test_what_does_not_fit_is_said(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not _steps(shipped, "plan.hardware.memory_gb=40")["3 SL-CAI model"].fits
    assert main(["plan", str(shipped), "plan.hardware.memory_gb=40"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_estimates_are_told_from_counts(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(shipped), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"][0] for row in rows] == ["1", "2", "3", "4", "4", "5", "6", "a"]
    total = rows[-1]
    assert total["counted"]["judge_calls"] == 12 * (38961 - 38961 // 2)
    for key in ("hours", "disk_gb"):
        assert total["estimated"][key] == pytest.approx(sum(row["estimated"][key] for row in rows[:-1]))
    assert main(["plan", str(shipped)]) == 0
    assert "~ estimated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("plan.model.layer=1", r"no key 'plan\.model\.layer'"),
        ("plan.model={parameters: 1}", r"plan\.model\.layers: missing"),
        ("plan.model.layers=many", r"plan\.model\.layers: "),
        ("plan=null", "plan: "),
        ("sft={seq_length: 9, overrides: [trainer.devices=8, model.tensor_model_parallel_size=3]}", "sft: 8 GPUs"),
        ("sft={seq_length: 9, overrides: [model.data.train_ds.global_batch_size=65]}", "sft: the global batch size"),
        ("sft={seq_length: 9, overrides: [model.nothing=1]}", "nothing"),
        ("rl_cai.judge=oracle", "oracle"),
    ],
)
def test_what_is_wrong_is_named(shipped: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        estimate.plan(_recipe(shipped, override))
