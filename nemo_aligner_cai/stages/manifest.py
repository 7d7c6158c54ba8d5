# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a run that writes data: what it was made of, and which files belong to it.

    {"flags": {...}, "summary": {...}, "models": {...}, "inputs": {"prompts.jsonl": SHA-256, ...},
     "outputs": {"cai_rlaif_train_prompts_with_chat_prompt.jsonl": SHA-256, ...}, "versions": {...}, "finished": TIME}

What cannot be recorded is refused before the first call, and inputs are hashed then. Files of an earlier run are told
by its manifest: those that this run does not write itself are removed, since the prompts of an old validation file may
be in the new training file.
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
from nemo_aligner_cai.files.derived_files import remove_file
from nemo_aligner_cai.files.sources import DataFile

_log = logging.getLogger(__name__)
_UNDERSCORED = (*TEMPLATE_FLAGS, "end_strings")
"""Upstream's flags with texts that are written with underscores."""


@dataclass(frozen=True)
class Place:
    """Where the manifest of an output is.

    Attributes:
        path: of the manifest.
        anchor: how the name of an output ends that is always in the manifest's folder; from it, the others are found
            wherever the folder is now.
        owner: the flag that names the output, with underscores.
        folders: where the command writes; nothing is removed elsewhere, whatever a manifest says.
        old: where earlier versions of this package had the manifest.
        value: the owner's value, for a run that has no flags.
    """

    path: Path
    anchor: str
    owner: str
    folders: tuple[Path, ...]
    old: Path | None = None
    value: str = ""


@dataclass(frozen=True)
class Manifest:
    """A manifest that is being made; see `begin`.

    Attributes:
        place: where it is.
        flags: of the command.
        inputs: the hash of each file that is read, taken before it is read.
        earlier: the files of earlier runs and their hashes; None for a file whose run has not finished.
    """

    place: Place
    flags: Mapping[str, Any]
    inputs: Mapping[str, str]
    earlier: Mapping[Path, str | None]

    @classmethod
    def begin(cls, place: Place, settings: Mapping[str, Any], inputs: Sequence[DataFile]) -> "Manifest":
        """Hash the inputs, and read what an earlier run has recorded.

        Raises:
            UsageError: a flag or a file's name that a manifest cannot hold, or the manifest of another output.
        """
        flags = recordable(settings)
        for one in inputs:
            if not _is_recordable(str(one)):
                raise UsageError(f"{str(one)!r}: the name is not UTF-8; rename the file")
        hashes = {str(one): sha256_file(one) if isinstance(one, Path) else one.split for one in inputs}
        earlier = dict[Path, str | None]()
        for path in filter(None, (place.old, place.path)):
            content = _content(path)
            owner = Path(str(content.get("flags", {}).get(place.owner))).name
            if content and owner == Path(str(flags[place.owner])).name:
                earlier |= _outputs_of(content, path, place.anchor)
            elif content and path == place.path:
                flag = f"--{place.owner.replace('_', '-')}"
                raise UsageError(f"{path}: belongs to a run with {flag} {owner}; choose another folder")
        return cls(place, flags, hashes, earlier)

    def announce(self, outputs: Iterable[Path]) -> None:
        """Record which files are about to be written: a run that ends in the middle leaves some of them."""
        planned = {str(path): digest for path, digest in self.earlier.items()}
        planned |= {str(path.absolute()): None for path in outputs}
        write_json(self.place.path, {"flags": self.flags, "outputs": planned, "finished": None}, overwrite=True)

    def remove_stale(self, written: Sequence[Path], planned: Iterable[Path]) -> list[str]:
        """Remove the files of earlier runs that this run does not write.

        Args:
            written: what it writes.
            planned: what it would write if there were rows enough.

        Returns:
            Lines for people.
        """
        lines: list[str] = []
        own = {os.path.realpath(path) for path in written}
        folders = {os.path.realpath(folder) for folder in self.place.folders}
        for path, digest in {**self.earlier, **dict.fromkeys(planned)}.items():
            real = os.path.realpath(path)
            if real in own or os.path.dirname(real) not in folders or not path.is_file():
                continue
            if digest is None or sha256_file(path) == digest:
                remove_file(path)
                lines.append(f"removed: {path}, of an earlier run with other settings")
            else:
                lines.append(f"kept: {path}, of an earlier run with other settings, since it has been changed")
        return lines

    def write(self, outputs: Mapping[str, str], **facts: Any) -> None:
        """Write the manifest of a finished run, with its `outputs` as `hashes` gives them."""
        for name, digest in self.inputs.items():
            if Path(name).is_file() and sha256_file(name) != digest:
                _log.warning("%s has changed since this run began to read it; its old hash is recorded", name)
        manifest = {
            "flags": self.flags,
            **facts,
            "inputs": self.inputs,
            "outputs": dict(outputs),
            "versions": {"nemo_aligner_cai": __version__, "python": platform.python_version()},
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        write_json(self.place.path, manifest, overwrite=True)


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of those files that exist, by path."""
    return {str(path): sha256_file(path) for path in paths if path.exists()}


def recordable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a manifest holds them, by name; raises UsageError for one that it cannot hold."""
    for name, value in settings.items():
        if not _is_recordable(value):
            flag = name if name in _UNDERSCORED else name.replace("_", "-")
            raise UsageError(f"--{flag} {value!r}: not UTF-8, or too large a number; give another")
    return dict(sorted(settings.items()))


def _is_recordable(value: object) -> bool:
    try:
        to_json(value)
    except CaiError:
        return False
    return True


def _content(path: Path) -> Mapping[str, Any]:
    """An earlier manifest; empty where there is none that can be read."""
    if not path.is_file():
        return {}
    try:
        content: Any = read_json(path)
        if isinstance(content["flags"], dict) and isinstance(content["outputs"], dict):
            return content
    except (CaiError, KeyError, TypeError):
        pass  # said below
    _log.warning("%s: cannot be read, so files that an earlier run has left are not known", path)
    return {}


def _outputs_of(content: Mapping[str, Any], path: Path, anchor: str) -> dict[Path, str | None]:
    """The outputs that a manifest lists, where they are now, and their hashes."""
    listed: Mapping[str, Any] = content["outputs"]
    base = next((os.path.dirname(name) for name in listed if name.endswith(anchor)), None)
    if base is None:
        return {}
    return {
        Path(os.path.normpath(path.absolute().parent / os.path.relpath(name, base or "."))): digest
        for name, digest in listed.items()
        if digest is None or isinstance(digest, str)
    }
