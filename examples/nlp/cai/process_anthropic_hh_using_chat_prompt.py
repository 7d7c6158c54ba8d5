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
"""Anthropic HH-RLHF as prompts and comparisons in a chat template, for the reward model and PPO.

    python process_anthropic_hh_using_chat_prompt.py --output-dir data \
        --dataset-dir-name helpful-base helpful-online helpful-rejection-sampled \
        --output-file-name-prefix anthropic_helpful_only

The flags are upstream's; --input takes local data in place of the hub's.
"""

import sys

from nemo_aligner_cai import program

if __name__ == "__main__":
    program.begin()
    from nemo_aligner_cai.commands.process_hh import main  # after it: these imports take their time

    sys.exit(main())
