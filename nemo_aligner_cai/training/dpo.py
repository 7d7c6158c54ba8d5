# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""DPO, instead of steps 5 and 6: the SL-CAI model learns the AI preferences without a reward model.

    python -m nemo_aligner_cai.training.dpo pretrained_checkpoint.restore_from_path=... model.data.data_prefix=... ...

Input row:  {"prompt", "chosen_response", "rejected_response", "chosen_reward", "rejected_reward"}
Output:     <explicit_log_dir>/checkpoints/<name>.nemo, the checkpoints, and <explicit_log_dir>/metrics.jsonl with
            `train/loss`, which starts at ln 2, `train/rewards_chosen_mean` and `train/rewards_rejected_mean`.

Rafailov et al., arXiv 2305.18290; `model.dpo.preference_loss` selects upstream's other losses (IPO, RPO).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import assembly, config, data_processors
from nemo_aligner_cai.training.checks import constraints, data_files, model_file, parallelism, schedule
from nemo_aligner_cai.training.checks.all_stages import check_stage
from nemo_aligner_cai.training.launch import log_folder
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SOURCE, _BATCH = "pretrained_checkpoint.restore_from_path", "model.global_batch_size"


def check(cfg: DictConfig) -> None:
    """Raise UsageError for settings and files on which the stage would fail, or train nothing, after loading."""
    context_length = check_stage(cfg, _SOURCE, constraints.DPO, "dpo")
    if not cfg.model.dpo.preference_loss_weight and not cfg.model.dpo.sft_loss_weight:
        raise UsageError("model.dpo.preference_loss_weight and sft_loss_weight are both 0: nothing would be learned")
    length = model_file.sequence_length(cfg, "model.data.seq_length", context_length)
    for micro_key in ("model.micro_batch_size", "model.dpo.log_prob_forward_micro_batch_size"):
        parallelism.check_batch(cfg, micro_key, _BATCH)
    data_processors.process(cfg, data_files.split_keys(cfg), to="dpo")
    spec = data_files.DatasetSpec("dpo", _SOURCE, length, _BATCH)
    samples = data_files.check_splits(cfg, spec, _BATCH if schedule.validates(cfg, "dpo") else None)
    log_folder.check_earlier_run(cfg, "dpo", schedule.planned_steps(cfg, "dpo", samples, config.select(cfg, _BATCH)))


def train(cfg: DictConfig) -> None:
    """Train the model of `pretrained_checkpoint.restore_from_path` with a frozen copy of it as the reference."""
    from nemo_aligner.algorithms.dpo import DPOTrainer, dpo_custom_collate
    from nemo_aligner.data.nlp.builders import build_train_valid_test_dpo_datasets, identity_collate
    from nemo_aligner.models.nlp.gpt.megatron_gpt_dpo_model import MegatronGPTDPOModel
    from nemo_aligner.utils.train_script_utils import init_peft
    from nemo_aligner.utils.utils import load_from_nemo, retrieve_model_state_dict_in_cpu

    assembly.spawn_workers()
    source = cfg.pretrained_checkpoint.restore_from_path
    setup = assembly.set_up(cfg, source, "dpo")
    model = load_from_nemo(
        MegatronGPTDPOModel, cfg.model, setup.trainer, strict=True, load_base_model_only=False, restore_path=source
    )
    init_peft(model, cfg.model)
    if cfg.model.peft.peft_scheme == "none":
        # With adapters, the reference is the model without them.
        model.ref_policy_state_dict = retrieve_model_state_dict_in_cpu(
            model, megatron_amp_O2=cfg.model.megatron_amp_O2
        )
    assembly.init_process_groups(cfg, setup, model)

    train_ds, validation_ds, _ = build_train_valid_test_dpo_datasets(
        **assembly.dataset_arguments(cfg, model.tokenizer),
        # Negative: the whole dataset.
        train_valid_test_num_samples=[-cfg.model.global_batch_size] * 3,
    )
    data = cfg.model.data
    collate = partial(
        dpo_custom_collate,
        eos_id=model.tokenizer.eos_id,
        reset_position_ids=data.reset_position_ids,
        reset_attention_mask=data.reset_attention_mask,
        eod_mask_loss=data.eod_mask_loss,
    )
    # The trainer collates, after it has added the reference's log-probabilities.
    loader = partial(
        assembly.data_loader,
        cfg,
        cfg.model,
        pad_samples_to_global_batch_size=False,
        collate_fn=identity_collate,
    )
    assembly.fit_supervised(
        cfg,
        "dpo",
        setup,
        model,
        loader(train_ds, setup.consumed_samples, shuffle=True),
        loader(validation_ds, 0, shuffle=False),
        loop=DPOTrainer,
        collate_fn=collate,
        pad_length_to_multiple_of=data.pad_length_to_multiple_of,
    )


STAGE = Stage(config="cai_dpo", check=check, work=train, output="exp_manager.explicit_log_dir")

if __name__ == "__main__":
    start(STAGE)
