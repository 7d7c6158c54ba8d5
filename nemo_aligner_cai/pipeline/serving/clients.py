# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of a run's models: of a server that the run starts, or of an endpoint.

Input:  models: {judge: {endpoint: URL, model: NAME}}, serve: {policy: {engine: vllm}}
Output: OpenAIClient(URL, NAME) for the judge; ``vllm serve 3_sft_hf/hf`` and its client for the policy
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models import BodyChanges, ModelClient, OpenAIClient, RetryPolicy
from nemo_aligner_cai.models.api_keys import named_key
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import MODEL
from nemo_aligner_cai.pipeline.sections.models import EndpointModel, Servers
from nemo_aligner_cai.pipeline.sections.serve import NemoServer, Server
from nemo_aligner_cai.pipeline.serving import servers, vllm
from nemo_aligner_cai.pipeline.serving.model_files import ModelFiles

Answering = Literal["helpful_only", "judge"]


def endpoint_client(model: EndpointModel, key: str, identity: str | None) -> OpenAIClient:
    """The client of an endpoint.

    Args:
        model: the endpoint.
        key: its place in the configuration.
        identity: the model's identity, which is part of journal keys; None only to ask for it.

    Raises:
        UsageError: the API key is missing, or a setting is invalid.
    """
    try:
        client = OpenAIClient(
            model.servers,
            model.model,
            key=named_key(model.key_env),
            concurrency=model.concurrency,
            retry_policy=RetryPolicy(timeout=model.timeout_s),
            requests_per_minute=model.requests_per_minute,
            tokens_per_minute=model.tokens_per_minute,
            changes=BodyChanges(model.extra_body, model.omit),
        )
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
    if identity is not None:
        client.identity = {**client.identity, "identity": identity}
    return client


@dataclass
class Clients:
    """Makes the client of each model of a run.

    Attributes:
        config: the run's.
        files: the models' files.
        identity: identities of files.
        no_calls: start no server; the clients have the identities of those that would answer.
        reported: identities that servers have reported, by addresses and name.
    """

    config: RunConfig
    files: ModelFiles
    identity: Callable[[Path], str]
    no_calls: bool = False
    reported: dict[tuple[Servers, str], str] = field(default_factory=dict[tuple[Servers, str], str])

    def path(self, role: Answering) -> Path | None:
        """The file or folder that the server of a role reads; None for an endpoint."""
        if isinstance(getattr(self.config.models, role), EndpointModel):
            return None
        return self.files.nemo(role) if isinstance(self._server(role), NemoServer) else self.files.hf(role)

    def trained_path(self, step: str) -> Path:
        """The file or folder of a model that a step has trained."""
        if isinstance(self.config.serve.policy, NemoServer):
            return self.files.layout.file(step, MODEL)
        return self.files.trained_hf(step)

    def endpoint_identities(self, *roles: Answering) -> dict[str, str]:
        """The identities of those roles that are endpoints, for the record of a step.

        Raises:
            UsageError: a server does not report its model, and the configuration names no identity.
        """
        return {
            role: self._endpoint_identity(f"models.{role}", model)
            for role in roles
            if isinstance(model := getattr(self.config.models, role), EndpointModel)
        }

    def settings(self, *roles: Answering | Literal["policy"]) -> dict[str, Any]:
        """The settings of the roles' servers and endpoints that determine replies; {} if all are at their defaults."""
        found = {role: self._answering(role).determining for role in roles}
        return {"servers": used} if (used := {role: own for role, own in found.items() if own}) else {}

    def _answering(self, role: Answering | Literal["policy"]) -> Server | EndpointModel:
        if role == "policy":
            return self.config.serve.policy
        model = getattr(self.config.models, role)
        return model if isinstance(model, EndpointModel) else self._server(role)

    def of(self, role: Answering, log: Path, batch_size: int) -> AbstractContextManager[ModelClient]:
        """The client of a role while the block runs. Use it in one `serving.ask`, which closes it."""
        model = getattr(self.config.models, role)
        if isinstance(model, EndpointModel):
            key = f"models.{role}"
            return nullcontext(endpoint_client(model, key, self._endpoint_identity(key, model)))
        path = self.path(role)
        assert path is not None, "only endpoints have none"
        return self._serve(self._server(role), path, log, batch_size)

    def trained(self, step: str, log: Path, batch_size: int) -> AbstractContextManager[ModelClient]:
        """The client of a model that a step has trained."""
        return self._serve(self.config.serve.policy, self.trained_path(step), log, batch_size)

    def grader(self) -> AbstractContextManager[ModelClient]:
        """The client of the endpoint that grades the evaluation."""
        evaluate = self.config.evaluate
        assert evaluate is not None and isinstance(evaluate.grader_model, EndpointModel), "the caller has checked it"
        identity = self._endpoint_identity("evaluate.grader_model", evaluate.grader_model)
        return nullcontext(endpoint_client(evaluate.grader_model, "evaluate.grader_model", identity))

    def grader_identity(self) -> dict[str, str]:
        """The identity of the endpoint that grades the evaluation; {} without one."""
        evaluate = self.config.evaluate
        if evaluate is None or not isinstance(evaluate.grader_model, EndpointModel):
            return {}
        return {"grader": self._endpoint_identity("evaluate.grader_model", evaluate.grader_model)}

    def _server(self, role: Answering) -> Server:
        return self.config.serve.helpful_only if role == "helpful_only" else self.config.serve.judge

    def _serve(self, server: Server, path: Path, log: Path, batch_size: int) -> AbstractContextManager[ModelClient]:
        if self.no_calls:
            return nullcontext(self._without_server(server, path, batch_size))
        if isinstance(server, NemoServer):
            return servers.served(path, log, server, identity=self._identity(server, path), batch_size=batch_size)
        return vllm.served_vllm(path, log, server, identity=self._identity(server, path))

    def _without_server(self, server: Server, path: Path, batch_size: int) -> ModelClient:
        if isinstance(server, NemoServer):
            return servers.without_server(server, identity=self._identity(server, path), batch_size=batch_size)
        return vllm.without_server(path, identity=self._identity(server, path))

    def _identity(self, server: Server, path: Path) -> str:
        """The identity of a model as this server answers with it, which is part of journal keys."""
        own = self.identity(path)
        return content_hash([own, server.determining], length=64) if server.determining else own

    def _endpoint_identity(self, key: str, model: EndpointModel) -> str:
        if model.identity is not None:
            return model.identity
        place = model.servers, model.model
        reported = self.reported.get(place)
        if reported is None:
            client = endpoint_client(model, key, None)
            described = asyncio.run(_report(client))
            if described is None:
                first = model.endpoint[0] if model.endpoint else f"a server in {model.endpoints_dir}"
                raise NotHere(
                    f"{key}: {first} does not answer, or does not report {model.model!r} on "
                    "/v1/models: start it, or name the model for good with `identity`",
                    first,
                )
            reported = self.reported[place] = content_hash(described)
        return reported


async def _report(client: OpenAIClient) -> dict[str, str] | None:
    try:
        return await client.served_model()
    finally:
        await client.close()
