#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# A reward model from $PRETRAINED_CHECKPOINT_NEMO_FILE on the pairs of $TRAIN_DATA_PATH; further arguments are Hydra
# overrides.
NAME=${NAME:-rm_test}
# shellcheck source=tests/functional/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${PRETRAINED_CHECKPOINT_NEMO_FILE:?a .nemo file}" "${TRAIN_DATA_PATH:?chosen and rejected rows in turn, .jsonl}"
MAX_STEPS=${MAX_STEPS:-5}
VALID_DATA_PATH=${VALID_DATA_PATH:-$TRAIN_DATA_PATH}

train reward-model train_reward_model.py cai_reward_model \
    pretrained_checkpoint.restore_from_path="$PRETRAINED_CHECKPOINT_NEMO_FILE" \
    "model.data.data_prefix={train: [$TRAIN_DATA_PATH], validation: [$VALID_DATA_PATH], test: [$VALID_DATA_PATH]}" \
    model.micro_batch_size="${MBS:-1}" \
    model.global_batch_size="${GBS:-4}" \
    trainer.rm.max_epochs=1000 \
    trainer.rm.max_steps="$MAX_STEPS" \
    trainer.rm.val_check_interval="$MAX_STEPS" \
    trainer.rm.save_interval="$MAX_STEPS" \
    trainer.rm.limit_val_batches=1 \
    "$@"
check reward-model steps:train/loss="$MAX_STEPS" falls:train/loss finite:val/acc nemo:cai_reward_model
