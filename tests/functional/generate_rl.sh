#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# RL-CAI data by $PRETRAINED_CHECKPOINT_NEMO_FILE, the SL-CAI model: candidates for the red-team prompts of $PROMPTS_PATH
# and a judge's preferences, blended with the human ones of $HELPFUL_PREFIX. The judge is at $JUDGE_URL, under the name
# $JUDGE_MODEL, or the same model. Further arguments are flags of generate_rl_cai_dataset.py.
NAME=${NAME:-generate_rl_test}
# shellcheck source=tests/functional/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${PRETRAINED_CHECKPOINT_NEMO_FILE:?a .nemo file}" "${PROMPTS_PATH:?red-team prompts, .jsonl}"
: "${HELPFUL_PREFIX:?of HELPFUL_PREFIX_train_prompts_with_chat_prompt.jsonl and its like}"
DATA=$RESULTS_DIR/data

# {'prompts': [...], 'comparisons': [...]} of the human preferences of a split.
human() {
    local end=with_chat_prompt.jsonl
    echo "{'prompts': ['${HELPFUL_PREFIX}_$1_prompts_$end'], 'comparisons': ['${HELPFUL_PREFIX}_$1_comparisons_$end']}"
}

serve "$PRETRAINED_CHECKPOINT_NEMO_FILE"
JUDGE=(--judge-port "$PORT" --judge multiple-choice)
[[ -z ${JUDGE_URL:-} ]] || JUDGE=(--judge-url "$JUDGE_URL" --judge-model "${JUDGE_MODEL:?its name at JUDGE_URL}")
generate generate_rl_cai_dataset.py \
    --red-teaming-file-path "$PROMPTS_PATH" \
    --batch-size "${MBS:-128}" --tokens_to_generate 1024 \
    --blend-with "{'name': 'helpful', 'train': $(human train), 'test': $(human test)}" \
    --output-dir "$DATA" --output-filename-prefix cai_rlaif \
    "${JUDGE[@]}" "$@"
end_jobs

OWN=(cai_rlaif_{train,test}_prompts_with_chat_prompt.jsonl)
FACTS=("read:cai_manifest.json = $PROMPTS_PATH" "wrote:cai_manifest.json = ${OWN[0]} + ${OWN[1]}")
FILES=()
for name in {train,test}_{prompts,comparisons}_with_chat_prompt.jsonl; do
    FACTS+=("rows:blend_helpful_with_cai_rlaif_$name = cai_rlaif_$name + ${HELPFUL_PREFIX}_$name")
    FILES+=("$DATA/blend_helpful_with_cai_rlaif_$name")
done
check data "${FACTS[@]}" outputs:cai_manifest.json
"$PYTHON" -m nemo_aligner_cai.cli validate "${FILES[@]}"
