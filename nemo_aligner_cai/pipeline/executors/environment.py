# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The environment variables that a run's configuration uses: a job does not inherit the submitting shell's.

Input:  models: {judge: {endpoint: URL, model: NAME, key_env: JUDGE_KEY}}, tracking: {wandb: cai}; WANDB_MODE is set
Output: JUDGE_KEY, WANDB_MODE: names only, because the values may be secret
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.sections.models import EndpointModel, HuggingFaceModel
from nemo_aligner_cai.pipeline.serving.model_files import ROLES

# The libraries of these services read dozens of variables, and each version reads others.
_WANDB = ("WANDB_",)
_MLFLOW = ("MLFLOW_",)
_HUB = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_")
_STORES = {"s3:": ("AWS_",), "gs:": ("GOOGLE_", "CLOUD_STORAGE_")}


def used_variables(config: RunConfig, env: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the variables that a run uses.

    Args:
        config: the run's configuration.
        env: the environment of the process that submits.

    Returns:
        The variables of the API keys, set or not, and the variables in `env` of the services that the run uses.
    """
    models = [*(getattr(config.models, role) for role in ROLES), config.evaluate and config.evaluate.grader_model]
    keys = [model.key_env for model in models if isinstance(model, EndpointModel) and model.key_env is not None]
    prefixes = tuple(_prefixes(config))
    return (*dict.fromkeys(keys), *sorted(name for name in env if name.startswith(prefixes)))


def _prefixes(config: RunConfig) -> Iterator[str]:
    """The prefixes of the variables of services that the run uses."""
    if config.tracking.wandb is not None:
        yield from _WANDB
    if config.tracking.mlflow is not None:
        yield from _MLFLOW
    sources = config.data.sources.values()
    models = [getattr(config.models, role) for role in ROLES]
    downloads = [model for model in models if isinstance(model, HuggingFaceModel) and model.folder is None]
    if downloads or any(source.hf is not None for source in sources):
        yield from _HUB
    for scheme, names in _STORES.items():
        if any(str(source.path).startswith(scheme) for source in sources):
            yield from names
