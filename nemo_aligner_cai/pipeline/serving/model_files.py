# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run's models in the form that each use needs, and the steps that convert them.

Trainers and NeMo's server read .nemo files, vLLM reads Hugging Face folders. A conversion is a step like the others:
done once and recorded. The identity of its result follows from its source, not from the bytes, which contain the time
of packing.

Input:  models: {base: {hf: mistralai/Mistral-7B-v0.1}}
Output: 0_base_download/hf, 0_base_nemo/model.nemo; with vLLM as the policy's server also 3_sft_hf/hf
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_aligner_cai.data.tokenizer import tokenizer_path
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.layout import HF, MODEL, Layout
from nemo_aligner_cai.pipeline.sections.models import EndpointModel, HuggingFaceModel, Models, NemoModel, Role
from nemo_aligner_cai.pipeline.step_cache import Step
from nemo_aligner_cai.training.launch import jobs, srun

ROLES: tuple[Role, ...] = ("helpful_only", "base", "judge")
_CLI = "nemo_aligner_cai.cli"


@dataclass(frozen=True)
class Conversion:
    """A conversion or download.

    Attributes:
        step: its step's name.
        title: shown to the user.
        sources: what it reads; () for a download.
        makes: the file or folder that it makes, in its step's folder.
        settings: what else determines it.
        command: the command line, without its program `cai` or `huggingface-cli`, that writes to a given path.
        program: `cai` or `huggingface-cli`.
    """

    step: str
    title: str
    sources: tuple[Path, ...]
    makes: str
    settings: Mapping[str, Any]
    command: Callable[[Path], list[str]]
    program: str = "cai"


@dataclass
class ModelFiles:
    """Finds the files of each role; the conversions that this needs are collected in `conversions`."""

    models: Models
    layout: Layout
    conversions: dict[str, Conversion] = field(default_factory=dict[str, Conversion])

    def nemo(self, role: Role) -> Path:
        """The .nemo file of a role; raises UsageError for an endpoint."""
        source, name = self._local(role)
        if isinstance(source, NemoModel):
            return source.nemo
        folder, settings = self.hf(role), {"precision": source.precision}
        return self._add(
            Conversion(
                f"0_{name}_nemo",
                f"Conversion of {source.hf} to NeMo",
                (folder,),
                MODEL,
                settings,
                lambda target: [
                    *("checkpoint", "to-nemo", str(folder), str(target)),
                    *(() if source.precision == "bf16" else ("--precision", source.precision)),
                ],
            )
        )

    def hf(self, role: Role) -> Path:
        """The Hugging Face folder of a role; raises UsageError for an endpoint, or a .nemo file without `hf`."""
        source, name = self._local(role)
        if isinstance(source, NemoModel):
            return self._to_hf(source.nemo, f"0_{name}_hf", self._reference(role))
        if source.folder is not None:
            return source.folder
        revision = [] if source.revision == "main" else ["--revision", source.revision]
        return self._add(
            Conversion(
                f"0_{name}_download",
                f"Download of {source.hf}",
                (),
                HF,
                {"name": source.hf, "revision": source.revision},
                lambda target: ["download", source.hf, *revision, "--local-dir", str(target)],
                "huggingface-cli",
            )
        )

    def trained_hf(self, step: str) -> Path:
        """The Hugging Face folder of a model that a step has trained, with the base model's configuration."""
        return self._to_hf(self.layout.file(step, MODEL), f"{step}_hf", self._reference("base"))

    @property
    def tokenizer_source(self) -> Path:
        """The input of a step that needs the tokenizer: its file, or the folder of a download, before and after it."""
        source, _ = self._local("base")
        is_download = isinstance(source, HuggingFaceModel) and source.folder is None
        return self.hf("base") if is_download else self.tokenizer

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of the model that is trained: a file, or a folder that is still to be downloaded."""
        source, _ = self._local("base")
        path = source.tokenizer_path if isinstance(source, NemoModel) else self.hf("base")
        if isinstance(source, HuggingFaceModel) and (path / "tokenizer.model").is_file():
            # `cai checkpoint to-nemo` prefers it, too.
            return path / "tokenizer.model"
        return path if not path.is_dir() else tokenizer_path(path)

    def _local(self, role: Role) -> tuple[NemoModel | HuggingFaceModel, str]:
        """The source of a role that is not an endpoint, and the first role with the same source."""
        source = getattr(self.models, role)
        if isinstance(source, EndpointModel):
            raise UsageError(
                f"models.{role}: {source.model} is on a server of its own: it can be neither trained nor served here; "
                "give {nemo: FILE} or {hf: FOLDER}"
            )
        return source, next(name for name in ROLES if getattr(self.models, name) == source)

    def _reference(self, role: Role) -> Path:
        source, _ = self._local(role)
        if isinstance(source, HuggingFaceModel):
            return self.hf(role)
        if source.hf is None:
            raise UsageError(
                f"models.{role}: vLLM reads Hugging Face folders; give the folder of the model from which "
                f"{source.nemo} was made as `hf`, or serve it with `engine: nemo`"
            )
        return source.hf

    def _to_hf(self, model: Path, step: str, reference: Path) -> Path:
        return self._add(
            Conversion(
                step,
                f"Conversion of {model.parent.name if model.name == MODEL else model.name} to Hugging Face",
                (model, reference),
                HF,
                {},
                lambda target: ["checkpoint", "to-hf", str(model), str(reference), str(target)],
            )
        )

    def _add(self, conversion: Conversion) -> Path:
        self.conversions[conversion.step] = conversion
        return self.layout.file(conversion.step, conversion.makes)


def as_step(conversion: Conversion) -> Step:
    """The conversion as a step of the run."""

    def work(folder: Path) -> Mapping[str, Any]:
        target = folder / conversion.makes
        if not conversion.sources:
            _download(conversion.settings, target)  # resumes
        else:
            # A complete one, of an attempt that ended before its record was written: converters write atomically.
            if target.is_dir():
                shutil.rmtree(target)
            target.unlink(missing_ok=True)
            # In a process of its own, whose memory is free afterwards.
            log = folder / "convert.log"
            command = [srun.interpreter(), "-m", _CLI, *conversion.command(target)]
            jobs.finish(jobs.start_command(conversion.step, command, log, tasks=1))
        return {}

    return Step(
        conversion.step,
        conversion.title,
        reads=conversion.sources,
        makes=(conversion.makes,),
        settings=conversion.settings,
        work=work,
    )


def _download(settings: Mapping[str, Any], target: Path) -> None:
    from nemo_aligner_cai.files.sources import hf_library

    hub = hf_library("huggingface_hub", f"{settings['name']}: the hub")
    try:
        hub.snapshot_download(settings["name"], revision=settings["revision"], local_dir=target)
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UsageError(f"{settings['name']}: cannot be downloaded: {' '.join(str(error).split())}") from error
