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
# What every script of this folder shares; sourced, with NAME set.
#
# ALIGNER_CI_DIR   upstream's variable: results go to $ALIGNER_CI_DIR/results/NAME, and models are at
#                  $ALIGNER_CI_DIR/checkpoints (default: a new temporary folder)
# CAI_DEVICE       gpu: torchrun and NeMo-Aligner's own scripts of $NEMO_ALIGNER_HOME; cpu: cai train;
#                  default: gpu where nvidia-smi finds one
# NPROC            processes, one a GPU (default: 1)
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$ROOT:${PYTHONPATH:-}" HYDRA_FULL_ERROR=1
PYTHON=${PYTHON:-python}
ALIGNER_CI_DIR=${ALIGNER_CI_DIR:-$(mktemp -d -t cai-functional-XXXXXX)}
NEMO_ALIGNER_HOME=${NEMO_ALIGNER_HOME:-/opt/NeMo-Aligner}
RESULTS_DIR=$ALIGNER_CI_DIR/results/$NAME
if [[ -z ${CAI_DEVICE:-} ]]; then
    CAI_DEVICE=cpu
    nvidia-smi --list-gpus > /dev/null 2>&1 && CAI_DEVICE=gpu
fi
# A run goes on from what an earlier one left: each starts from nothing here.
rm -rf "$RESULTS_DIR"
mkdir -p "$RESULTS_DIR"

# train STAGE SCRIPT CONFIG key=value...: cai's name of the stage, upstream's script, our config.
train() {
    local stage=$1 script=$2 config=$3
    shift 3
    # TensorBoard, because it is what upstream's scripts and ours both write.
    set -- "$@" exp_manager.explicit_log_dir="$RESULTS_DIR" exp_manager.create_tensorboard_logger=true
    local command=("$PYTHON" -m nemo_aligner_cai.cli train "$stage" --config-name="$config" hardware=cpu "$@")
    if [[ $CAI_DEVICE == gpu ]]; then
        # Standalone: two of them on one machine would otherwise meet at the same port. The folder of the configs: here
        # the package is not the installed one, which has them.
        command=(torchrun --standalone --nproc-per-node="${NPROC:-1}" "$NEMO_ALIGNER_HOME/examples/nlp/gpt/$script"
            --config-dir="$ROOT/examples/nlp/gpt/conf" --config-name="$config" trainer.devices="${NPROC:-1}" "$@")
    fi
    if ! "${command[@]}" > "$RESULTS_DIR/log.txt" 2>&1; then
        echo "FAILED $NAME: the trainer ended with an error; the end of $RESULTS_DIR/log.txt:" >&2
        tail -n 30 "$RESULTS_DIR/log.txt" >&2
        return 1
    fi
}

# check FACT...: each as in check.py; the first that does not hold is named and ends the script.
check() {
    "$PYTHON" "$ROOT/tests/functional/check.py" "$RESULTS_DIR" "$@"
}
