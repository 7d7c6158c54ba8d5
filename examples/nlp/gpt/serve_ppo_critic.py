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
"""Step 6, first half: serve the reward model and critic.

Keys are those of NeMo-Aligner's script of this name. The settings are in conf/;
`python examples/nlp/gpt/serve_ppo_critic.py --cfg job` prints them.
"""

from nemo_aligner_cai.training.critic_server import STAGE
from nemo_aligner_cai.training.run import start

if __name__ == "__main__":
    start(STAGE)
