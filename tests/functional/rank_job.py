# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One of several processes: writes down what it and the processes around it listen on.

python -m tests.functional.rank_job FOLDER PORT
"""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from nemo_aligner_cai.training.cpu.install import install_patches
from nemo_aligner_cai.training.launch import loopback
from tests.functional import sockets


def main(folder: Path, port: int) -> None:
    loopback.restrict()
    install_patches()
    torch.distributed.init_process_group("gloo")
    torch.distributed.new_group([0, 1])
    loopback.restrict_rollouts()
    from nemo_aligner.utils.batch_iterators import get_batch_iterator_cls

    _, host, _ = get_batch_iterator_cls({"use_flask": True, "port": port}).args
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection((host, port)):
            break
        time.sleep(0.1)
    found = {"listening": sockets.listening(os.getppid()), "open": sockets.open_doors(os.getppid())}
    torch.distributed.barrier()
    text = json.dumps({name: sorted(of) for name, of in found.items()})
    (folder / f"{torch.distributed.get_rank()}.json").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
