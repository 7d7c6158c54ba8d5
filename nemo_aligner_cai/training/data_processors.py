# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Data processors convert a stage's data files to the format of its trainer when the stage starts.

    cai train sft data_processor=cai_revisions model.data.train_ds.file_path=cai_revisions.jsonl ...

Input:  a configuration whose data files are in any format of `nemo_aligner_cai.data.formats` or of a plug-in
Output: the configuration with the paths replaced by <cache>/<hash>.jsonl, files in the trainer's format

The hash covers everything that determines such a file: the source's bytes and suffix, both formats and their packages,
the tokens of the chat template, and the system message. So a file is converted once, and again only when any of these
changes. <hash>.json has the source and the row counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai import __version__
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.training.checks import data_files
from nemo_aligner_cai.training.checks.chat_tokens import chat_template
from nemo_aligner_cai.training.checks.ranks import is_first_rank
from nemo_aligner_cai.training.config import log_dir, select

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nemo_aligner_cai.chat import NemoChatTemplate

_log = logging.getLogger(__name__)

AUTO = "auto"
"""The processor that detects the format of each file, and skips files in the trainer's format."""

_CACHE = "data_cache"
_SYSTEM_MESSAGE = "data_processor.system_message"
_HASH_DIGITS = 32
_WAIT_S = 1800.0
"""Seconds that the other ranks wait for the first, which needs a minute for a million rows."""
_POLL_S = 0.2


def process(cfg: DictConfig, keys: Sequence[str], *, to: str) -> None:
    """Convert a stage's data files, if its configuration has a data processor or a system message.

    Args:
        cfg: the stage's configuration; the paths of converted files are replaced in place.
        keys: the keys of the files; each value is a path, a list of one path, or a blend.
        to: the trainer's format.

    Raises:
        UsageError: the format is unknown; a file is missing or invalid, or none of its rows can be used; or the cache
            cannot be written or is not shared by the job's machines.
    """
    from omegaconf import OmegaConf

    name, system_message = select(cfg, "data_processor.format"), select(cfg, _SYSTEM_MESSAGE)
    if name is None and system_message is None:
        return
    cache = select(cfg, "data_processor.cache")
    processor = _Processor(
        _validate_format(AUTO if name is None else name),
        to,
        log_dir(cfg) / _CACHE if cache is None else Path(str(cache)),
        chat_template(cfg),
        _validate_system_message(system_message),
    )
    # Read all values before replacing one: a key may interpolate another.
    values = {key: select(cfg, key) for key in keys}
    for key, value in values.items():
        OmegaConf.update(cfg, key, processor.replace_paths(value, key))


def _validate_format(name: object) -> str:
    from nemo_aligner_cai.data.formats.all_formats import format_named

    if name != AUTO:
        try:
            format_named(str(name))
        except UsageError as error:
            raise UsageError(f"data_processor.format={name}: {error}; {AUTO} detects each file's format") from error
    return str(name)


def _validate_system_message(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value or value != value.strip():
        raise UsageError(f"{_SYSTEM_MESSAGE}={value!r}: give text without surrounding white space, or null")
    return value


@dataclass(frozen=True)
class _Processor:
    """Converts the data files of one stage.

    Attributes:
        format: the format of the files, or `AUTO`.
        to: the trainer's format.
        system_message: for conversations without one; may be empty.
    """

    format: str
    to: str
    cache: Path
    template: NemoChatTemplate
    system_message: str

    def replace_paths(self, value: object, key: str) -> object:
        """The value at a key, with the paths of files replaced by those of the converted files."""
        paths = iter([str(self.convert(path, key)) for path in data_files.split_paths(value, key)])
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [next(paths) if isinstance(item, str) else item for item in value]
        return next(paths)

    def convert(self, source: Path, key: str) -> Path:
        """The file for the trainer: `source` itself if it needs no conversion, else one in the cache."""
        from nemo_aligner_cai.data.formats.all_formats import detect_format

        data_files.existing_file(source, key)
        source_format = detect_format(source) if self.format == AUTO else self.format
        if source_format == self.to and not self.system_message:
            return source
        target = self.cache / f"{self._hash(source, source_format)}.jsonl"
        # Written after the rows, so that it marks them as complete.
        summary = target.with_suffix(".json")
        if not is_first_rank():
            _wait_for((target, summary), source)
        elif target.is_file() and summary.is_file():
            _log.info("%s: %s is already converted: %s", key, source, target)
        else:
            self._convert(source, source_format, target, summary, key)
        return target

    def _hash(self, source: Path, source_format: str) -> str:
        from nemo_aligner_cai.files import content_hash, sha256_file
        from nemo_aligner_cai.registry import components

        known = components("formats")
        formats = [(name, known[name].origin) for name in (source_format, self.to)]
        # The suffix decides how the file is read: "a.csv.gz".
        content = [sha256_file(source), source.suffixes[-2:]]
        parts = [content, formats, asdict(self.template.tokens), __version__]
        return content_hash(parts + ([self.system_message] if self.system_message else []), _HASH_DIGITS)

    def _convert(self, source: Path, source_format: str, target: Path, summary: Path, key: str) -> None:
        from nemo_aligner_cai.data.formats.files import convert_file
        from nemo_aligner_cai.files import write_json

        try:
            counts = convert_file(
                source,
                target,
                to=self.to,
                source_format=source_format,
                template=self.template,
                system_message=self.system_message,
                overwrite=True,
            )
        except CaiError as error:
            hint = "" if self.format == AUTO else f"; data_processor={AUTO} detects each file's format"
            raise UsageError(f"{key}: {error} (read as {source_format}{hint})") from error
        content = {"source": str(source), "format": source_format, "to": self.to, "rows": counts.to_dict()}
        write_json(summary, content, overwrite=True)
        _log.info("%s: %s converted from %s to %s: %s; %s", key, source, source_format, self.to, target, counts)


def _wait_for(files: Sequence[Path], source: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not all(path.is_file() for path in files):
        if time.monotonic() > deadline:
            raise UsageError(
                f"{files[0]} does not exist after {_WAIT_S:.0f} s: the job's first rank failed to convert {source}, "
                "or its machines do not share that folder; set data_processor.cache to a shared folder"
            )
        time.sleep(_POLL_S)
