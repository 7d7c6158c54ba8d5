# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""torchrun for a single node; its rendezvous listens on the loopback interface.

python -m nemo_aligner_cai.training.launch.local_ranks --nproc-per-node=8 -m nemo_aligner_cai.training.sft ...
"""

import sys

from nemo_aligner_cai.console import program
from nemo_aligner_cai.training.launch import loopback


def main(argv: list[str]) -> None:
    """Run torchrun."""
    # Hides secrets of the command line, which this process shows during the whole training.
    program.begin()
    loopback.restrict({})
    from torch.distributed.run import main as torchrun

    torchrun(["--standalone", f"--local-addr={loopback.LOOPBACK}", *argv])


if __name__ == "__main__":
    main(sys.argv[1:])
