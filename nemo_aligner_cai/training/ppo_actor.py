# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""PPO: NeMo-Aligner's MegatronGPTActorModel and PPOTrainer against a running critic server (tutorial, step 6).

    python -m nemo_aligner_cai.training.ppo_actor pretrained_checkpoint.restore_from_path=... \
        remote_critic_rm.critic.port=5567 ...

Input row:  {"text": the rendered prompt, up to the assistant's reply}
Output:     <explicit_log_dir>/checkpoints/<name>.nemo, the checkpoints, and <explicit_log_dir>/metrics.jsonl with
            `train_rollouts/rewards` and `val_rollouts/rewards`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import assembly, data_processors
from nemo_aligner_cai.training.checks import constraints, data_files, model_file, parallelism, schedule
from nemo_aligner_cai.training.checks.all_stages import check_stage
from nemo_aligner_cai.training.checks.values import parse_positive_int, positive_int
from nemo_aligner_cai.training.config import select
from nemo_aligner_cai.training.launch import jobs, log_folder, loopback
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SOURCE = "pretrained_checkpoint.restore_from_path"
_HEALTH_TIMEOUT_S = 5.0


def check(cfg: DictConfig) -> None:
    """Raise UsageError for settings and files on which the stage would fail, or hang, after loading."""
    context_length = check_stage(cfg, _SOURCE, constraints.PPO, "ppo")
    length = model_file.sequence_length(cfg, "model.data.seq_length", context_length)
    response_key = "model.ppo.length_params.max_length"
    response = parse_positive_int(select(cfg, response_key), response_key)
    if length is not None and response >= length:
        raise UsageError(
            f"{response_key}={response} leaves no room for a prompt in model.data.seq_length={length} tokens"
        )
    _check_batches(cfg)
    data_processors.process(cfg, data_files.split_keys(cfg), to="ppo-prompts")
    batch_key = "model.ppo.num_rollout_samples"
    spec = data_files.DatasetSpec("ppo-prompts", _SOURCE, length, batch_key, response_length=response)
    validation_key = "model.ppo.num_val_samples" if schedule.validates(cfg, "ppo") else None
    samples = data_files.check_splits(cfg, spec, validation_key)
    rollouts = positive_int(cfg, batch_key)
    log_folder.check_earlier_run(cfg, "ppo", schedule.planned_steps(cfg, "ppo", samples, rollouts))
    _check_critic(cfg)


def _check_batches(cfg: DictConfig) -> None:
    """Raise UsageError for batch sizes that upstream cannot divide in loading, generation, inference and training."""
    parallelism.check_batch(cfg, "model.micro_batch_size", "model.global_batch_size")
    parallelism.check_batch(cfg, "model.global_batch_size", "model.ppo.num_rollout_samples", 1)
    # With reshard, TensorRT-LLM makes each pipeline stage generate on its own.
    resharded = select(cfg, "trainer.ppo.trt_llm.enable") and select(cfg, "trainer.ppo.trt_llm.reshard")
    stages = (positive_int(cfg, "model.pipeline_model_parallel_size") or 1) if resharded else 1
    rollouts = [("model.ppo.rollout_micro_batch_size", "model.ppo.num_rollout_samples")]
    if schedule.validates(cfg, "ppo"):
        rollouts.append(("model.ppo.val_rollout_micro_batch_size", "model.ppo.num_val_samples"))
    for micro_key, samples_key in rollouts:
        parallelism.check_batch(cfg, micro_key, samples_key, stages * parallelism.data_parallel_size(cfg))
        # Log-probabilities are computed for all samples of a copy of the model, regardless of generation batches.
        parallelism.check_batch(cfg, "model.ppo.forward_micro_batch_size", samples_key)


def _check_critic(cfg: DictConfig) -> None:
    """Raise UsageError if a server is not ready, or if the critic does not serve the rewards that it should.

    Upstream's client would wait for 100 minutes, or fail on the first rollout.
    """
    remote = cfg.remote_critic_rm
    combined = select(cfg, "remote_critic_rm.combine_rm_and_critic_server")
    models = [("critic", name) for name in remote.critic.name.values()]
    models += [] if combined in (None, True) else [("reward_model", remote.reward_model.name)]
    for part, name in models:
        parse_positive_int(remote[part].port, f"remote_critic_rm.{part}.port")
        address = f"{remote[part].ip}:{remote[part].port}"
        if (reason := jobs.unready(f"http://{address}/v2/models/{name}/ready", _HEALTH_TIMEOUT_S)) is not None:
            server = "critic server" if part == "critic" else "reward model server"
            command = "cai train critic" if part == "critic" else "upstream's serve_reward_model.py"
            raise UsageError(
                f"remote_critic_rm.{part}: no {server} is ready at {address} ({reason}); start it first ({command}) "
                "and wait until it is ready"
            )
    url = f"http://{remote.critic.ip}:{remote.critic.port}/v2/models/{remote.critic.name.infer}"
    outputs = jobs.outputs(url, _HEALTH_TIMEOUT_S)
    if combined and outputs and "rewards" not in outputs:
        raise UsageError(
            "remote_critic_rm.combine_rm_and_critic_server=True, but the critic serves no rewards: start it with "
            "trainer.ppo.combine_rm_and_critic_server=True, or give False here and start a reward model server"
        )


def train(cfg: DictConfig) -> None:
    """Train the policy of `pretrained_checkpoint.restore_from_path`."""
    from nemo_aligner.algorithms.ppo import PPOTrainer
    from nemo_aligner.models.nlp.gpt.megatron_gpt_ppo_actor import MegatronGPTActorModel
    from nemo_aligner.utils.batch_iterators import get_batch_iterator_cls
    from nemo_aligner.utils.train_script_utils import init_peft
    from nemo_aligner.utils.utils import load_from_nemo, retrieve_model_state_dict_in_cpu

    from nemo_aligner_cai.training.critic_client import OrderedCriticClient

    assembly.spawn_workers()
    source = cfg.pretrained_checkpoint.restore_from_path
    setup = assembly.set_up(cfg, source, "ppo")
    model = load_from_nemo(MegatronGPTActorModel, cfg.model, setup.trainer, strict=True, restore_path=source)
    init_peft(model, cfg.model)
    model.init_policy_state_dict = None
    if cfg.trainer.ppo.initial_policy_kl_penalty > 0 and cfg.model.peft.peft_scheme == "none":
        # The reference policy. With LoRA, it is the model without adapters.
        model.init_policy_state_dict = retrieve_model_state_dict_in_cpu(
            model, megatron_amp_O2=cfg.model.get("megatron_amp_O2", False)
        )
    assembly.init_process_groups(cfg, setup, model)

    train_ds, validation_ds, collate = _datasets(cfg, model.tokenizer)
    rollouts = cfg.model.ppo.num_rollout_samples
    planned = schedule.planned_steps(cfg, "ppo", len(train_ds), rollouts)
    # The samples of a step are trained on in batches.
    steps = planned and planned * (rollouts // cfg.model.global_batch_size)
    arguments = assembly.trainer_arguments(cfg, "ppo", setup, model, steps=steps)

    loopback.restrict_rollouts()
    rm_critic = OrderedCriticClient(cfg.remote_critic_rm)
    try:
        trainer = PPOTrainer(
            **arguments,
            train_dataloader_builder=_loader(cfg, train_ds, collate, validation=False),
            val_dataloader_builder=_loader(cfg, validation_ds, collate, validation=True),
            collate_fn=collate,
            rm_critic=rm_critic,
            batch_iterator_cls=get_batch_iterator_cls(cfg.trainer.ppo.get("batch_iterator", {})),
            run_timer=assembly.run_timer(cfg),
        )
        assembly.fit(trainer, setup)
        rm_critic.wait()
    finally:
        # Its worker threads are not daemons: they would keep a failed run from exiting.
        rm_critic.close()


def _datasets(cfg: DictConfig, tokenizer: Any) -> tuple[Any, Any, Any]:
    from nemo_aligner.data.nlp.builders import build_train_valid_test_rlhf_datasets, collate_with_pad_to_max_batch

    train, validation, _ = build_train_valid_test_rlhf_datasets(
        **assembly.dataset_arguments(cfg, tokenizer), train_valid_test_num_samples=[-1, -1, -1]
    )
    response = cfg.model.ppo.length_params.max_length
    collate = collate_with_pad_to_max_batch(response, tokenizer.eos_id, cfg, generate_masks_and_position_ids=False)
    return train, validation, collate


def _loader(cfg: DictConfig, dataset: Any, collate: Any, *, validation: bool) -> Any:
    """A function of `consumed_samples` that returns the prompt loader; PPO calls it for each rollout."""
    from nemo_aligner.data.nlp.builders import build_dataloader

    ppo = cfg.model.ppo
    return partial(
        build_dataloader,
        cfg=cfg,
        dataset=dataset,
        mbs=ppo.val_rollout_micro_batch_size if validation else ppo.rollout_micro_batch_size,
        gbs=ppo.num_val_samples if validation else ppo.num_rollout_samples,
        collate_fn=collate,
        load_gbs=False,
        use_random_sampler=not validation,
    )


STAGE = Stage(config="cai_ppo_actor", check=check, work=train, output="exp_manager.explicit_log_dir")

if __name__ == "__main__":
    start(STAGE)
