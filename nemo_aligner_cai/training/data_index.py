# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A folder for NeMo's index of each data file, named by the file's content.

    <explicit_log_dir>/data_index/<hash>/<path of the file>.idx.npy

NeMo writes an index beside a data file and uses it as long as it is there, whatever the file has become since: a file
of 48 rows would be read as the 16 rows that had its name before. In a folder of its content's own, an index belongs
to its file by construction, and one beside the file is never read. It works for upstream's scripts too, since the
folder is a setting, ``index_mapping_dir``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.files import sha256_file
from nemo_aligner_cai.training.checks import data_files, model_file
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FOLDER = "data_index"
_HASH_DIGITS = 32


def separate(cfg: DictConfig, section: str) -> None:
    """Set where NeMo keeps the index of a section's data file.

    Args:
        cfg: the stage's; `<section>.index_mapping_dir` is set, to a folder in the one that it names, if any.
        section: the keys' beginning, such as "model.data.train_ds".

    Raises:
        UsageError: there is no such data file.
    """
    from omegaconf import OmegaConf

    key = f"{section}.file_path"
    if select(cfg, f"{section}.hf_dataset"):
        return  # read by the package datasets, whose cache goes by content
    source = data_files.existing_file(model_file.path_of(select(cfg, key), key), key)
    name = sha256_file(source)[:_HASH_DIGITS]
    given, log_dir = select(cfg, f"{section}.index_mapping_dir"), select(cfg, "exp_manager.explicit_log_dir")
    # Without a log folder NeMo's experiment manager makes one here.
    parent = Path(str(given)) if given is not None else Path(str(log_dir or "nemo_experiments")) / _FOLDER
    # The processes of a job are given what the process that started them has set.
    folder = parent if parent.name == name else parent / name
    OmegaConf.update(cfg, f"{section}.index_mapping_dir", str(folder), force_add=True)
