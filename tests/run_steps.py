# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a run of the tiny assistant by PPO."""

from nemo_aligner_cai.pipeline.layout import DATA, MEASURE, PPO, REWARD_MODEL, RL_CAI, SFT, SL_CAI

STEPS = (DATA, SL_CAI, SFT, RL_CAI, REWARD_MODEL, PPO, MEASURE)
