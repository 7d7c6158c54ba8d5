# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The models of a run: a .nemo file, a Hugging Face folder or hub model, an endpoint, or the tiny assistant.

Input:  models: {helpful_only: {endpoint: "http://127.0.0.1:8000/v1", model: instruct}, base: {hf: /models/base}}
Output: Models(helpful_only=EndpointModel(...), base=HuggingFaceModel(...), judge=EndpointModel(...))

`tiny`, and the path of a .nemo file alone, are short forms of `{nemo: FILE}`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.sections import Section, Source

TINY = "tiny"
Servers = tuple[str, ...] | Path
"""The addresses of equivalent servers, or the folder that has them."""
Role = Literal["helpful_only", "base", "judge"]


class NemoModel(Section):
    """A .nemo file, or the folder of an extracted one.

    Attributes:
        nemo: its path.
        tokenizer: a SentencePiece model, or a Hugging Face folder; None for ``tokenizer.model`` next to the file.
        hf: the folder of the Hugging Face model from which it was made, needed only to serve it with vLLM.
    """

    nemo: Path
    tokenizer: Path | None = None
    hf: Path | None = None

    @property
    def tokenizer_path(self) -> Path:
        """The model's tokenizer."""
        return self.nemo.with_name("tokenizer.model") if self.tokenizer is None else self.tokenizer


class HuggingFaceModel(Section):
    """A Hugging Face folder, or a model on the hub.

    Attributes:
        hf: the folder, or the model's name on the hub: OWNER/NAME.
        revision: a commit, branch or tag on the hub; give the commit to name one model for good.
        precision: of the weights in the .nemo file, as for `cai checkpoint to-nemo`.
    """

    hf: str
    revision: str = "main"
    precision: Literal["32", "bf16", "16"] = "bf16"

    @property
    def folder(self) -> Path | None:
        """The folder; None for a model on the hub."""
        is_name = len(Path(self.hf).parts) == 2 and not self.hf.startswith((".", "/", "~"))
        return None if is_name and not Path(self.hf).exists() else Path(self.hf)


class EndpointModel(Section):
    """A model on OpenAI-compatible servers that this run does not start.

    Attributes:
        endpoint: the address of the server, or the addresses of several servers of the same model.
        endpoints_dir: instead, a folder with a file for each healthy server; servers may join and leave during a run.
        model: the model's name there.
        key_env: the environment variable with the API key; None for no key.
        identity: names the model for good, such as its commit; None for what the server reports on ``/v1/models``.
            The steps that use the model run again when it changes.
        concurrency: maximum number of requests in flight: over all servers, or to each server of `endpoints_dir`.
        requests_per_minute: the service's limit.
        tokens_per_minute: the service's limit on prompt and completion tokens together.
        extra_body: keys to add to requests.
        omit: keys to drop from requests (null), or to rename.
        timeout_s: the longest time for one reply, in seconds.
    """

    endpoint: tuple[Source, ...] = ()
    endpoints_dir: Path | None = None
    model: str
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    identity: str | None = None
    concurrency: int = Field(default=64, gt=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])
    omit: dict[str, str | None] = Field(default_factory=dict[str, "str | None"])
    timeout_s: float = Field(default=600.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        given = dict(cast(Mapping[str, object], value))
        return given | ({"endpoint": (given["endpoint"],)} if isinstance(given.get("endpoint"), str) else {})

    @model_validator(mode="after")
    def _has_one_place(self) -> EndpointModel:
        if bool(self.endpoint) == (self.endpoints_dir is not None):
            raise ValueError("give endpoint, the address of a server, or endpoints_dir, a folder of addresses")
        return self

    @property
    def determining(self) -> dict[str, Any]:
        """The settings that determine replies, without those at their defaults."""
        return self.model_dump(mode="json", include={"extra_body", "omit"}, exclude_defaults=True)

    @property
    def servers(self) -> Servers:
        """The addresses of the servers, or the folder that has them."""
        return self.endpoint if self.endpoints_dir is None else self.endpoints_dir


_KINDS = ("endpoint", "nemo", "hf")


def _long_form(value: object) -> object:
    if value == TINY:
        return {"nemo": packaged_files.MODEL}
    return {"nemo": cast(object, value)} if isinstance(value, str | os.PathLike) else value


def _constitution(value: object) -> object:
    """Replace the name of one of the tiny assistant's constitutions by its path."""
    return packaged_files.TINY_CONSTITUTIONS.get(value, value) if isinstance(value, str) else value


def _kind(value: object) -> str | None:
    if isinstance(value, Mapping):
        return "endpoint" if "endpoints_dir" in value else next((kind for kind in _KINDS if kind in value), None)
    kinds: dict[type[object], str] = {NemoModel: "nemo", HuggingFaceModel: "hf", EndpointModel: "endpoint"}
    return kinds.get(type(value))


ModelSource = Annotated[
    Annotated[NemoModel, Tag("nemo")]
    | Annotated[HuggingFaceModel, Tag("hf")]
    | Annotated[EndpointModel, Tag("endpoint")],
    Discriminator(
        _kind,
        custom_error_type="model",
        custom_error_message=f"a model is {TINY!r}, {{nemo: FILE}}, {{hf: FOLDER or NAME}}, {{endpoint: URL}} or "
        "{endpoints_dir: FOLDER}",
    ),
    BeforeValidator(_long_form),
]


class Models(Section):
    """The models that a run begins with, and the constitution.

    Attributes:
        helpful_only: answers, criticizes and revises.
        base: what SFT starts from; by default helpful_only.
        judge: compares candidates; by default helpful_only.
        constitution: a YAML or JSON file; by default the packaged one, and `tiny`, `politeness` or `permits_damage`
            for one that the tiny assistant can follow.
    """

    helpful_only: ModelSource
    base: ModelSource
    judge: ModelSource
    constitution: Annotated[Path, BeforeValidator(_constitution)] = Field(default_factory=packaged)

    @model_validator(mode="before")
    @classmethod
    def _default_roles(cls, value: object) -> object:
        if not isinstance(value, Mapping) or "helpful_only" not in value:
            return cast(object, value)
        given = cast(Mapping[str, object], value)
        return {role: given["helpful_only"] for role in ("base", "judge")} | {
            name: section for name, section in given.items() if section is not None or name not in ("base", "judge")
        }
