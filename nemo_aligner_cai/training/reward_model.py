# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reward model training: NeMo-Aligner's MegatronGPTRewardModel and SupervisedTrainer (tutorial, step 5).

    python -m nemo_aligner_cai.training.reward_model pretrained_checkpoint.restore_from_path=... ...

Input rows: {"text": chosen}, {"text": rejected}, alternating.
Output:     <explicit_log_dir>/checkpoints/<name>.nemo, the checkpoints, and <explicit_log_dir>/metrics.jsonl with
            `val/acc`, the fraction of validation pairs that are ranked correctly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.data.records import ATTRIBUTES
from nemo_aligner_cai.training import assembly, config, data_processors
from nemo_aligner_cai.training.checks import (
    constraints,
    data_files,
    model_file,
    model_kind,
    model_tokenizer,
    parallelism,
    schedule,
)
from nemo_aligner_cai.training.checks.all_stages import check_stage
from nemo_aligner_cai.training.launch import log_folder
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SOURCE, _BATCH = "pretrained_checkpoint.restore_from_path", "model.global_batch_size"


def check(cfg: DictConfig) -> None:
    """Raise UsageError for settings and files on which the stage would fail, or train nothing, after loading."""
    with_head = config.select(cfg, "model.regression.load_rm_head_weights")
    kinds = (model_kind.REWARD_MODEL,) if with_head else (model_kind.LANGUAGE_MODEL, model_kind.REWARD_MODEL)
    context_length = check_stage(cfg, _SOURCE, constraints.REWARD_MODEL, "rm", head=True, kinds=kinds)
    length = model_file.sequence_length(cfg, "model.data.seq_length", context_length)
    parallelism.check_batch(cfg, "model.micro_batch_size", _BATCH)
    ranking = cfg.model.reward_model_type == "binary_ranking"
    data_format = "rm-comparisons" if ranking else "rm-regression"
    data_processors.process(cfg, data_files.split_keys(cfg), to=data_format)
    if not ranking and config.select(cfg, "model.regression.num_attributes") != len(ATTRIBUTES):
        reason = f"only rows of {len(ATTRIBUTES)} attributes are supported"
        model_tokenizer.warn_uncounted("model.data.data_prefix", reason)
        return
    spec = data_files.DatasetSpec(
        data_format,
        _SOURCE,
        length,
        _BATCH,
        rows_per_sample=2 if ranking else 1,
        # Upstream replaces a pair by a later one, and fails at the end of the data. It masks single texts.
        too_long_is_error=ranking,
    )
    samples = data_files.check_splits(cfg, spec, _BATCH if schedule.validates(cfg, "rm") else None)
    log_folder.check_earlier_run(cfg, "rm", schedule.planned_steps(cfg, "rm", samples, config.select(cfg, _BATCH)))


def train(cfg: DictConfig) -> None:
    """Train a reward model from the language model of `pretrained_checkpoint.restore_from_path`."""
    from nemo_aligner.models.nlp.gpt.reward_model_classes import REWARD_MODEL_CLASS_DICT, RewardModelType
    from nemo_aligner.utils.utils import load_from_nemo

    assembly.spawn_workers()
    source = cfg.pretrained_checkpoint.restore_from_path
    kind = RewardModelType(cfg.model.reward_model_type)
    setup = assembly.set_up(cfg, source, "rm")
    model = load_from_nemo(
        REWARD_MODEL_CLASS_DICT[kind],
        cfg.model,
        setup.trainer,
        strict=True,
        load_base_model_only=not cfg.model.regression.load_rm_head_weights,
        restore_path=source,
    )
    assembly.init_process_groups(cfg, setup, model)

    train_ds, validation_ds = _datasets(cfg, kind, model.tokenizer)
    shuffle = cfg.trainer.rm.train_random_sampler, cfg.trainer.rm.val_random_sampler
    train_loader = assembly.data_loader(cfg, cfg.model, train_ds, setup.consumed_samples, shuffle=shuffle[0])
    validation_loader = assembly.data_loader(cfg, cfg.model, validation_ds, 0, shuffle=shuffle[1])
    assembly.fit_supervised(cfg, "rm", setup, model, train_loader, validation_loader)


def _datasets(cfg: DictConfig, kind: Any, tokenizer: Any) -> tuple[Any, Any]:
    from nemo_aligner.data.nlp.builders import (
        build_train_valid_test_regression_rm_datasets,
        build_train_valid_test_rm_datasets,
    )
    from nemo_aligner.models.nlp.gpt.reward_model_classes import RewardModelType

    regression = kind == RewardModelType.REGRESSION
    build = build_train_valid_test_regression_rm_datasets if regression else build_train_valid_test_rm_datasets
    train, validation, _ = build(
        **assembly.dataset_arguments(cfg, tokenizer),
        # Negative: the whole dataset.
        train_valid_test_num_samples=[-cfg.model.global_batch_size] * 3,
    )
    return train, validation


STAGE = Stage(config="cai_reward_model", check=check, work=train, output="exp_manager.explicit_log_dir")

if __name__ == "__main__":
    start(STAGE)
