#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# The tiny assistant and data for it, in $ALIGNER_CI_DIR; sourced by the tiny cases.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${ALIGNER_CI_DIR:?run_all.sh sets it}"
export PYTHONPATH="$HERE/../..:${PYTHONPATH:-}"
TINY=$HERE/../../nemo_aligner_cai/tiny
PRETRAINED_CHECKPOINT_NEMO_FILE=$TINY/assistant.nemo
TINY_DATA=$ALIGNER_CI_DIR/tiny_data
export PRETRAINED_CHECKPOINT_NEMO_FILE TINY_DATA MBS=16 GBS=16
if [[ ! -f $TINY_DATA/hh_train_comparisons_with_chat_prompt.jsonl ]]; then
    "${PYTHON:-python}" -m nemo_aligner_cai.cli tiny data --rows 64 --output "$TINY_DATA"
    "${PYTHON:-python}" -m nemo_aligner_cai.cli data anthropic-hh --input "$TINY_DATA" \
        --dataset-dir-name helpful-base --output-file-name-prefix hh --output-dir "$TINY_DATA"
    # It has never seen a dialogue as long as the packaged ones.
    echo '{"samples": [[{"role": "User", "content": "hello"}, {"role": "Assistant", "content": "hello"}]]}' \
        > "$TINY_DATA/few_shots.json"
fi
