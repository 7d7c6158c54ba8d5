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
r"""SL-CAI data: a helpful-only model answers red-team prompts, critiques its answers and revises them.

    python generate_sl_cai_dataset.py \
        --red-teaming-prompts-dataset-path red_team_attempts.jsonl \
        --few-shot-prompts-dataset-path few_shots.json \
        --critique-revision-instructions-path CritiqueRevisionInstructions.json \
        --helpfulness-dataset-path helpful_sft.jsonl \
        --output-filepath cai_revisions_aligner_chat_template.jsonl \
        --port 5656 --end_strings "</s>"

The flags are upstream's; --help shows the others. Interrupted, the same command with --resume goes on.
"""

import sys

from nemo_aligner_cai import program

if __name__ == "__main__":
    program.begin()
    from nemo_aligner_cai.commands.generate_sl import main  # after it: these imports take their time

    sys.exit(main())
