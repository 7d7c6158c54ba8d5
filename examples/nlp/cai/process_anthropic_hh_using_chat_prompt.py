# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Write Anthropic HH-RLHF as prompts and comparisons in a chat template, for the reward model and PPO.

    python process_anthropic_hh_using_chat_prompt.py --output-dir data \
        --dataset-dir-name helpful-base helpful-online helpful-rejection-sampled \
        --output-file-name-prefix anthropic_helpful_only

Accepts upstream's flags and those of --help; --input reads local data instead of the hub's.
"""

import sys

from nemo_aligner_cai.console import program

if __name__ == "__main__":
    program.begin()
    from nemo_aligner_cai.commands.data.anthropic_hh import main  # slow imports, after program.begin()

    sys.exit(main())
