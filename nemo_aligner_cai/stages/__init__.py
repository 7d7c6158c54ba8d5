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
"""The two data stages as a library: typed configurations, and functions that run them.

from nemo_aligner_cai.stages import RlCaiConfig, RlOutputs, run_rl_cai

config = RlCaiConfig(prompts={"path": "red_team.jsonl"}, outputs=RlOutputs.named("rl_cai"))
report = await run_rl_cai(config, policy, judge)
"""

from nemo_aligner_cai.stages.judging import JudgeConfig
from nemo_aligner_cai.stages.report import StageIncomplete, StageReport
from nemo_aligner_cai.stages.rl_cai import RlCaiConfig, run_rl_cai
from nemo_aligner_cai.stages.rl_outputs import BlendFiles, PreferenceFiles, RlOutputs
from nemo_aligner_cai.stages.settings import PromptSource, RunSettings
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
