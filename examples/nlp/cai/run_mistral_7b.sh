#!/bin/bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0

# The tutorial (docs/tutorial.rst) as one script: Mistral-7B through the seven steps of Constitutional AI.
#
#   export NGC_API_KEY=nvapi-...
#   examples/nlp/cai/run_mistral_7b.sh            # every step that is not finished
#   DRY_RUN=1 examples/nlp/cai/run_mistral_7b.sh  # only print the commands
#
# The commands are those of the tutorial with these settings; a test compares them. A finished step leaves a marker in
# $RESULTS/finished and is then skipped: remove the marker to repeat the step. An interrupted step resumes: trainers
# from their last checkpoint, generation from its journal.
set -euo pipefail

MODELS=${MODELS:-/models}
DATA=${DATA:-/data}
RESULTS=${RESULTS:-/results}
DEVICES=${DEVICES:-8}
SEQ_LENGTH=${SEQ_LENGTH:-4096}
VALIDATION_ROWS=${VALIDATION_ROWS:-5120}
JUDGE_URL=${JUDGE_URL:-https://integrate.api.nvidia.com/v1/chat/completions}
JUDGE_MODEL=${JUDGE_MODEL:-mistralai/mixtral-8x7b-instruct-v0.1}
HELPFUL_ONLY_PORT=${HELPFUL_ONLY_PORT:-5656}
SL_CAI_PORT=${SL_CAI_PORT:-5657}
CRITIC_PORT=${CRITIC_PORT:-5567}
# Number of checks whether a server is ready, five seconds apart.
READY_TRIES=${READY_TRIES:-120}
DRY_RUN=${DRY_RUN:-0}

cd "$(dirname "$0")/../../.."
EXAMPLES=examples/nlp
CONSTITUTIONS=nemo_aligner_cai/constitutions
SERVER=""

run() {
    if [[ $DRY_RUN = 1 ]]; then
        printf '%q ' "$@"
        printf '\n'
    else
        "$@"
    fi
}

# start_server URL COMMAND...: run in the background; returns when URL answers.
start_server() {
    local url=$1
    shift
    if [[ $DRY_RUN = 1 ]]; then
        run "$@"
    else
        "$@" &
        SERVER=$!
    fi
    run curl -sf --retry "$READY_TRIES" --retry-delay 5 --retry-all-errors "$url"
    # Another process may have answered at that address although this server has ended.
    [[ $DRY_RUN = 1 ]] || kill -0 "$SERVER"
}

stop_server() {
    if [[ -n $SERVER ]]; then
        kill "$SERVER" 2> /dev/null || true
        wait "$SERVER" || true
        SERVER=""
    fi
}
trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# step NAME: run the function of that name unless it has already finished.
step() {
    local marker=$RESULTS/finished/$1
    if [[ $DRY_RUN = 1 ]]; then
        "$1"
        return
    fi
    if [[ -e $marker ]]; then
        echo "$1: already finished, skipped ($marker)"
        return
    fi
    echo "$1: started"
    "$1"
    mkdir -p "$RESULTS/finished"
    touch "$marker"
}

# Print the flag that resumes from a journal, if one exists.
resume_from() {
    local journal
    for journal in "$@"; do
        if [[ -e $journal ]]; then
            echo --resume
            return
        fi
    done
}

serve() {
    start_server "http://127.0.0.1:$2/health" \
        cai serve "$1" --port "$2" "trainer.devices=$DEVICES" "tensor_model_parallel_size=$DEVICES"
}

convert_model() {
    run cai checkpoint to-nemo "$1" "$2"
}

# Print "{train: [...], validation: [...], test: [...]}" with the kept files of a kind.
data_prefix() {
    local train=$RESULTS/rl_cai_data/train_$1.jsonl test=$RESULTS/rl_cai_data/test_$1.jsonl
    echo "model.data.data_prefix={train: [$train], validation: [$test], test: [$test]}"
}

# keep KIND FORMAT TOKENS: write the blends of a kind without over-long rows.
keep() {
    local split folder=$RESULTS/rl_cai_data
    for split in train test; do
        [[ $DRY_RUN = 1 ]] || rm -f "$folder/${split}_$1.jsonl"
        run cai convert "$folder/blend_helpful_with_cai_rlaif_${split}_$1_with_chat_prompt.jsonl" \
            "$folder/${split}_$1.jsonl" --to "$2" \
            --tokenizer "$MODELS/mistral-7b-hf/tokenizer.model" --seq-length "$3"
    done
}

# Print {'prompts': [...], 'comparisons': [...]} with the human preferences of a split.
human() {
    local start=$DATA/helpful/anthropic_helpful_only_$1
    echo "{'prompts': ['${start}_prompts_with_chat_prompt.jsonl']," \
        "'comparisons': ['${start}_comparisons_with_chat_prompt.jsonl']}"
}

step_1_models() {
    run mkdir -p "$MODELS" "$DATA" "$RESULTS"
    run huggingface-cli download mistralai/Mistral-7B-v0.1 --local-dir "$MODELS/mistral-7b-hf"
    run huggingface-cli download mistralai/Mistral-7B-Instruct-v0.1 --local-dir "$MODELS/mistral-7b-instruct-hf"
    convert_model "$MODELS/mistral-7b-hf" "$MODELS/mistral-7b.nemo"
    convert_model "$MODELS/mistral-7b-instruct-hf" "$MODELS/mistral-7b-instruct.nemo"
}

step_1_data() {
    run huggingface-cli download Anthropic/hh-rlhf --repo-type dataset --local-dir "$DATA/hh-rlhf"
    run huggingface-cli download HuggingFaceH4/ultrachat_200k --repo-type dataset \
        --include "data/train_sft-*" --local-dir "$DATA/ultrachat_200k"
    [[ $DRY_RUN = 1 ]] || rm -f "$DATA/ultrachat_200k_train_sft.jsonl" "$DATA"/helpful/anthropic_helpful_only_*
    run cai convert "$DATA/ultrachat_200k/data" "$DATA/ultrachat_200k_train_sft.jsonl" --from messages --to sft-chat
    run python $EXAMPLES/cai/process_anthropic_hh_using_chat_prompt.py \
        --input "$DATA/hh-rlhf" \
        --output-dir "$DATA/helpful" \
        --dataset-dir-name helpful-base helpful-online helpful-rejection-sampled \
        --output-file-name-prefix anthropic_helpful_only
}

step_2_sl_cai_data() {
    local folder=$RESULTS/sl_cai_data rows=cai_revisions_aligner_chat_template.jsonl resume
    # The second path is that of earlier versions.
    resume=$(resume_from "$folder/cai_output/"{"$rows/",}cai_revisions.journal.jsonl)
    serve "$MODELS/mistral-7b-instruct.nemo" "$HELPFUL_ONLY_PORT"
    run python $EXAMPLES/cai/generate_sl_cai_dataset.py \
        --red-teaming-prompts-dataset-path "$DATA/hh-rlhf/red-team-attempts" \
        --few-shot-prompts-dataset-path $CONSTITUTIONS/few_shots.json \
        --critique-revision-instructions-path $CONSTITUTIONS/harmlessness.yaml \
        --helpfulness-dataset-path "$DATA/ultrachat_200k_train_sft.jsonl" \
        --max-seq-length "$SEQ_LENGTH" \
        --tokenizer-library sentencepiece \
        --tokenizer-model "$MODELS/mistral-7b-instruct-hf/tokenizer.model" \
        --port "$HELPFUL_ONLY_PORT" --batch_size 128 --tokens_to_generate 1024 \
        --apply_chat_template True --chat-template mistral --end_strings "</s>" \
        --output-filepath "$folder/$rows" ${resume:+"$resume"}
    stop_server
    # `run` cannot redirect, and the printed commands must equal the tutorial's.
    if [[ $DRY_RUN = 1 ]]; then
        echo "head -n $VALIDATION_ROWS $folder/$rows > $folder/validation.jsonl"
        echo "tail -n +$((VALIDATION_ROWS + 1)) $folder/$rows > $folder/train.jsonl"
    else
        head -n "$VALIDATION_ROWS" "$folder/$rows" > "$folder/validation.jsonl"
        tail -n "+$((VALIDATION_ROWS + 1))" "$folder/$rows" > "$folder/train.jsonl"
    fi
    run cai validate "$folder/train.jsonl" "$folder/validation.jsonl"
}

step_3_sl_cai_model() {
    run python $EXAMPLES/gpt/train_gpt_sft.py \
        model=mistral_7b hardware=8xh100 \
        "model.restore_from_path=$MODELS/mistral-7b.nemo" \
        "model.data.train_ds.file_path=$RESULTS/sl_cai_data/train.jsonl" \
        "model.data.validation_ds.file_path=$RESULTS/sl_cai_data/validation.jsonl" \
        "model.data.train_ds.max_seq_length=$SEQ_LENGTH" \
        model.data.train_ds.micro_batch_size=1 \
        model.data.train_ds.global_batch_size=128 \
        model.optim.lr=1e-6 \
        trainer.sft.val_check_interval=50 \
        trainer.sft.limit_val_batches=40 \
        "exp_manager.explicit_log_dir=$RESULTS/sl_cai"
}

step_4_rl_cai_data() {
    local folder=$RESULTS/rl_cai_data resume
    resume=$(resume_from "$folder/cai_comparisons.journal.jsonl")
    serve "$RESULTS/sl_cai/checkpoints/cai_sft.nemo" "$SL_CAI_PORT"
    run python $EXAMPLES/cai/generate_rl_cai_dataset.py \
        --batch-size 128 \
        --red-teaming-file-path "$DATA/hh-rlhf/red-team-attempts" \
        --sys-prompt-constitution-file-path $CONSTITUTIONS/harmlessness.yaml \
        --ngc-url "$JUDGE_URL" \
        --ngc-model "$JUDGE_MODEL" \
        --port "$SL_CAI_PORT" --tokens_to_generate 1024 \
        --splits "{'train': 0.8, 'test': 0.2}" \
        --blend-with "{'name': 'helpful', 'train': $(human train), 'test': $(human test)}" \
        --output-dir "$folder" --output-filename-prefix cai_rlaif ${resume:+"$resume"}
    stop_server
    keep comparisons rm-comparisons "$SEQ_LENGTH"
    # PPO reserves half of --seq-length for the prompt: the sequence without the tokens of a reply.
    keep prompts ppo-prompts "$((2 * (SEQ_LENGTH - 1024)))"
}

step_5_reward_model() {
    run python $EXAMPLES/gpt/train_reward_model.py \
        model=mistral_7b hardware=8xh100 \
        "pretrained_checkpoint.restore_from_path=$RESULTS/sl_cai/checkpoints/cai_sft.nemo" \
        "$(data_prefix comparisons)" \
        ++model.micro_batch_size=1 \
        ++model.global_batch_size=512 \
        "++model.data.seq_length=$SEQ_LENGTH" \
        trainer.rm.val_check_interval=25 \
        trainer.rm.save_interval=25 \
        "exp_manager.explicit_log_dir=$RESULTS/reward_model"
}

step_6_rl_cai_model() {
    start_server "http://127.0.0.1:$CRITIC_PORT/v2/models/critic_save/ready" \
        python $EXAMPLES/gpt/serve_ppo_critic.py \
        model=mistral_7b hardware=8xh100 \
        "pretrained_checkpoint.restore_from_path=$RESULTS/reward_model/checkpoints/cai_reward_model.nemo" \
        trainer.ppo.inference_micro_batch_size=4 \
        "trainer.ppo.port=$CRITIC_PORT" \
        ++model.micro_batch_size=1 \
        ++model.global_batch_size=64 \
        "exp_manager.explicit_log_dir=$RESULTS/critic"
    run python $EXAMPLES/gpt/train_gpt_ppo_actor.py \
        model=mistral_7b hardware=8xh100 \
        "pretrained_checkpoint.restore_from_path=$RESULTS/sl_cai/checkpoints/cai_sft.nemo" \
        "$(data_prefix prompts)" \
        ++model.micro_batch_size=1 \
        ++model.global_batch_size=64 \
        model.optim.lr=9e-8 \
        model.optim.sched.min_lr=9e-9 \
        model.ppo.num_rollout_samples=512 \
        model.ppo.rollout_micro_batch_size=8 \
        model.ppo.length_params.max_length=1024 \
        trainer.ppo.initial_policy_kl_penalty=0.02 \
        remote_critic_rm.critic.ip=localhost \
        "remote_critic_rm.critic.port=$CRITIC_PORT" \
        "exp_manager.explicit_log_dir=$RESULTS/rl_cai"
    stop_server
}

step step_1_models
step step_1_data
step step_2_sl_cai_data
step step_3_sl_cai_model
step step_4_rl_cai_data
step step_5_reward_model
step step_6_rl_cai_model
[[ $DRY_RUN = 1 ]] || echo "finished: cai serve $RESULTS/rl_cai/checkpoints/cai_ppo_actor.nemo --port 1427"
