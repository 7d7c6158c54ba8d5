# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Make SL-CAI data: a helpful-only model answers red-team prompts, critiques its answers and revises them.

    python generate_sl_cai_dataset.py \
        --red-teaming-prompts-dataset-path red_team_attempts.jsonl \
        --few-shot-prompts-dataset-path few_shots.json \
        --critique-revision-instructions-path CritiqueRevisionInstructions.json \
        --helpfulness-dataset-path helpful_sft.jsonl \
        --output-filepath cai_revisions_aligner_chat_template.jsonl \
        --port 5656 --end_strings "</s>"

Accepts upstream's flags and those of --help. After an interruption, the same command with --resume resumes.
"""

import sys

from nemo_aligner_cai.console import program

if __name__ == "__main__":
    program.begin()
    from nemo_aligner_cai.commands.generate.sl_cai import main  # slow imports, after program.begin()

    sys.exit(main())
