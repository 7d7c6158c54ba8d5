# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""torchrun for processes of this machine alone, whose rendezvous listens on the loopback interface.

python -m nemo_aligner_cai.training.launch.local_ranks --nproc-per-node=8 -m nemo_aligner_cai.training.sft ...
"""

import sys

from nemo_aligner_cai.console import program
from nemo_aligner_cai.training.launch import listening


def main(argv: list[str]) -> None:
    """Run torchrun with the arguments `argv`."""
    # This process shows its command line for as long as the training lasts.
    program.begin()
    listening.restrict({})
    from torch.distributed.run import main as torchrun

    torchrun(["--standalone", f"--local-addr={listening.LOOPBACK}", *argv])


if __name__ == "__main__":
    main(sys.argv[1:])
