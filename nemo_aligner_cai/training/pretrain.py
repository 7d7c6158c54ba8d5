# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Pretrain a small Megatron GPT on JSONL documents and save it as a .nemo file.

    python -m nemo_aligner_cai.training.pretrain corpus.file=... model.tokenizer.model=... output=...

Input row:  {"text": "<extra_id_0>System\n\n<extra_id_1>User\n..."}
Output:     one .nemo file, for NeMo-Aligner's SFT, reward model and PPO.
"""

from __future__ import annotations

import logging
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.files.output_paths import check_new
from nemo_aligner_cai.training.checkpoints.save import save_nemo
from nemo_aligner_cai.training.launch.stage_main import Stage, start

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Raise UsageError if a file is missing, the output exists or a size is invalid."""
    for key, value in (("corpus.file", cfg.corpus.file), ("model.tokenizer.model", cfg.model.tokenizer.model)):
        if not Path(value).is_file():
            raise UsageError(f"{key}: there is no file {value}")
    check_new(cfg.output)
    if not 0 < cfg.corpus.validation <= 0.5:
        raise UsageError(f"corpus.validation={cfg.corpus.validation}: must be in (0, 0.5]")
    if cfg.model.hidden_size % cfg.model.num_attention_heads:
        raise UsageError(
            f"model.hidden_size={cfg.model.hidden_size} is not a multiple of "
            f"model.num_attention_heads={cfg.model.num_attention_heads}"
        )


def pretrain(cfg: DictConfig) -> None:
    """Index the corpus, train for `trainer.max_steps` and write `output`."""
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import MegatronGPTModel
    from nemo.collections.nlp.parts.megatron_trainer_builder import MegatronTrainerBuilder
    from nemo.utils.exp_manager import exp_manager
    from omegaconf import OmegaConf, open_dict

    from nemo_aligner_cai.training.metrics.loggers import JsonlLogger, ProgressLogger

    output = Path(cfg.output).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    log_dir = Path(cfg.exp_manager.explicit_log_dir).resolve()
    log_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="index-", dir=log_dir) as index:
        with open_dict(cfg):
            cfg.model.data.data_prefix = index_corpus(cfg, Path(index))
            cfg.model.data.index_mapping_dir = index
            cfg.model.precision = cfg.trainer.precision
        OmegaConf.resolve(cfg)
        trainer = MegatronTrainerBuilder(cfg).create_trainer()
        exp_manager(trainer, cfg.exp_manager)
        progress = ProgressLogger(log_dir)
        trainer.loggers = [*trainer.loggers, JsonlLogger(log_dir), progress]
        model = MegatronGPTModel(cfg.model, trainer)
        progress.start(cfg.trainer.max_steps)
        try:
            trainer.fit(model)
        finally:
            progress.finalize()
        with open_dict(model.cfg):
            # Temporary paths of this run.
            model.cfg.data.data_prefix = None
            model.cfg.data.index_mapping_dir = None
        save_nemo(model, output)


def index_corpus(cfg: DictConfig, folder: Path) -> dict[str, list[str]]:
    """Tokenize the corpus into Megatron's indexed datasets. `folder` receives the files train.* and validation.*.

    Returns:
        Megatron's `data_prefix`, with one dataset per split.
    """
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer

    tokenizer: Any = SentencePieceTokenizer(model_path=str(cfg.model.tokenizer.model))
    documents = [tokenizer.text_to_ids(row["text"]) for row in _documents(Path(cfg.corpus.file))]
    if cfg.corpus.append_eos:
        documents = [[*ids, tokenizer.eos_id] for ids in documents]
    random.Random(cfg.model.seed).shuffle(documents)
    held_out = max(1, round(len(documents) * cfg.corpus.validation))
    splits = {"train": documents[held_out:], "validation": documents[:held_out]}
    for name, part in splits.items():
        tokens = sum(map(len, part))
        if tokens <= cfg.model.encoder_seq_length:
            raise UsageError(
                f"{cfg.corpus.file}: the {name} split has {tokens} tokens, less than one sequence of "
                f"model.encoder_seq_length={cfg.model.encoder_seq_length}; give more documents"
            )
        _log.info("%s: %d documents, %d tokens", name, len(part), tokens)
        _write_index(part, folder / name)
    prefix = {name: [str(folder / name)] for name in splits}
    # Upstream needs a test split too; it is never evaluated here.
    return {**prefix, "test": prefix["validation"]}


def _documents(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line, row in read_jsonl(path):
        if not isinstance(row.get("text"), str) or not row["text"]:
            raise UsageError(f"{path}:{line}: 'text' must be a non-empty string")
        rows.append(row)
    if len(rows) < 2:
        raise UsageError(f"{path}: {len(rows)} documents; at least 2 are needed, to train and to validate")
    return rows


def _write_index(documents: list[list[int]], prefix: Path) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder, get_bin_path, get_idx_path

    builder = IndexedDatasetBuilder(get_bin_path(str(prefix)))
    for ids in documents:
        builder.add_item(torch.tensor(ids, dtype=torch.int32))
        builder.end_document()
    builder.finalize(get_idx_path(str(prefix)))


STAGE = Stage(config="cai_pretrain", check=check, work=pretrain, output="output")

if __name__ == "__main__":
    start(STAGE)
