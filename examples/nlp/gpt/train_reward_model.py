# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Step 5: train the reward model.

Accepts the keys of NeMo-Aligner's script of this name. The settings are in conf/;
`python examples/nlp/gpt/train_reward_model.py --cfg job` prints them.
"""

from nemo_aligner_cai.training.launch.stage_main import start
from nemo_aligner_cai.training.reward_model import STAGE

if __name__ == "__main__":
    start(STAGE)
