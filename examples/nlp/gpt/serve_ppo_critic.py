# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Step 6, first half: serve the reward model and critic.

Accepts the keys of NeMo-Aligner's script of this name. The settings are in conf/;
`python examples/nlp/gpt/serve_ppo_critic.py --cfg job` prints them.
"""

from nemo_aligner_cai.training.critic_server import STAGE
from nemo_aligner_cai.training.launch.stage_main import start

if __name__ == "__main__":
    start(STAGE)
