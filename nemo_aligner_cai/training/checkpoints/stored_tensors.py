# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reads tensors from untrusted checkpoints: torch's checkpoints are pickles, and a pickle can run any code.

Input:  a folder with a distributed checkpoint of torch (.metadata, *.distcp), or a file of torch.save
Output: the tensors by name; no function that the file names is called
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch.distributed.checkpoint import metadata as stored
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo

from nemo_aligner_cai.errors import UsageError, one_line

_METADATA = ".metadata"
_KNOWN: dict[tuple[str, str], Any] = {
    **{
        (kind.__module__, kind.__name__): kind
        for kind in (
            stored.BytesStorageMetadata,
            stored.ChunkStorageMetadata,
            stored.Metadata,
            stored.MetadataIndex,
            stored.StorageMeta,
            stored.TensorProperties,
            stored.TensorStorageMetadata,
            stored._MEM_FORMAT_ENCODING,
            _StorageInfo,
        )
    },
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("collections", "OrderedDict"): dict,
}
_PLANS = ("torch.distributed.checkpoint.", "megatron.core.dist_checkpointing.")
"""Modules of save plans, which Megatron stores too, and which are not needed for reading."""
_PATHS = ("pathlib", "pathlib._local")


class _Ignored:
    """Replaces the classes that are stored but not needed."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _MetadataUnpickler(pickle.Unpickler):
    """Creates only the classes of torch's metadata."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        found = _KNOWN.get((module_name, global_name))
        if found is not None:
            return found
        if module_name == "torch" and isinstance(dtype := getattr(torch, global_name, None), torch.dtype):
            return dtype
        if (module_name.startswith(_PLANS) or module_name in _PATHS) and "." not in global_name:
            return _Ignored
        raise pickle.UnpicklingError(f"it refers to {module_name}.{global_name}, which no checkpoint needs")


class _Reader(FileSystemReader):
    def read_metadata(self, *_: Any, **__: Any) -> Any:
        with Path(self.path, _METADATA).open("rb") as file:
            found = _unpickled(lambda: _MetadataUnpickler(file).load(), Path(self.path, _METADATA))
        if not isinstance(found, stored.Metadata):
            raise UsageError(f"{self.path}/{_METADATA}: not the metadata of a distributed checkpoint")
        found.storage_meta = stored.StorageMeta(load_id=self.load_id)
        return found


def read_distributed(folder: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """The tensors of a distributed checkpoint. `wanted` is True for the names to read.

    Raises:
        UsageError: the folder is not a checkpoint, a file cannot be read or is truncated, or the metadata refers to a
            class that no checkpoint needs, or to a file outside the folder.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = _Reader(str(folder))
    try:
        metadata = reader.read_metadata()
        _check_files(metadata, folder)
        state = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, stored.TensorStorageMetadata) and wanted(name)
        }
        load(state, storage_reader=reader, no_dist=True)
    except (OSError, CheckpointException, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{folder} cannot be read; copy or save it again: {one_line(error)}") from error
    return state


def _check_files(metadata: Any, folder: Path) -> None:
    names = {info.relative_path for info in metadata.storage_data.values()}
    if outside := sorted(name for name in names if not isinstance(name, str) or Path(name).name != name):
        raise UsageError(f"{folder}/{_METADATA}: it refers to the file {outside[0]!r}, which is not in its folder")
    available = sum((folder / name).stat().st_size for name in names)
    for name, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, stored.TensorStorageMetadata):
            size = entry.size.numel() * entry.properties.dtype.itemsize
            if size > available:
                raise UsageError(f"{folder}/{_METADATA}: {name} has {size} bytes, and the files have {available}")


def load_tensors(file: Path | IO[bytes], where: str) -> dict[str, Any]:
    """The tensors, by name, in a file of torch.save. `file` is a path or the contents; `where` names it in errors.

    Raises:
        UsageError: the file has something else, or refers to anything that tensors do not need.
    """
    # Older formats are not zip archives: torch before 2.6 runs their code even with weights_only.
    if not zipfile.is_zipfile(file):
        raise UsageError(
            f"{where} cannot be read; copy or download it again, or save it with torch 1.6 or later: not a zip archive"
        )
    mapped = isinstance(file, Path)
    if not isinstance(file, Path):
        file.seek(0)  # is_zipfile has moved to its end
    state = _unpickled(lambda: torch.load(file, map_location="cpu", mmap=mapped, weights_only=True), where)
    if not isinstance(state, dict) or not all(isinstance(weight, torch.Tensor) for weight in state.values()):
        raise UsageError(f"{where}: does not contain weights by name")
    return state


def _unpickled(read: Callable[[], Any], where: Path | str) -> Any:
    try:
        return read()
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
    ) as error:
        # A damaged pickle raises any of these.
        raise UsageError(f"{where} is refused: {one_line(error)}") from error
    except (RuntimeError, OSError) as error:
        raise UsageError(f"{where} cannot be read; copy or download it again: {one_line(error)}") from error
