# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: NeMo-Aligner's GPTSFTModel and SupervisedTrainer (tutorial, step 3).

    python -m nemo_aligner_cai.training.sft model.restore_from_path=... model.data.train_ds.file_path=... ...

Input row:  {"system": "", "conversations": [{"from": "User", "value": ..., "label": null}, ...], "mask": "User"}
Output:     <explicit_log_dir>/checkpoints/<name>.nemo, the checkpoints, and <explicit_log_dir>/metrics.jsonl
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training import assembly, config, data_index, data_processors
from nemo_aligner_cai.training.checks import (
    constraints,
    data_files,
    model_file,
    model_tokenizer,
    parallelism,
    schedule,
)
from nemo_aligner_cai.training.checks.all_stages import check_stage
from nemo_aligner_cai.training.checks.values import parse_path
from nemo_aligner_cai.training.launch import log_folder
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SOURCE = "model.restore_from_path"
_SECTIONS = ("model.data.train_ds", "model.data.validation_ds")


def check(cfg: DictConfig) -> None:
    """Raise UsageError for settings and files on which the stage would fail, or train nothing, after loading."""
    context_length = check_stage(cfg, _SOURCE, constraints.SFT, "sft")
    lengths = [model_file.sequence_length(cfg, f"{name}.max_seq_length", context_length) for name in _SECTIONS]
    for name in _SECTIONS:
        parallelism.check_batch(cfg, f"{name}.micro_batch_size", f"{name}.global_batch_size")
    data_format = "sft-chat" if cfg.model.data.chat else "input-output"
    data_processors.process(cfg, [f"{name}.file_path" for name in _SECTIONS], to=data_format)
    samples: list[int | None] = []
    for name, length, needs_batch in zip(_SECTIONS, lengths, (True, schedule.validates(cfg, "sft")), strict=True):
        data_index.separate(cfg, name)
        key = f"{name}.file_path"
        if cfg.model.data.chat:
            batch_key = f"{name}.global_batch_size" if needs_batch else None
            spec = data_files.DatasetSpec(data_format, _SOURCE, length, batch_key)
            samples.append(data_files.check_file(cfg, parse_path(config.select(cfg, key), key), key, spec))
        else:
            model_tokenizer.warn_uncounted(key, "only chats are supported, and model.data.chat is false")
    max_steps = cfg.trainer.sft.get("max_steps", -1)
    # With data.sample the dataset has as many samples as the run needs; see `_dataset`.
    sampled = bool(cfg.model.data.get("sample", False)) and max_steps >= 0
    planned = max_steps if sampled else None
    if samples and not sampled:
        planned = schedule.planned_steps(cfg, "sft", samples[0], cfg.model.data.train_ds.global_batch_size)
    log_folder.check_earlier_run(cfg, "sft", planned)


def train(cfg: DictConfig) -> None:
    """Fine-tune the model of `model.restore_from_path`."""
    from nemo_aligner.models.nlp.gpt.gpt_sft_model import GPTSFTModel
    from nemo_aligner.utils.train_script_utils import init_peft
    from nemo_aligner.utils.utils import load_from_nemo
    from omegaconf import open_dict

    assembly.spawn_workers()
    source = cfg.model.restore_from_path
    setup = assembly.set_up(cfg, source, "sft")
    with open_dict(cfg):
        # Lightning keeps hyperparameters without their interpolations.
        cfg.model.precision = cfg.trainer.precision
    model = load_from_nemo(GPTSFTModel, cfg, setup.trainer, strict=True, restore_path=source)
    init_peft(model, cfg.model)
    with open_dict(cfg):
        cfg.model.encoder_seq_length = model.cfg.encoder_seq_length
    assembly.init_process_groups(cfg, setup, model)

    train_ds = _dataset(cfg, "train_ds", model, cfg.trainer.sft.max_steps)
    validation_ds = _dataset(cfg, "validation_ds", model, cfg.trainer.sft.limit_val_batches)
    train_loader = _loader(cfg, "train_ds", train_ds, setup.consumed_samples, shuffle=True)
    validation_loader = _loader(cfg, "validation_ds", validation_ds, 0, shuffle=False)
    assembly.fit_supervised(cfg, "sft", setup, model, train_loader, validation_loader)


def _dataset(cfg: DictConfig, split: str, model: Any, batches: int | float) -> Any:
    from nemo_aligner.data.nlp.builders import build_sft_dataset

    section = cfg.model.data[split]
    # With data.sample, the dataset is sampled to the length of the run instead of read once.
    sampled = cfg.model.data.get("sample", False) and batches >= 0
    return build_sft_dataset(
        section,
        model.tokenizer,
        int(batches * section.global_batch_size) if sampled else None,
        answer_only_loss=cfg.model.answer_only_loss,
        is_chat=cfg.model.data.chat,
        special_tokens=cfg.model.data.chat_prompt_tokens,
        model_cfg=cfg.model,
    )


def _loader(cfg: DictConfig, split: str, dataset: Any, consumed: int, *, shuffle: bool) -> Any:
    section = cfg.model.data[split]
    return assembly.data_loader(
        cfg,
        section,
        dataset,
        consumed,
        shuffle=shuffle,
        collate_fn=dataset.collate_fn,
        drop_last=section.drop_last,
        pad_samples_to_global_batch_size=not section.drop_last,
    )


STAGE = Stage(config="cai_sft", check=check, work=train, output="exp_manager.explicit_log_dir")

if __name__ == "__main__":
    start(STAGE)
