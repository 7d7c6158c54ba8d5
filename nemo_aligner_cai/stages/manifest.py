# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a run that writes data: its settings, its inputs, and the files that belong to it.

    {"flags": {...}, "summary": {...}, "models": {...}, "inputs": {"prompts.jsonl": SHA-256, ...},
     "outputs": {"cai_rlaif_train_prompts_with_chat_prompt.jsonl": SHA-256, ...}, "versions": {...}, "finished": TIME}

Values that JSON cannot hold are rejected, and inputs are hashed, before the first request. The manifest of an earlier
run identifies its files: those that the new run does not write are removed, since prompts of an old validation file
may be in the new training file.
"""

import logging
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nemo_aligner_cai import __version__
from nemo_aligner_cai.chat import TEMPLATE_FLAGS
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import read_json, sha256_file, to_json, write_json
from nemo_aligner_cai.files.nemo_indexes import remove_file
from nemo_aligner_cai.files.sources import DataFile

_log = logging.getLogger(__name__)
_UNDERSCORED = (*TEMPLATE_FLAGS, "end_strings")
"""Upstream's flags that are spelled with underscores."""


@dataclass(frozen=True)
class ManifestLocation:
    """The location of an output's manifest.

    Attributes:
        path: the manifest.
        anchor: suffix of the name of an output that is always in the manifest's folder; the other outputs are found
            relative to it after the folder has moved.
        owner: the flag that names the output, with underscores.
        folders: the folders that the command writes to; nothing outside of them is removed.
        old: the manifest's path in earlier versions of this package.
        value: the value of `owner`, for a run without flags.
    """

    path: Path
    anchor: str
    owner: str
    folders: tuple[Path, ...]
    old: Path | None = None
    value: str = ""


@dataclass(frozen=True)
class Manifest:
    """The manifest of a run in progress, made by `begin`.

    Attributes:
        location: where it is written.
        flags: the settings.
        inputs: the hash of each input file, computed before the run reads it.
        earlier: the files of earlier runs and their hashes; None for a file of an unfinished run.
    """

    location: ManifestLocation
    flags: Mapping[str, Any]
    inputs: Mapping[str, str]
    earlier: Mapping[Path, str | None]

    @classmethod
    def begin(cls, location: ManifestLocation, settings: Mapping[str, Any], inputs: Sequence[DataFile]) -> "Manifest":
        """Hash the inputs, and read the manifests of earlier runs.

        Raises:
            UsageError: JSON cannot hold a setting or a file name, or the manifest belongs to another output.
        """
        flags = recordable(settings)
        for one in inputs:
            if not _is_recordable(str(one)):
                raise UsageError(f"{str(one)!r}: the name is not UTF-8; rename the file")
        hashed = {str(one): sha256_file(one) if isinstance(one, Path) else one.split for one in inputs}
        earlier = dict[Path, str | None]()
        for path in filter(None, (location.old, location.path)):
            content = _content(path)
            owner = Path(str(content.get("flags", {}).get(location.owner))).name
            if content and owner == Path(str(flags[location.owner])).name:
                earlier |= _outputs_of(content, path, location.anchor)
            elif content and path == location.path:
                flag = f"--{location.owner.replace('_', '-')}"
                raise UsageError(f"{path}: belongs to a run with {flag} {owner}; choose another folder")
        return cls(location, flags, hashed, earlier)

    def announce(self, outputs: Iterable[Path]) -> None:
        """Record which files are about to be written, since an interrupted run leaves some of them behind."""
        planned = {str(path): digest for path, digest in self.earlier.items()}
        planned |= {str(path.absolute()): None for path in outputs}
        write_json(self.location.path, {"flags": self.flags, "outputs": planned, "finished": None}, overwrite=True)

    def remove_stale(self, written: Sequence[Path], planned: Iterable[Path]) -> list[str]:
        """Remove the files of earlier runs that this run does not write.

        Args:
            written: the files that this run writes.
            planned: the files that it would write with enough rows.

        Returns:
            Lines for the terminal.
        """
        lines: list[str] = []
        own = {os.path.realpath(path) for path in written}
        folders = {os.path.realpath(folder) for folder in self.location.folders}
        for path, digest in {**self.earlier, **dict.fromkeys(planned)}.items():
            real = os.path.realpath(path)
            if real in own or os.path.dirname(real) not in folders or not path.is_file():
                continue
            if digest is None or sha256_file(path) == digest:
                remove_file(path)
                lines.append(f"removed: {path}, of an earlier run with other settings")
            else:
                lines.append(f"kept: {path}, of an earlier run with other settings, because it has been changed")
        return lines

    def write(self, outputs: Mapping[str, str], **facts: Any) -> None:
        """Write the manifest of a finished run; `outputs` as returned by `hashes`."""
        for name, digest in self.inputs.items():
            if Path(name).is_file() and sha256_file(name) != digest:
                _log.warning("%s was changed during the run; the manifest records its hash before the run", name)
        manifest = {
            "flags": self.flags,
            **facts,
            "inputs": self.inputs,
            "outputs": dict(outputs),
            "versions": {"nemo_aligner_cai": __version__, "python": platform.python_version()},
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_json(self.location.path, manifest, overwrite=True)


def is_unfinished(path: Path) -> bool:
    """True for the manifest of a run that was interrupted after `announce`; raises UsageError if it is damaged."""
    if not path.is_file():
        return False
    content: Any = read_json(path)
    return isinstance(content, dict) and "finished" in content and content["finished"] is None


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file that exists, by path."""
    return {str(path): sha256_file(path) for path in paths if path.exists()}


def recordable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings sorted by name; raises UsageError for a value that JSON cannot hold."""
    for name, value in settings.items():
        if not _is_recordable(value):
            flag = name if name in _UNDERSCORED else name.replace("_", "-")
            raise UsageError(f"--{flag} {value!r}: not UTF-8, or a number that is too large")
    return dict(sorted(settings.items()))


def _is_recordable(value: object) -> bool:
    try:
        to_json(value)
    except CaiError:
        return False
    return True


def _content(path: Path) -> Mapping[str, Any]:
    """Return an earlier manifest, or {} if there is no valid one."""
    if not path.is_file():
        return {}
    try:
        content: Any = read_json(path)
        if isinstance(content["flags"], dict) and isinstance(content["outputs"], dict):
            return content
    except (CaiError, KeyError, TypeError):
        pass  # the warning below covers it
    _log.warning("%s: not a valid manifest, so files of earlier runs cannot be identified", path)
    return {}


def _outputs_of(content: Mapping[str, Any], path: Path, anchor: str) -> dict[Path, str | None]:
    """Return the outputs of a manifest with their hashes; paths are relocated to the manifest's current folder."""
    listed: Mapping[str, Any] = content["outputs"]
    base = next((os.path.dirname(name) for name in listed if name.endswith(anchor)), None)
    if base is None:
        return {}
    return {
        Path(os.path.normpath(path.absolute().parent / os.path.relpath(name, base or "."))): digest
        for name, digest in listed.items()
        if digest is None or isinstance(digest, str)
    }
