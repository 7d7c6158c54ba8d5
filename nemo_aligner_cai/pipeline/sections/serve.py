# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The servers of a run: NeMo's text-generation server, which reads .nemo files, or vLLM, which reads HF folders.

serve:
  helpful_only: {engine: vllm, executable: /opt/vllm/bin/vllm, tensor_parallel: 2}
  policy: {engine: nemo, overrides: [trainer.devices=8, tensor_model_parallel_size=8]}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag, model_validator

from nemo_aligner_cai.sections import Section

_SIZE = re.compile(r"\+*(trainer\.(devices|num_nodes)|(tensor|pipeline)_model_parallel_size)=")


class NemoServer(Section):
    """NeMo's text-generation server.

    Attributes:
        overrides: Hydra overrides of the config cai_inference, such as tensor_model_parallel_size=8.
        chat_template: the model's template: a name as for `--chat-template`, or a Hugging Face folder.
        gpus: numbers of the GPUs that it may use; empty for all.
        ready_timeout_s: time to load the model, in seconds.
    """

    engine: Literal["nemo"] = "nemo"
    overrides: tuple[str, ...] = ()
    chat_template: str = "nemo"
    gpus: tuple[int, ...] = ()
    ready_timeout_s: float = Field(default=300.0, gt=0)

    @property
    def determining(self) -> dict[str, Any]:
        """The settings that determine replies, without those at their defaults; the size of the machine does not."""
        kept = self.model_dump(mode="json", include={"chat_template"}, exclude_defaults=True)
        overrides = [one for one in self.overrides if not _SIZE.match(one)]
        return kept | ({"overrides": overrides} if overrides else {})


class VllmServer(Section):
    """vLLM.

    Attributes:
        executable: the program, by its path or its name on PATH; it may belong to another environment than this one.
            With `executor.container`, a program of the image, which is looked for when the server is started.
        replicas: servers of the same model, each with its own port.
        tensor_parallel: GPUs per replica.
        gpus: numbers of the GPUs, `tensor_parallel` for each replica in turn; empty leaves the choice to vLLM.
        dtype: of the weights and activations; "auto" is that of the folder.
        max_model_len: tokens of prompt and reply together; None for the model's own limit.
        concurrency: maximum number of requests in flight, over all replicas.
        ready_timeout_s: time to load the model, in seconds.
        arguments: further arguments of ``vllm serve``.
        environment: environment variables of the servers.
    """

    engine: Literal["vllm"] = "vllm"
    executable: str = "vllm"
    replicas: int = Field(default=1, gt=0)
    tensor_parallel: int = Field(default=1, gt=0)
    gpus: tuple[int, ...] = ()
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_model_len: int | None = Field(default=None, gt=1)
    concurrency: int = Field(default=64, gt=0)
    ready_timeout_s: float = Field(default=1800.0, gt=0)
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict[str, str])

    @property
    def determining(self) -> dict[str, Any]:
        """The settings that determine replies, without those at their defaults."""
        return self.model_dump(mode="json", include={"dtype", "max_model_len", "arguments"}, exclude_defaults=True)

    @model_validator(mode="after")
    def _check_gpus(self) -> VllmServer:
        wanted = self.replicas * self.tensor_parallel
        if self.gpus and (len(self.gpus) != wanted or len(set(self.gpus)) != wanted):
            raise ValueError(f"gpus needs {wanted} different numbers, replicas times tensor_parallel")
        if self.replicas > 1 and self.tensor_parallel > 1 and not self.gpus:
            raise ValueError("several replicas with tensor_parallel need gpus: each replica gets its own")
        return self


def _engine(value: object) -> object:
    if isinstance(value, Mapping):
        return cast(Mapping[str, object], value).get("engine", "nemo")
    return getattr(value, "engine", None)


Server = Annotated[
    Annotated[NemoServer, Tag("nemo")] | Annotated[VllmServer, Tag("vllm")],
    Discriminator(_engine, custom_error_type="engine", custom_error_message="engine: nemo or vllm"),
]


class Serve(Section):
    """The server of each role. A model that is an endpoint is not served by the run.

    Attributes:
        helpful_only: of the helpful-only model, in SL-CAI.
        policy: of the trained models: SL-CAI's in RL-CAI, and both in the evaluation.
        judge: of the judge.
    """

    helpful_only: Server = NemoServer()
    policy: Server = NemoServer()
    judge: Server = NemoServer()
