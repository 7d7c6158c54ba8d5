# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Make RL-CAI data: a model answers red-team prompts several times, and a judge chooses by a constitution.

    export NGC_API_KEY=...
    python generate_rl_cai_dataset.py \
        --batch-size 128 \
        --red-teaming-file-path red_team_attempts.jsonl \
        --output-dir preferences --output-filename-prefix cai_rlaif \
        --port 5656

Accepts upstream's flags and those of --help. After an interruption, the same command with --resume resumes.
"""

import sys

from nemo_aligner_cai.console import program

if __name__ == "__main__":
    program.begin()
    from nemo_aligner_cai.commands.generate.rl_cai import main  # slow imports, after program.begin()

    sys.exit(main())
