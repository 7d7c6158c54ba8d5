# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of language models: one async protocol and its implementations."""

from nemo_aligner_cai.models.api_keys import key_from_environment
from nemo_aligner_cai.models.base import (
    BatchClient,
    CallFailed,
    ClientStats,
    Completion,
    ModelClient,
    Request,
    Sampling,
    ServerRefused,
    Usage,
)
from nemo_aligner_cai.models.body_changes import BodyChanges
from nemo_aligner_cai.models.http.retry import RetryPolicy
from nemo_aligner_cai.models.nemo_server import NemoServerClient
from nemo_aligner_cai.models.openai import OpenAIClient
from nemo_aligner_cai.models.scripted import ScriptedBatchClient, ScriptedClient

__all__ = [
    "BatchClient",
    "BodyChanges",
    "CallFailed",
    "ClientStats",
    "Completion",
    "ModelClient",
    "NemoServerClient",
    "OpenAIClient",
    "Request",
    "RetryPolicy",
    "Sampling",
    "ScriptedBatchClient",
    "ScriptedClient",
    "ServerRefused",
    "Usage",
    "key_from_environment",
]
