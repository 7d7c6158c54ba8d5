#!/usr/bin/env bash
# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
# Sourced: CAI_DEVICE is gpu where nvidia-smi finds one, else cpu, unless it was given; GPUS is how many it may use.
GPUS=$(nvidia-smi --list-gpus 2> /dev/null | grep --count '^GPU ') || true
if [[ -z ${CAI_DEVICE:-} ]]; then
    CAI_DEVICE=cpu
    [[ $GPUS -eq 0 ]] || CAI_DEVICE=gpu
fi
[[ $CAI_DEVICE == gpu ]] || GPUS=0
