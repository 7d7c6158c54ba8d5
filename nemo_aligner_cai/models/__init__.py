# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Talking to language models: one small async protocol, and the servers behind it."""

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
from nemo_aligner_cai.models.nemo_server import NemoServerClient
from nemo_aligner_cai.models.openai import OpenAIClient, key_from_environment
from nemo_aligner_cai.models.patience import Patience
from nemo_aligner_cai.models.request_body import BodyChanges
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
    "Patience",
    "Request",
    "Sampling",
    "ScriptedBatchClient",
    "ScriptedClient",
    "ServerRefused",
    "Usage",
    "key_from_environment",
]
