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
r"""RL-CAI data: a model answers red-team prompts several times, and a judge chooses by a constitution.

    export NGC_API_KEY=...
    python generate_rl_cai_dataset.py \
        --batch-size 128 \
        --red-teaming-file-path red_team_attempts.jsonl \
        --output-dir preferences --output-filename-prefix cai_rlaif \
        --port 5656

The flags are upstream's; --help shows the others. Interrupted, the same command with --resume goes on.
"""

import sys

from nemo_aligner_cai import program

if __name__ == "__main__":
    program.begin()
    from nemo_aligner_cai.commands.generate_rl import main  # after it: these imports take their time

    sys.exit(main())
