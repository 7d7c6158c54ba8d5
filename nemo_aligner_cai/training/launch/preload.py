# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Imports what every stage imports, once, in the process that `launch` forks its jobs from.

Importing this module takes about ten seconds and prints what upstream prints while it is imported; a forked job
has it all at once. It must not create tensors or threads: those do not survive a fork.
"""

import gc
import importlib
import os
import sys

# The server's own standard streams are whoever started it; upstream's import messages are of no use there.
_null = os.open(os.devnull, os.O_WRONLY)
sys.stdout.flush()
sys.stderr.flush()
os.dup2(_null, 1)
os.dup2(_null, 2)

from nemo_aligner_cai.training.cpu.install import install_patches  # noqa: E402

install_patches()

for module in (
    "nemo.collections.nlp.modules.common.text_generation_server",
    "nemo_aligner.algorithms.critic_server_trainer",
    "nemo_aligner.algorithms.ppo",
    "nemo_aligner.algorithms.supervised",
    "nemo_aligner.data.nlp.builders",
    "nemo_aligner.models.nlp.gpt.gpt_sft_model",
    "nemo_aligner.models.nlp.gpt.megatron_gpt_critic",
    "nemo_aligner.models.nlp.gpt.megatron_gpt_ppo_actor",
    "nemo_aligner.models.nlp.gpt.reward_critic_clients",
    "nemo_aligner.models.nlp.gpt.reward_model_classes",
):
    importlib.import_module(module)

# Collection would write to every object's page, which the forked jobs otherwise share.
gc.freeze()
