# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Data processors: a stage's data files in other formats, converted for its trainer when it starts.

    cai train sft data_processor=cai_revisions model.data.train_ds.file_path=cai_revisions.jsonl ...

Input:  a configuration whose data files are in any format of `nemo_aligner_cai.data.formats`, or another package's
Output: the same configuration with the files <cache>/<hash>.jsonl in their place, each in the trainer's format

The hash is of all that determines such a file: the source's bytes and its name's ending, both formats and whose they
are, the chat template's tokens, and the system message. So a file is converted once, however often and by how many
stages it is used, and again when any of that changes. Beside it, <hash>.json tells what it was made of and where its
rows went.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai import __version__
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.training.checks import data_files, model_file
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nemo_aligner_cai.chat import NemoChatTemplate

_log = logging.getLogger(__name__)

AUTO = "auto"
"""The processor that looks at each file, and leaves those alone that the trainer reads as they are."""

_CACHE = "data_cache"
_SYSTEM_MESSAGE = "data_processor.system_message"
_HASH_DIGITS = 32
_WAIT_S = 1800.0
"""How long the other processes of a job wait for the first one, which takes a minute for a million rows."""
_POLL_S = 0.2


def process(
    cfg: DictConfig, keys: Callable[[DictConfig], Sequence[str]], *, to: str, taught_by: str | None = None
) -> None:
    """Convert a stage's data files, where its configuration names a data processor or a system message.

    Args:
        cfg: the stage's; the converted files' paths take the place of the given ones.
        keys: gives the keys at which there is a file, a list of one, or a blend of weights and files.
        to: the format that the trainer reads.
        taught_by: the key of the model that has learnt a chat template already, in which text must be rendered.

    Raises:
        UsageError: an unknown format, a file that is missing or wrong or of which no row can be used, tokens that the
            model was not taught, or a cache that cannot be written or is not shared by the job's machines.
    """
    from omegaconf import OmegaConf

    name, system_message = select(cfg, "data_processor.format"), select(cfg, _SYSTEM_MESSAGE)
    if name is None and system_message is None:
        return
    processor = _Processor(
        cfg,
        _known(AUTO if name is None else name),
        to,
        taught_by,
        _cache_folder(cfg),
        data_files.chat_template(cfg),
        _system_message(system_message),
    )
    # All are read before one is replaced: a key may refer to another.
    given = {key: _resolved(select(cfg, key)) for key in keys(cfg)}
    for key, value in given.items():
        OmegaConf.update(cfg, key, processor.replaced(value, key))


def _known(name: object) -> str:
    from nemo_aligner_cai.data.formats.files import format_named

    if name != AUTO:
        try:
            format_named(str(name))
        except UsageError as error:
            raise UsageError(f"data_processor.format={name}: {error}; {AUTO} looks at each file") from error
    return str(name)


def _system_message(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value or value != value.strip():
        raise UsageError(f"{_SYSTEM_MESSAGE}={value!r}: give a text without white space at its ends, or null")
    return value


def _cache_folder(cfg: DictConfig) -> Path:
    folder, log_dir = select(cfg, "data_processor.cache"), select(cfg, "exp_manager.explicit_log_dir")
    if folder is None and log_dir is None:
        raise UsageError("data_processor.cache: name a folder; there is no exp_manager.explicit_log_dir to put it in")
    return Path(str(folder)) if folder is not None else Path(str(log_dir)) / _CACHE


def _resolved(value: object) -> object:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@dataclass(frozen=True)
class _Processor:
    """What converts the files of one stage.

    Attributes:
        cfg: the stage's configuration.
        format: of the files, or `AUTO`.
        to: the format that the trainer reads.
        taught_by: see `process`.
        cache: the folder of the converted files.
        template: of the text that is rendered.
        system_message: of the conversations that have none.
    """

    cfg: DictConfig
    format: str
    to: str
    taught_by: str | None
    cache: Path
    template: NemoChatTemplate
    system_message: str

    def replaced(self, value: object, key: str) -> object:
        """The value at a key, with converted files in place of the files."""
        paths = iter([str(self.converted(path, key)) for path in data_files.split_paths(value, key)])
        if isinstance(value, list):
            return [next(paths) if isinstance(item, str) else item for item in value]
        return next(paths)

    def converted(self, source: Path, key: str) -> Path:
        """The file that the trainer reads: `source` itself where it can, else one in the cache."""
        from nemo_aligner_cai.data.formats.files import detect_format

        data_files.existing_file(source, key)
        source_format = detect_format(source) if self.format == AUTO else self.format
        if source_format == self.to and not self.system_message:
            return source
        self._require_taught_tokens()
        target = self.cache / f"{self._hash(source, source_format)}.jsonl"
        # Written after the rows: without it, they are not complete.
        summary = target.with_suffix(".json")
        if not model_file.first_rank():
            _wait_for((target, summary), source)
        elif target.is_file() and summary.is_file():
            _log.info("%s: %s has been converted before: %s", key, source, target)
        else:
            self._convert(source, source_format, target, summary, key)
        return target

    def _require_taught_tokens(self) -> None:
        """Raise UsageError where the model was taught other tokens than the tutorial's, and none are configured."""
        tokens_key = "model.data.chat_prompt_tokens"
        if self.taught_by is None or select(self.cfg, tokens_key) is not None:
            return
        data = model_file.model_config(model_file.nemo_model(self.cfg, self.taught_by)).get("data")
        taught = data.get("chat_prompt_tokens") if isinstance(data, dict) else None
        for name, token in asdict(self.template.tokens).items():
            learnt = taught.get(name) if isinstance(taught, dict) else None
            if learnt not in (None, token):
                raise UsageError(
                    f"{self.taught_by}: this model has learnt {name}={learnt!r}, and the data would be written with "
                    f"{token!r}; say which to write, \"++{tokens_key}.{name}='...'\""
                )

    def _hash(self, source: Path, source_format: str) -> str:
        from nemo_aligner_cai.files import content_hash, sha256_file
        from nemo_aligner_cai.registry import components

        known = components("formats")
        formats = [(name, known[name].origin) for name in (source_format, self.to)]
        # The ending says how to read a file: "a.csv.gz".
        read = [sha256_file(source), source.suffixes[-2:]]
        determined = [read, formats, asdict(self.template.tokens), __version__]
        return content_hash(determined + ([self.system_message] if self.system_message else []), _HASH_DIGITS)

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
            mend = "" if self.format == AUTO else f"; data_processor={AUTO} looks at each file"
            raise UsageError(f"{key}: {error} (read as {source_format}{mend})") from error
        told = {"source": str(source), "format": source_format, "to": self.to, "rows": counts.to_dict()}
        write_json(summary, told, overwrite=True)
        _log.info("%s: %s converted from %s to %s: %s; %s", key, source, source_format, self.to, target, counts)


def _wait_for(files: Sequence[Path], source: Path) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not all(path.is_file() for path in files):
        if time.monotonic() > deadline:
            raise UsageError(
                f"{files[0]} is not there after {_WAIT_S:.0f} s: either the job's first process has failed to convert "
                f"{source}, or its machines do not share that folder; name one that they do as data_processor.cache"
            )
        time.sleep(_POLL_S)
