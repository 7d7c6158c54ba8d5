# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The two data stages as a library: typed configurations and the functions that run them.

    from nemo_aligner_cai.stages import RlCaiConfig, RlOutputs, run_rl_cai

    config = RlCaiConfig(prompts={"path": "red_team.jsonl"}, outputs=RlOutputs.named("rl_cai"))
    report = await run_rl_cai(config, policy, judge)

Command-line flags, Hydra groups and `cai run` only build the configurations.
"""

from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.judges.settings import JudgeConfig
from nemo_aligner_cai.stages.report import StageIncomplete, StageReport
from nemo_aligner_cai.stages.rl_cai import RlCaiConfig, run_rl_cai
from nemo_aligner_cai.stages.rl_outputs import BlendFiles, PreferenceFiles, RlOutputs
from nemo_aligner_cai.stages.settings import PromptSource
from nemo_aligner_cai.stages.sft_files import SftFiles, SlOutputs
from nemo_aligner_cai.stages.sl_cai import SlCaiConfig, run_sl_cai

__all__ = [
    "BlendFiles",
    "JudgeConfig",
    "PreferenceFiles",
    "PromptSource",
    "RlCaiConfig",
    "RlOutputs",
    "RunSettings",
    "SftFiles",
    "SlCaiConfig",
    "SlOutputs",
    "StageIncomplete",
    "StageReport",
    "run_rl_cai",
    "run_sl_cai",
]
