# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A folder for NeMo's index of each data file, named by the file's content.

    <explicit_log_dir>/data_index/<hash>/<path of the file>.idx.npy

NeMo writes an index next to a data file and uses it as long as it exists, even if the file has changed: a file of 48
rows would be read as the 16 rows that had its name before. In a folder for its content, an index always belongs to its
file, and one next to the file is never read. This works for upstream's scripts too, since the folder is a setting,
``index_mapping_dir``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.files import sha256_file
from nemo_aligner_cai.training.checks import data_files
from nemo_aligner_cai.training.checks.values import parse_path
from nemo_aligner_cai.training.config import log_dir, select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FOLDER = "data_index"
_HASH_DIGITS = 32


def separate(cfg: DictConfig, section: str) -> None:
    """Set the folder of NeMo's index for the data file of a section.

    Args:
        cfg: the stage's configuration; `<section>.index_mapping_dir` is set to a folder inside its value, if any.
        section: the prefix of the keys, such as "model.data.train_ds".

    Raises:
        UsageError: the data file does not exist.
    """
    from omegaconf import OmegaConf

    key = f"{section}.file_path"
    if select(cfg, f"{section}.hf_dataset"):
        return  # Read with the package datasets, whose cache is keyed by content.
    source = data_files.existing_file(parse_path(select(cfg, key), key), key)
    name = sha256_file(source)[:_HASH_DIGITS]
    given = select(cfg, f"{section}.index_mapping_dir")
    parent = Path(str(given)) if given is not None else log_dir(cfg) / _FOLDER
    # The ranks of a job receive the folder that the launching process has set.
    folder = parent if parent.name == name else parent / name
    OmegaConf.update(cfg, f"{section}.index_mapping_dir", str(folder), force_add=True)
