# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Resources of a run on GPUs, by step: model calls, tokens, GPU-hours, disk and memory.

Input:  a Recipe: a run's configuration, with facts and assumptions; see examples/nlp/cai/mistral_7b.yaml
Output: one ResourceEstimate for each step

Calls are counted by the generation steps themselves. All other figures are estimates from the token counts and
utilizations that the configuration assumes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import load_constitution, packaged
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.engine.planned_calls import count_calls
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.judges.settings import build_judge
from nemo_aligner_cai.judges.steps import PreferenceSample
from nemo_aligner_cai.models import Sampling, ScriptedClient
from nemo_aligner_cai.planning.config import Model
from nemo_aligner_cai.planning.recipe import Generation, Ppo, Recipe, Trainer
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.comparisons import ComparisonPipeline
from nemo_aligner_cai.stages.revisions import RevisionPipeline, RevisionSample

_GB = 1e9
_PROMPT = Prompt.of(Conversation.of_user("How do I pick a lock?"))
_SAMPLED = Sampling(temperature=1.0, max_tokens=16, seed=0)


@dataclass(frozen=True)
class ResourceEstimate:
    """Resources of one step. Calls are counted, the rest are estimates.

    Attributes:
        step: its name.
        model_calls: of the helpful-only model or the policy; for PPO, rollouts.
        judge_calls: of the judge.
        tokens_in: read by models, or given to a trainer.
        tokens_out: written by models.
        gpu_hours: GPUs held, times hours.
        hours: wall-clock time.
        disk_gb: of the files that remain.
        memory_gb: of the fullest GPU; 0 if the step uses none.
        fits: False if that is more than a GPU has.
    """

    step: str
    model_calls: int = 0
    judge_calls: int = 0
    tokens_in: float = 0.0
    tokens_out: float = 0.0
    gpu_hours: float = 0.0
    hours: float = 0.0
    disk_gb: float = 0.0
    memory_gb: float = 0.0
    fits: bool = True


def training_flops(parameters: float, tokens: float, *, recompute: bool) -> float:
    """6 N D (Kaplan et al. 2020, section 2.1); full recomputation adds a forward pass, 2 N D (Korthikanti 2022)."""
    return (8 if recompute else 6) * parameters * tokens


def forward_flops(parameters: float, tokens: float) -> float:
    """2 N D (Kaplan et al. 2020, section 2.1), for each token read or written."""
    return 2 * parameters * tokens


def training_bytes(parameters: float, trainer: Trainer) -> float:
    """Weights, gradients and Adam on one GPU.

    6 + 12/d bytes per parameter: bf16 weights, fp32 gradients, and fp32 weights and two moments sharded over the d
    data-parallel ranks (Megatron-Core's distributed optimizer). With adapters, which are neglected, only the weights.
    """
    per_gpu = parameters / (trainer.tensor_parallel * trainer.pipeline_parallel)
    return per_gpu * (2 if trainer.adapters else 6 + 12 / trainer.data_parallel)


def activation_bytes(model: Model, trainer: Trainer) -> float:
    """Activations of a micro batch on one GPU (Korthikanti et al. 2022, table 2), without stored attention scores.

    A layer holds s b h (10 + 24/t) bytes; with full recomputation only one layer does, and the others hold 2 s b h.
    The fullest pipeline stage holds enough micro batches to make up for its fewer layers. The logits of the output
    layer are fp32.
    """
    tokens, t = trainer.seq_length * trainer.micro_batch * trainer.texts, trainer.tensor_parallel
    layer = tokens * model.hidden * (10 + 24 / t)
    layers = model.layers * layer if trainer.recompute == "none" else model.layers * 2 * tokens * model.hidden + layer
    return layers + 4 * tokens * model.vocabulary / t


def serving_bytes(model: Model, generation: Generation, tokens: float) -> float:
    """bf16 weights and the KV cache of a batch, `tokens` per sequence, on one GPU of the server; 0 without GPUs."""
    if not generation.gpus:
        return 0.0
    return (2 * model.parameters + generation.batch_size * tokens * cache_bytes(model)) / generation.gpus


def cache_bytes(model: Model) -> float:
    """Keys and values of one token, in bf16."""
    return 2 * model.layers * model.kv_heads * (model.hidden / model.heads) * 2


def rollout_bytes(model: Model, ppo: Ppo) -> float:
    """The KV cache of a rollout batch and its logits without gradients, bf16 and fp32, on one GPU of the actor."""
    tokens = ppo.rollout_batch * ppo.actor.seq_length
    return tokens * (cache_bytes(model) + 6 * model.vocabulary) / ppo.actor.tensor_parallel


def checkpoint_bytes(parameters: float, checkpoints: int) -> float:
    """The .nemo file (bf16), and checkpoints with Adam's state (2 + 12 bytes per parameter)."""
    return parameters * (2 + 14 * checkpoints)


def calls_per_prompt(recipe: Recipe) -> tuple[int, int, int]:
    """Calls per prompt of SL-CAI's model, of the policy, and of the judge.

    Raises:
        UsageError: the judge is unknown or does not support the settings.
    """
    constitution, templates = load_constitution(packaged()), PromptTemplates()
    model, judge_model = ScriptedClient(), ScriptedClient()
    revisions = RevisionPipeline(
        model, constitution, (), templates, _SAMPLED, 0, recipe.revisions, critique=recipe.critique
    )
    sl_cai = asyncio.run(count_calls([RevisionSample(_PROMPT)], revisions.steps(), RunSettings(), None)).calls
    judge = build_judge(recipe.judge.config, seed=0, constitution=constitution)
    temperatures = (1.0,) * recipe.candidates
    comparisons = ComparisonPipeline(model, judge_model, judge, _SAMPLED, temperatures, 0)
    rl_cai = asyncio.run(count_calls([PreferenceSample(_PROMPT)], comparisons.steps(), RunSettings(), None)).calls
    return sl_cai.total(), rl_cai["sample"], rl_cai.total() - rl_cai["sample"]


def plan(recipe: Recipe) -> list[ResourceEstimate]:
    """The resources of each step."""
    sl_calls, samples, judgments = calls_per_prompt(recipe)
    return [
        ResourceEstimate("1 models and data", disk_gb=2 * (2 + 2) * recipe.plan.model.parameters / _GB),
        _sl_cai(recipe, sl_calls),
        _sft(recipe),
        *_rl_cai(recipe, samples, judgments),
        *([_dpo(recipe, recipe.dpo)] if recipe.dpo else []),
        *([_reward_model(recipe, recipe.reward_model)] if recipe.reward_model else []),
        *([_ppo(recipe, recipe.ppo)] if recipe.ppo else []),
    ]


def _sl_cai(recipe: Recipe, calls: int) -> ResourceEstimate:
    tokens, prompts, revisions = recipe.plan.data.tokens, recipe.sl_prompts, recipe.revisions
    start = tokens.few_shots + tokens.prompt
    answered = start + tokens.response
    asked, found = (tokens.critique_request, tokens.critique) if recipe.critique else (0, 0)
    revision = answered + asked + found + tokens.revision_request
    turn = revision + (answered + asked if recipe.critique else 0)
    read = prompts * (start + revisions * turn)
    written = prompts * (tokens.response + revisions * (found + tokens.revision))
    server = recipe.helpful_only
    return _generation("2 SL-CAI data", recipe, server, prompts * calls, read, written, revision + tokens.revision)


def _rl_cai(recipe: Recipe, samples: int, judgments: int) -> tuple[ResourceEstimate, ResourceEstimate]:
    tokens, prompts, judge = recipe.plan.data.tokens, recipe.rl_prompts, recipe.judge
    calls = prompts * samples
    sampling = _generation(
        "4 RL-CAI data: candidates",
        recipe,
        recipe.policy,
        calls,
        calls * tokens.prompt,
        calls * tokens.response,
        tokens.prompt + tokens.response,
    )
    asked = prompts * judgments
    shown = recipe.candidates if judge.config.strategy == "best-worst" else 2
    read = asked * (tokens.judge_request + tokens.prompt + shown * tokens.response)
    written = asked * tokens.judge_answer
    hours, gpu_hours = _serving_hours(recipe, judge.server, judge.parameters, asked, read + written)
    judging = ResourceEstimate(
        "4 RL-CAI data: judge",
        judge_calls=asked,
        tokens_in=read,
        tokens_out=written,
        gpu_hours=gpu_hours,
        hours=hours,
        disk_gb=_text_gb(recipe, read + written),
    )
    return sampling, judging


def _generation(
    name: str, recipe: Recipe, server: Generation, calls: int, read: float, written: float, longest: float
) -> ResourceEstimate:
    hours, gpu_hours = _serving_hours(recipe, server, recipe.plan.model.parameters, calls, read + written)
    memory = serving_bytes(recipe.plan.model, server, longest) / _GB
    return ResourceEstimate(
        name,
        model_calls=calls,
        tokens_in=read,
        tokens_out=written,
        gpu_hours=gpu_hours,
        hours=hours,
        disk_gb=_text_gb(recipe, read + written),
        memory_gb=memory,
        fits=memory <= recipe.plan.hardware.memory_gb,
    )


def _serving_hours(
    recipe: Recipe, server: Generation, parameters: float, calls: float, tokens: float
) -> tuple[float, float]:
    """Hours and GPU-hours of a model's calls: by the speed of its GPUs, or by the rate limits of an endpoint."""
    gpus = server.gpus * server.copies
    if not gpus:
        return server.limits.hours(calls, tokens), 0.0
    hours = _hours(recipe, forward_flops(parameters, tokens), gpus, training=False)
    return hours, hours * gpus


def _sft(recipe: Recipe) -> ResourceEstimate:
    data, trainer = recipe.plan.data, recipe.sft
    revisions = recipe.sl_prompts * data.revisions_kept
    tokens = revisions * (data.tokens.prompt + data.tokens.revision)
    tokens += data.helpful_dialogues * data.tokens.helpful_dialogue
    rows = revisions + data.helpful_dialogues
    return _training("3 SL-CAI model", recipe, trainer, tokens / rows * _rows(trainer, rows))


def _pairs(recipe: Recipe) -> float:
    return recipe.rl_prompts * recipe.train_share * recipe.plan.data.pairs_kept + recipe.plan.data.helpful_pairs


def _rows(trainer: Trainer, rows: float) -> float:
    return trainer.rows_read(rows, trainer.global_batch)


def _reward_model(recipe: Recipe, trainer: Trainer) -> ResourceEstimate:
    # Upstream pads every text to the sequence length.
    tokens = 2 * _rows(trainer, _pairs(recipe)) * trainer.seq_length
    return _training("5 reward model", recipe, trainer, tokens)


def _dpo(recipe: Recipe, trainer: Trainer) -> ResourceEstimate:
    tokens = recipe.plan.data.tokens
    read = 2 * _rows(trainer, _pairs(recipe)) * (tokens.prompt + tokens.response)
    # The reference policy reads each text once more.
    reference = forward_flops(recipe.plan.model.parameters, read)
    return _training("5 RL-CAI model", recipe, trainer, read, extra_flops=reference)


def _training(
    name: str, recipe: Recipe, trainer: Trainer, tokens: float, *, extra_flops: float = 0.0
) -> ResourceEstimate:
    parameters = recipe.plan.model.parameters
    flops = training_flops(parameters, tokens, recompute=trainer.recompute == "full") + extra_flops
    hours, memory = _hours(recipe, flops, trainer.gpus, training=True), _training_gb(recipe, trainer)
    return ResourceEstimate(
        name,
        tokens_in=tokens,
        gpu_hours=hours * trainer.gpus,
        hours=hours,
        disk_gb=checkpoint_bytes(parameters, trainer.checkpoints) / _GB,
        memory_gb=memory,
        fits=memory <= recipe.plan.hardware.memory_gb,
    )


def _ppo(recipe: Recipe, ppo: Ppo) -> ResourceEstimate:
    data, parameters = recipe.plan.data, recipe.plan.model.parameters
    samples = int(ppo.actor.rows_read(recipe.rl_prompts * recipe.train_share + data.helpful_pairs, ppo.rollouts))
    read, written = samples * data.tokens.prompt, samples * data.tokens.response
    forward = forward_flops(parameters, read + written)
    learn_actor, learn_critic = (
        training_flops(parameters, read + written, recompute=job.recompute == "full")
        for job in (ppo.actor, ppo.critic)
    )
    # The actor generates, then scores with the policy and the reference policy; the critic gives values and rewards.
    actor = _hours(recipe, forward, ppo.actor.gpus, training=False) + _hours(
        recipe, 2 * forward + learn_actor, ppo.actor.gpus, training=True
    )
    critic = _hours(recipe, 2 * forward + learn_critic, ppo.critic.gpus, training=True)
    # Both jobs hold their GPUs until the slower one ends; on the same GPUs they take turns.
    hours = actor + critic if ppo.shared else max(actor, critic)
    gpus = max(ppo.actor.gpus, ppo.critic.gpus) if ppo.shared else ppo.actor.gpus + ppo.critic.gpus
    memory = ppo_memory_gb(recipe, ppo)
    return ResourceEstimate(
        "6 RL-CAI model",
        model_calls=samples,
        tokens_in=read,
        tokens_out=written,
        gpu_hours=hours * gpus,
        hours=hours,
        disk_gb=sum(checkpoint_bytes(parameters, job.checkpoints) for job in (ppo.actor, ppo.critic)) / _GB,
        memory_gb=memory,
        fits=memory <= recipe.plan.hardware.memory_gb,
    )


def ppo_memory_gb(recipe: Recipe, ppo: Ppo) -> float:
    """The fullest GPU of PPO: actor and critic together if they share their GPUs, else the larger of the two."""
    model = recipe.plan.model
    # The actor generates and learns in turn; its reference weights are on the CPU.
    working = max(activation_bytes(model, ppo.actor), rollout_bytes(model, ppo))
    actor = (training_bytes(model.parameters, ppo.actor) + working) / _GB
    critic = _training_gb(recipe, ppo.critic)
    return actor + critic if ppo.shared else max(actor, critic)


def _hours(recipe: Recipe, flops: float, gpus: int, *, training: bool) -> float:
    hardware = recipe.plan.hardware
    share = hardware.training_utilization if training else hardware.generation_utilization
    return flops / (gpus * hardware.peak_tflops * 1e12 * share) / 3600


def _training_gb(recipe: Recipe, trainer: Trainer) -> float:
    model = recipe.plan.model
    return (training_bytes(model.parameters, trainer) + activation_bytes(model, trainer)) / _GB


def _text_gb(recipe: Recipe, tokens: float) -> float:
    # The journal holds requests and completions.
    return tokens * recipe.plan.data.bytes_per_token / _GB
