# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Resources of a run on GPUs, by step: model calls, tokens, GPU-hours, disk and memory.

Input:  a PlanConfig: facts about the model and the data, and assumptions; see examples/nlp/cai/mistral_7b.yaml
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
from nemo_aligner_cai.engine.plan import plan as count_calls
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.preference_sample import PreferenceSample
from nemo_aligner_cai.judges.settings import JudgeConfig, build_judge
from nemo_aligner_cai.models import Sampling, ScriptedClient
from nemo_aligner_cai.planning.config import Generation, Model, PlanConfig, Trainer
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
    data-parallel ranks (Megatron-Core's distributed optimizer).
    """
    per_gpu = parameters / (trainer.tensor_parallel * trainer.pipeline_parallel)
    return per_gpu * (6 + 12 / trainer.data_parallel)


def activation_bytes(model: Model, trainer: Trainer) -> float:
    """Activations of a micro batch on one GPU (Korthikanti et al. 2022, table 2), without stored attention scores.

    A layer holds s b h (10 + 24/t) bytes; with full recomputation only one layer does, and the others hold 2 s b h.
    The fullest pipeline stage holds enough micro batches to make up for its fewer layers. The logits of the output
    layer are fp32.
    """
    tokens, t = trainer.seq_length * trainer.micro_batch, trainer.tensor_parallel
    layer = tokens * model.hidden * (10 + 24 / t)
    layers = model.layers * layer if trainer.recompute == "none" else model.layers * 2 * tokens * model.hidden + layer
    return layers + 4 * tokens * model.vocabulary / t


def serving_bytes(model: Model, generation: Generation, tokens: float) -> float:
    """bf16 weights and the KV cache of a batch, `tokens` per sequence, on one GPU of the server."""
    per_token = 2 * model.layers * model.kv_heads * (model.hidden / model.heads) * 2
    return (2 * model.parameters + generation.batch_size * tokens * per_token) / generation.gpus


def checkpoint_bytes(parameters: float, checkpoints: int) -> float:
    """The .nemo file (bf16), and checkpoints with Adam's state (2 + 12 bytes per parameter)."""
    return parameters * (2 + 14 * checkpoints)


def calls_per_prompt(config: PlanConfig) -> tuple[int, int, int]:
    """Calls per prompt of SL-CAI's model, of the policy, and of the judge.

    Raises:
        UsageError: the judge is unknown or does not support the settings.
    """
    constitution, templates = load_constitution(packaged()), PromptTemplates()
    model, judge_model = ScriptedClient(), ScriptedClient()
    revisions = RevisionPipeline(model, constitution, (), templates, _SAMPLED, 0, config.generation.revisions)
    sl_cai = asyncio.run(count_calls([RevisionSample(_PROMPT)], revisions.steps(), seed=0, journal_path=None)).calls
    judge_config = JudgeConfig(
        strategy=config.judge.strategy, pairs=config.judge.pairs, both_orders=config.judge.both_orders
    )
    judge = build_judge(judge_config, seed=0, constitution=constitution)
    temperatures = (1.0,) * config.generation.candidates
    comparisons = ComparisonPipeline(model, judge_model, judge, _SAMPLED, temperatures, 0)
    rl_cai = asyncio.run(
        count_calls([PreferenceSample(_PROMPT)], comparisons.steps(), seed=0, journal_path=None)
    ).calls
    return sl_cai.total(), rl_cai["sample"], rl_cai.total() - rl_cai["sample"]


def plan(config: PlanConfig) -> list[ResourceEstimate]:
    """The resources of each step.

    Raises:
        UsageError: inconsistent numbers; names the key.
    """
    for name, trainer in (
        ("sft", config.sft),
        ("reward_model", config.reward_model),
        ("ppo.actor", config.ppo.actor),
        ("ppo.critic", config.ppo.critic),
    ):
        _check(name, trainer)
    sl_calls, samples, judgements = calls_per_prompt(config)
    return [
        ResourceEstimate("1 models and data", disk_gb=2 * (2 + 2) * config.model.parameters / _GB),
        _sl_cai(config, sl_calls),
        _sft(config),
        *_rl_cai(config, samples, judgements),
        _reward_model(config),
        _ppo(config),
    ]


def _check(name: str, trainer: Trainer) -> None:
    parallel = trainer.tensor_parallel * trainer.pipeline_parallel
    if trainer.gpus % parallel:
        raise UsageError(f"{name}.gpus={trainer.gpus} is not a multiple of tensor_parallel x pipeline_parallel")
    if trainer.global_batch % (trainer.micro_batch * trainer.data_parallel):
        raise UsageError(
            f"{name}.global_batch={trainer.global_batch} is not a multiple of micro_batch x {trainer.data_parallel} "
            "copies of the model"
        )


def _sl_cai(config: PlanConfig, calls: int) -> ResourceEstimate:
    tokens, prompts, revisions = config.data.tokens, config.data.sl_prompts, config.generation.revisions
    start = tokens.few_shots + tokens.prompt
    critique = start + tokens.response + tokens.critique_request
    revision = critique + tokens.critique + tokens.revision_request
    read = prompts * (start + revisions * (critique + revision))
    written = prompts * (tokens.response + revisions * (tokens.critique + tokens.revision))
    return _generation("2 SL-CAI data", config, prompts * calls, read, written, revision + tokens.revision)


def _rl_cai(config: PlanConfig, samples: int, judgements: int) -> tuple[ResourceEstimate, ResourceEstimate]:
    tokens, prompts, judge = config.data.tokens, config.data.rl_prompts, config.judge
    calls = prompts * samples
    sampling = _generation(
        "4 RL-CAI data: candidates",
        config,
        calls,
        calls * tokens.prompt,
        calls * tokens.response,
        tokens.prompt + tokens.response,
    )
    asked = prompts * judgements
    shown = config.generation.candidates if judge.strategy == "best-worst" else 2
    read = asked * (tokens.judge_request + tokens.prompt + shown * tokens.response)
    written = asked * tokens.judge_answer
    hours, gpus = asked / judge.requests_per_minute / 60, 0
    if judge.own:
        gpus = judge.own_gpus
        hours = _hours(config, forward_flops(judge.own_active_parameters, read + written), gpus, training=False)
    judging = ResourceEstimate(
        "4 RL-CAI data: judge",
        judge_calls=asked,
        tokens_in=read,
        tokens_out=written,
        gpu_hours=hours * gpus,
        hours=hours,
        disk_gb=_text_gb(config, read + written),
    )
    return sampling, judging


def _generation(
    name: str, config: PlanConfig, calls: int, read: float, written: float, longest: float
) -> ResourceEstimate:
    hours = _hours(
        config, forward_flops(config.model.parameters, read + written), config.generation.gpus, training=False
    )
    memory = serving_bytes(config.model, config.generation, longest) / _GB
    return ResourceEstimate(
        name,
        model_calls=calls,
        tokens_in=read,
        tokens_out=written,
        gpu_hours=hours * config.generation.gpus,
        hours=hours,
        disk_gb=_text_gb(config, read + written),
        memory_gb=memory,
        fits=memory <= config.hardware.memory_gb,
    )


def _sft(config: PlanConfig) -> ResourceEstimate:
    data = config.data
    revised = data.sl_prompts * data.revisions_kept * (data.tokens.prompt + data.tokens.revision)
    tokens = revised + data.helpful_dialogues * data.tokens.helpful_dialogue
    return _training("3 SL-CAI model", config, config.sft, tokens * config.sft.epochs)


def _reward_model(config: PlanConfig) -> ResourceEstimate:
    data, trainer = config.data, config.reward_model
    pairs = data.rl_prompts * data.train_share * data.pairs_kept + data.helpful_pairs
    # Upstream pads every text to the sequence length.
    return _training("5 reward model", config, trainer, 2 * pairs * trainer.seq_length * trainer.epochs)


def _training(name: str, config: PlanConfig, trainer: Trainer, tokens: float) -> ResourceEstimate:
    flops = training_flops(config.model.parameters, tokens, recompute=trainer.recompute == "full")
    hours, memory = _hours(config, flops, trainer.gpus, training=True), _training_gb(config, trainer)
    return ResourceEstimate(
        name,
        tokens_in=tokens,
        gpu_hours=hours * trainer.gpus,
        hours=hours,
        disk_gb=checkpoint_bytes(config.model.parameters, trainer.checkpoints) / _GB,
        memory_gb=memory,
        fits=memory <= config.hardware.memory_gb,
    )


def _ppo(config: PlanConfig) -> ResourceEstimate:
    data, ppo, parameters = config.data, config.ppo, config.model.parameters
    samples = int((data.rl_prompts * data.train_share + data.helpful_pairs) * ppo.actor.epochs)
    if ppo.max_steps is not None:
        samples = min(samples, ppo.max_steps * ppo.rollouts)
    read, written = samples * data.tokens.prompt, samples * data.tokens.response
    forward = forward_flops(parameters, read + written)
    trained = {
        job: training_flops(parameters, read + written, recompute=job.recompute == "full")
        for job in (ppo.actor, ppo.critic)
    }
    # The actor generates, then scores with the policy and the reference policy; the critic gives values and rewards.
    actor = _hours(config, forward, ppo.actor.gpus, training=False) + _hours(
        config, 2 * forward + trained[ppo.actor], ppo.actor.gpus, training=True
    )
    critic = _hours(config, 2 * forward + trained[ppo.critic], ppo.critic.gpus, training=True)
    # Both jobs hold their GPUs until the slower one ends.
    hours = max(actor, critic)
    memory = max(_training_gb(config, job) for job in (ppo.actor, ppo.critic))
    return ResourceEstimate(
        "6 RL-CAI model",
        model_calls=samples,
        tokens_in=read,
        tokens_out=written,
        gpu_hours=hours * (ppo.actor.gpus + ppo.critic.gpus),
        hours=hours,
        disk_gb=sum(checkpoint_bytes(parameters, job.checkpoints) for job in (ppo.actor, ppo.critic)) / _GB,
        memory_gb=memory,
        fits=memory <= config.hardware.memory_gb,
    )


def _hours(config: PlanConfig, flops: float, gpus: int, *, training: bool) -> float:
    hardware = config.hardware
    share = hardware.training_utilisation if training else hardware.generation_utilisation
    return flops / (gpus * hardware.peak_tflops * 1e12 * share) / 3600


def _training_gb(config: PlanConfig, trainer: Trainer) -> float:
    return (training_bytes(config.model.parameters, trainer) + activation_bytes(config.model, trainer)) / _GB


def _text_gb(config: PlanConfig, tokens: float) -> float:
    # The journal holds requests and completions.
    return tokens * config.data.bytes_per_token / _GB
