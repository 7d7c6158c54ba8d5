#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# Mistral-7B on a node with eight GPUs, and the tiny world's rows, which it can read too; sourced by the cases of real size.
#
# They show that a model of that size loads, trains and is saved in these layouts. What it learns, they do not.
# shellcheck source=tests/functional/tiny.sh
source "$(dirname "${BASH_SOURCE[0]}")/tiny.sh"
# shellcheck source=tests/functional/device.sh
source "$HERE/device.sh"
PRETRAINED_CHECKPOINT_NEMO_FILE=$ALIGNER_CI_DIR/checkpoints/mistral-7b.nemo
export NPROC=8 MBS=1 GBS=16 MAX_STEPS=9
# shellcheck disable=SC2034 # for the cases
SIZE=(model=mistral_7b hardware=8xh100)

# need FILE HOW: end here, and say how to get it, if it is not there.
need() {
    [[ -e $1 ]] || { echo "FAILED $(basename "$0"): there is no $1; $2" >&2; exit 1; }
}
need "$PRETRAINED_CHECKPOINT_NEMO_FILE" "cai checkpoint to-nemo makes it of mistralai/Mistral-7B-v0.1"
[[ $GPUS -ge 8 ]] || { echo "FAILED $(basename "$0"): it needs 8 GPUs, and here are $GPUS" >&2; exit 1; }
