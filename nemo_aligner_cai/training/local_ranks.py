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
"""torchrun for processes of this machine alone, whose rendezvous listens on the loopback interface.

python -m nemo_aligner_cai.training.local_ranks --nproc-per-node=8 -m nemo_aligner_cai.training.sft ...
"""

import sys

from nemo_aligner_cai import program
from nemo_aligner_cai.training import listening


def main(argv: list[str]) -> None:
    """Run torchrun with the arguments `argv`."""
    # This process shows its command line for as long as the training lasts.
    program.begin()
    listening.restrict({})
    from torch.distributed.run import main as torchrun

    torchrun(["--standalone", f"--local-addr={listening.LOOPBACK}", *argv])


if __name__ == "__main__":
    main(sys.argv[1:])
