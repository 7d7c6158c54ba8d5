# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A critic server without a model: upstream's `run_server` on a Triton server of ours, with functions that do nothing.

python -m tests.functional.critic_job PORT
"""

import os
import signal
import sys
import threading
from typing import Any

import numpy as np
import torch

from nemo_aligner_cai.training import critic_server, triton_limits
from nemo_aligner_cai.training.cpu.install import install_patches
from nemo_aligner_cai.training.launch import jobs, loopback


def main(port: int) -> None:
    loopback.restrict()
    install_patches()
    from nemo_aligner.algorithms.critic_server_trainer import CriticServerTrainer
    from pytriton.decorators import sample
    from pytriton.model_config import Tensor

    # The address that a host's name has: torch and gloo would listen there, and the store on all.
    store = f"tcp://{sys.argv[2]}:{jobs.free_port()}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    torch.distributed.new_group([0])

    @sample
    def nothing(**_: Any) -> dict[str, Any]:
        return {"status": np.array((0,), dtype=np.int32)}

    status = (Tensor(name="status", shape=(1,), dtype=np.int32),)
    asked = (Tensor(name="dummy", shape=(1,), dtype=np.int32),)
    critic: Any = CriticServerTrainer.__new__(CriticServerTrainer)
    critic.cfg, critic.port, critic.lock = {}, port, threading.Lock()
    critic.max_queue_delay_microseconds, critic.preferred_batch_sizes = 2000, [1]
    for name in ("infer", "train", "save"):
        setattr(critic, f"{name}_inputs", asked)
        setattr(critic, f"{name}_outputs", status)
        setattr(critic, f"server_{name}", nothing)
    critic_server.find_libpython()
    triton_limits.restrict_critic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        critic.run_server()
    except KeyboardInterrupt:
        sys.stdout.write("stopped\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)
