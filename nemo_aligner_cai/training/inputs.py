# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What can be wrong with a stage's inputs, found in a second instead of after minutes of loading."""

from __future__ import annotations

import socket
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

MODEL_CONFIG = "model_config.yaml"


def nemo_model(cfg: DictConfig, key: str) -> Path:
    """The .nemo file (a tar) or extracted folder at `key`.

    Raises:
        UsageError: it is not there, or neither of the two.
    """
    value = select(cfg, key)
    if value is None:
        raise UsageError(f"{key}: no model given; name a .nemo file")
    path = Path(value)
    if path.is_dir():
        if not (path / MODEL_CONFIG).is_file():
            raise UsageError(f"{key}: {path} is a folder without {MODEL_CONFIG}, so no extracted .nemo model")
    elif not path.is_file():
        raise UsageError(f"{key}: there is no file {path}")
    elif not tarfile.is_tarfile(path):
        raise UsageError(f"{key}: {path} is not a .nemo model (a tar archive)")
    return path


def model_config(path: Path) -> dict[str, Any]:
    """The configuration inside a .nemo model; empty for a compressed archive, which would have to be unpacked whole.

    Raises:
        UsageError: the archive has no configuration.
    """
    import yaml

    if path.is_dir():
        return yaml.safe_load((path / MODEL_CONFIG).read_text(encoding="utf-8"))
    try:
        archive = tarfile.open(path, mode="r:")
    except tarfile.ReadError:
        return {}
    with archive:
        for member in archive:
            if Path(member.name).name == MODEL_CONFIG:
                file = archive.extractfile(member)
                if file is not None:
                    return yaml.safe_load(file.read())
    raise UsageError(f"{path} is a tar archive without {MODEL_CONFIG}, so no .nemo model")


def model_window(cfg: DictConfig, key: str) -> int | None:
    """The longest sequence in tokens that the model at `key` will take; None where its file does not say.

    `model.encoder_seq_length` is filled in from the checkpoint where the user gave none, so that other keys may
    refer to it.
    """
    from omegaconf import open_dict

    configured = select(cfg, "model.encoder_seq_length")
    stored = model_config(nemo_model(cfg, key)).get("encoder_seq_length")
    if configured is None and stored is not None:
        with open_dict(cfg):
            cfg.model.encoder_seq_length = stored
    return configured or stored


def sequence_length(cfg: DictConfig, key: str, window: int | None) -> None:
    """Raise UsageError where the sequences asked for at `key` are longer than the model's window."""
    length = select(cfg, key)
    if window is not None and length is not None and length > window:
        raise UsageError(
            f"{key}={length} is longer than the model, which takes {window} tokens (model.encoder_seq_length); "
            f"give {key}={window} or less"
        )


def epochs(cfg: DictConfig, key: str) -> None:
    """Raise UsageError for less than one epoch: upstream's loop would train nothing and succeed."""
    value = select(cfg, key)
    if value is None or value < 1:
        raise UsageError(f"{key}={value}: at least 1 is needed; limit the run with max_steps instead")


def data_file(cfg: DictConfig, key: str, format_name: str, batch_key: str, *, rows_per_sample: int = 1) -> Path:
    """A data file that its trainer will accept and that fills at least one batch.

    Args:
        cfg: the stage's configuration.
        key: where the path is.
        format_name: its format in `nemo_aligner_cai.data.formats`.
        batch_key: where the global batch size is; incomplete batches are dropped by upstream's loaders.
        rows_per_sample: 2 for comparisons, whose chosen and rejected texts are on a line each.

    Raises:
        UsageError: missing or empty file, or less than a batch.
        FormatError: a row that the trainer would fail on, with path and line.
    """
    path = select(cfg, key)
    if not isinstance(path, str) or not Path(path).is_file():
        raise UsageError(f"{key}: there is no file {path}")
    return checked_file(Path(path), key, format_name, select(cfg, batch_key), batch_key, rows_per_sample)


def checked_file(
    path: Path, key: str, format_name: str, batch: int | None, batch_key: str, rows_per_sample: int = 1
) -> Path:
    """`data_file` for a path that is at hand already."""
    try:
        from nemo_aligner_cai.data.formats import validate_file
    except ModuleNotFoundError:
        rows = sum(1 for _ in path.open())
    else:
        rows = validate_file(path, format_name).rows_in
    if rows == 0:
        raise UsageError(f"{key}: {path} has no rows")
    samples = rows // rows_per_sample
    if batch is not None and samples < batch:
        raise UsageError(f"{key}: {path} has {samples} samples, less than one batch of {batch_key}={batch}")
    return path


def data_prefix(cfg: DictConfig, format_name: str, batch_key: str, *, rows_per_sample: int = 1) -> None:
    """Check `model.data.data_prefix`: {train: [...], validation: [...], test: [...]}, as the RM and PPO take it."""
    prefix = select(cfg, "model.data.data_prefix")
    splits = ("train", "validation", "test")
    if prefix is None or isinstance(prefix, str) or any(name not in prefix for name in splits):
        raise UsageError(
            "model.data.data_prefix: give the three splits, "
            '"++model.data.data_prefix={train: [a.jsonl], validation: [b.jsonl], test: [b.jsonl]}"'
        )
    for name in splits:
        key = f"model.data.data_prefix.{name}"
        paths = [prefix[name]] if isinstance(prefix[name], str) else [str(item) for item in prefix[name]]
        # A blend alternates weights and paths.
        for path in paths[1::2] if len(paths) > 1 else paths:
            if not Path(path).is_file():
                raise UsageError(f"{key}: there is no file {path}")
            batch = select(cfg, batch_key) if name != "test" else None
            checked_file(Path(path), key, format_name, batch, batch_key, rows_per_sample)


def free_port(host: str, port: int, key: str) -> None:
    """Raise UsageError where nothing can listen on the port."""
    if not 0 < port < 65536:
        raise UsageError(f"{key}={port}: a port is between 1 and 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # A port that a server left a minute ago may be taken again at once.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(f"{key}: port {port} on {host} is taken ({error.strerror}); choose another") from error
