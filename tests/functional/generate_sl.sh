#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# SL-CAI data by $PRETRAINED_CHECKPOINT_NEMO_FILE, the helpful-only model: critiques and revisions for the red-team prompts
# of $PROMPTS_PATH, blended with $HELPFUL_DATA_PATH. Further arguments are flags of generate_sl_cai_dataset.py.
NAME=${NAME:-generate_sl_test}
# shellcheck source=tests/functional/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${PRETRAINED_CHECKPOINT_NEMO_FILE:?a .nemo file}" "${TOKENIZER_MODEL:?its SentencePiece .model file}"
: "${PROMPTS_PATH:?red-team prompts, .jsonl}" "${HELPFUL_DATA_PATH:?SFT chat rows, .jsonl}"
SEQ_LENGTH=${SEQ_LENGTH:-4096}
DATA=$RESULTS_DIR/data

serve "$PRETRAINED_CHECKPOINT_NEMO_FILE"
generate generate_sl_cai_dataset.py \
    --red-teaming-prompts-dataset-path "$PROMPTS_PATH" \
    --helpfulness-dataset-path "$HELPFUL_DATA_PATH" \
    --max-seq-length "$SEQ_LENGTH" --tokenizer-library sentencepiece --tokenizer-model "$TOKENIZER_MODEL" \
    --batch_size "${MBS:-128}" --tokens_to_generate 1024 \
    --apply_chat_template True --chat-template mistral --end_strings "</s>" \
    --output-filepath "$DATA/train.jsonl" \
    "$@"
end_jobs

TOO_LONG=$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["removed_long_dialogs"])' \
    "$DATA/train.summary.jsonl")
check data \
    "read:cai_output/train.jsonl/cai_manifest.json = $PROMPTS_PATH" \
    "wrote:cai_output/train.jsonl/cai_manifest.json = cai_output/train.jsonl/cai_samples.jsonl" \
    "rows:train.jsonl + $TOO_LONG = cai_output/train.jsonl/cai_samples.jsonl + $HELPFUL_DATA_PATH" \
    outputs:cai_output/train.jsonl/cai_manifest.json
"$PYTHON" -m nemo_aligner_cai.cli validate "$DATA/train.jsonl" --as sft-chat \
    --tokenizer "$TOKENIZER_MODEL" --seq-length "$SEQ_LENGTH"
