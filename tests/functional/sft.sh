#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# SFT of $PRETRAINED_CHECKPOINT_NEMO_FILE on $TRAIN_DATA_PATH; further arguments are Hydra overrides.
NAME=${NAME:-sft_test}
# shellcheck source=tests/functional/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${PRETRAINED_CHECKPOINT_NEMO_FILE:?a .nemo file}" "${TRAIN_DATA_PATH:?SFT chat rows, .jsonl}"
MAX_STEPS=${MAX_STEPS:-5}

train sft train_gpt_sft.py cai_sft \
    model.restore_from_path="$PRETRAINED_CHECKPOINT_NEMO_FILE" \
    model.data.train_ds.file_path="$TRAIN_DATA_PATH" \
    model.data.validation_ds.file_path="${VALID_DATA_PATH:-$TRAIN_DATA_PATH}" \
    model.data.train_ds.micro_batch_size="${MBS:-1}" \
    model.data.train_ds.global_batch_size="${GBS:-4}" \
    trainer.sft.max_epochs=1000 \
    trainer.sft.max_steps="$MAX_STEPS" \
    trainer.sft.val_check_interval="$MAX_STEPS" \
    trainer.sft.limit_val_batches=1 \
    "$@"
check sft steps:train/loss="$MAX_STEPS" falls:train/loss finite:val/loss nemo:cai_sft
