# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Train with DPO instead of steps 5 and 6.

Accepts the keys of NeMo-Aligner's script of this name. The settings are in conf/;
`python examples/nlp/gpt/train_gpt_dpo.py --cfg job` prints them.
"""

from nemo_aligner_cai.training.dpo import STAGE
from nemo_aligner_cai.training.launch.stage_main import start

if __name__ == "__main__":
    start(STAGE)
