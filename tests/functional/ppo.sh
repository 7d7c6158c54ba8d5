#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# PPO of $ACTOR_NEMO_FILE against $RM_NEMO_FILE on the prompts of $TRAIN_DATA_PATH: the critic's server, which answers for
# the reward model too, and the actor. Further arguments are Hydra overrides of the actor, $CRITIC_ARGS of the critic.
#
# KL, LR, GBS, TP_SIZE and PP_SIZE are as in upstream's script. TensorRT-LLM is off, unless an override switches it on.
# Both share the GPUs, unless CRITIC_DEVICES and ACTOR_DEVICES, of NPROC each, say otherwise ("0,1").
NAME=${NAME:-ppo_test}
# shellcheck source=tests/functional/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${ACTOR_NEMO_FILE:?a .nemo file}" "${RM_NEMO_FILE:?the .nemo file of a reward model}"
: "${TRAIN_DATA_PATH:?prompts, .jsonl}"
VALID_DATA_PATH=${VALID_DATA_PATH:-$TRAIN_DATA_PATH}
MAX_STEPS=${MAX_STEPS:-3}
MBS=${MBS:-1}
GBS=${GBS:-2}
LR=${LR:-9e-7}
PORT=${CRITIC_PORT:-$(free_port)}
SERVER=http://127.0.0.1:$PORT/v2/models
read -ra CRITIC_OVERRIDES <<< "${CRITIC_ARGS:-}"
# The two must agree on sizes, and a run of a few steps has no time for a long warm-up.
BOTH=(model.micro_batch_size="$MBS" model.global_batch_size="$GBS" model.optim.sched.warmup_steps=1)
[[ -z ${SEQ_LENGTH:-} ]] || BOTH+=(++model.encoder_seq_length="$SEQ_LENGTH")
[[ -z ${TP_SIZE:-} ]] || BOTH+=(model.tensor_model_parallel_size="$TP_SIZE")
[[ -z ${PP_SIZE:-} ]] || BOTH+=(model.pipeline_model_parallel_size="$PP_SIZE")

DEVICES=${CRITIC_DEVICES:-} start_stage critic serve_ppo_critic.py cai_ppo_critic \
    pretrained_checkpoint.restore_from_path="$RM_NEMO_FILE" \
    trainer.ppo.port="$PORT" \
    trainer.ppo.inference_micro_batch_size="$MBS" \
    "${BOTH[@]}" "${CRITIC_OVERRIDES[@]}"
wait_ready "the critic" "$RESULTS_DIR/critic.log" "$SERVER"/critic_{infer,train,save}/ready

DEVICES=${ACTOR_DEVICES:-} train ppo-actor train_gpt_ppo_actor.py cai_ppo_actor \
    pretrained_checkpoint.restore_from_path="$ACTOR_NEMO_FILE" \
    "model.data.data_prefix={train: [$TRAIN_DATA_PATH], validation: [$VALID_DATA_PATH], test: [$VALID_DATA_PATH]}" \
    model.ppo.num_rollout_samples="$GBS" \
    model.ppo.rollout_micro_batch_size="$MBS" \
    model.optim.lr="$LR" \
    model.optim.sched.min_lr="$LR" \
    trainer.ppo.max_epochs=1000 \
    trainer.ppo.max_steps="$MAX_STEPS" \
    trainer.ppo.val_check_interval="$MAX_STEPS" \
    trainer.ppo.initial_policy_kl_penalty="${KL:-0.03}" \
    remote_critic_rm.critic.ip=127.0.0.1 \
    remote_critic_rm.critic.port="$PORT" \
    "${BOTH[@]}" "$@"
end_jobs

check ppo-actor \
    steps:train_rollouts/rewards="$MAX_STEPS" finite:train_rollouts/rewards finite:val_rollouts/rewards \
    finite:train_rollouts/init_policy_kl grows:train_rollouts/init_policy_kl \
    steps:train_optim/loss="$MAX_STEPS" finite:train_optim/loss nemo:cai_ppo_actor
# One global batch of rollouts is one step of either.
check critic steps:train/loss="$MAX_STEPS" falls:train/loss checkpoint:cai_ppo_critic-step="$MAX_STEPS"-last
