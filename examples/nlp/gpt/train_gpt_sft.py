# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Step 3: fine-tune the base model on the revised responses.

Accepts the keys of NeMo-Aligner's script of this name. The settings are in conf/;
`python examples/nlp/gpt/train_gpt_sft.py --cfg job` prints them.
"""

from nemo_aligner_cai.training.launch.stage_main import start
from nemo_aligner_cai.training.sft import STAGE

if __name__ == "__main__":
    start(STAGE)
