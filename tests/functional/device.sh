#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# Sourced: CAI_DEVICE is gpu where nvidia-smi finds one, else cpu, unless it was given; GPUS is how many it may use.
GPUS=$(nvidia-smi --list-gpus 2> /dev/null | grep --count '^GPU ') || true
if [[ -z ${CAI_DEVICE:-} ]]; then
    CAI_DEVICE=cpu
    [[ $GPUS -eq 0 ]] || CAI_DEVICE=gpu
fi
[[ $CAI_DEVICE == gpu ]] || GPUS=0
