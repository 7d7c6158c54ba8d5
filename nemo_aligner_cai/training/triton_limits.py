# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Restricts upstream's Triton servers to one interface and to inference requests.

Upstream's critic listens on all interfaces, and PyTriton makes Triton load and unload models on request. Here Triton
loads its models when it starts, from the folder that PyTriton writes, and rejects changes.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable
from typing import Any

from nemo_aligner_cai.training.cpu.patches import replace
from nemo_aligner_cai.training.launch.loopback import LOOPBACK

_REFUSED = ("model-repository", "shared-memory", "trace")
"""Triton's groups of requests that are rejected. PyTriton itself reads the log settings ("logging")."""
_RESTRICTED = "http-restricted-api"


def restrict_critic() -> None:
    """Make upstream's critic listen on `trainer.ppo.host`, by default loopback, and serve a fixed set of models."""
    from nemo_aligner.algorithms import critic_server_trainer as upstream

    replace(upstream, "Triton", _fixed_triton())
    run_server: Callable[[Any], None] = upstream.CriticServerTrainer.run_server
    if hasattr(run_server, "__wrapped__"):
        return

    @functools.wraps(run_server)
    def on_one_host(self: Any) -> None:
        replace(upstream, "ENDPOINT_BIND_ADDRESS", self.cfg.get("host", LOOPBACK))
        run_server(self)

    upstream.CriticServerTrainer.run_server = on_one_host


def _fixed_triton() -> Any:
    """A subclass of PyTriton's server without model control."""
    from pytriton.server.triton_server_config import TritonServerConfig
    from pytriton.triton import Triton, TritonLifecyclePolicy

    if _RESTRICTED not in TritonServerConfig.server_arg_keys:
        TritonServerConfig.server_arg_keys.append(_RESTRICTED)

    class FixedTriton(Triton):
        def __init__(self, **arguments: Any) -> None:
            policy = TritonLifecyclePolicy(launch_triton_on_startup=False, local_model_store=True)
            super().__init__(**arguments, triton_lifecycle_policy=policy)

        def _prepare_triton_config(self, workspace: Any) -> None:
            super()._prepare_triton_config(workspace)
            config = self._triton_server_config
            config["model_control_mode"] = "none"
            config["load-model"] = None
            # These requests need a header with this name and value. The name ends with a colon, which no header name
            # can contain, so nobody can send it, even with the value from the process list.
            config[_RESTRICTED] = f"{','.join(_REFUSED)}:nobody:={secrets.token_hex()}"

    return FixedTriton
