# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Imports the modules that every stage needs, in the process from which `jobs` forks.

The imports take about ten seconds; a forked job has them at once. This module must not create tensors or threads: they
do not survive a fork.
"""

import gc
import importlib
import os
import sys

# The fork server shares the standard streams of the process that started it: hide the import messages.
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

# Garbage collection would write to, and so copy, the pages that forked jobs share.
gc.freeze()
