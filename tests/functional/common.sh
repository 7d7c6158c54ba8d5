#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# What every script of this folder shares; sourced, with NAME set.
#
# ALIGNER_CI_DIR   upstream's variable: results go to $ALIGNER_CI_DIR/results/NAME, and models are at
#                  $ALIGNER_CI_DIR/checkpoints (default: a new temporary folder)
# CAI_DEVICE       gpu: torchrun and NeMo-Aligner's own scripts of $NEMO_ALIGNER_HOME; cpu: cai train;
#                  default: gpu where nvidia-smi finds one
# NPROC            processes, one a GPU (default: 1)
# READY_SECONDS    what a server may take until it is ready (default: 600)
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$ROOT:${PYTHONPATH:-}" HYDRA_FULL_ERROR=1
PYTHON=${PYTHON:-python}
ALIGNER_CI_DIR=${ALIGNER_CI_DIR:-$(mktemp -d -t cai-functional-XXXXXX)}
NEMO_ALIGNER_HOME=${NEMO_ALIGNER_HOME:-/opt/NeMo-Aligner}
RESULTS_DIR=$ALIGNER_CI_DIR/results/$NAME
# shellcheck source=tests/functional/device.sh
source "$ROOT/tests/functional/device.sh"
# A run goes on from what an earlier one left: each starts from nothing here.
rm -rf "$RESULTS_DIR"
mkdir -p "$RESULTS_DIR"
# Processes that run, each the first of a session of its own.
JOBS=()

# End what still runs, and all that it has started. torchrun takes up to 30 s to end its processes when it is asked.
end_jobs() {
    local job deadline
    for job in "${JOBS[@]}"; do
        kill -TERM "$job" 2> /dev/null || true
        deadline=$((SECONDS + 45))
        while kill -0 "$job" 2> /dev/null && [[ $SECONDS -lt $deadline ]]; do
            sleep 0.1
        done
        kill -KILL -- "-$job" 2> /dev/null || true
        wait "$job" 2> /dev/null || true
    done
    JOBS=()
}
trap 'trap "" INT TERM; end_jobs' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start LOG COMMAND...: in the background, as the last of JOBS.
start() {
    local log=$1
    shift
    setsid "$@" > "$log" 2>&1 < /dev/null &
    JOBS+=("$!")
}

# failed WHAT LOG...: say so, with the ends of the logs, and end the script.
failed() {
    echo "FAILED $NAME: $1; the end of ${*:2}:" >&2
    tail -n 30 "${@:2}" >&2
    exit 1
}

# finish WHAT LOG: wait for the last of JOBS, which must end well, and before the others: an actor whose critic is gone
# goes on asking for it. A signal to this script is heard meanwhile.
finish() {
    local job=${JOBS[-1]} code=0
    wait -n "${JOBS[@]}" || code=$?
    ! kill -0 "$job" 2> /dev/null || failed "a server ended while $1 ran" "$RESULTS_DIR"/*.log
    unset 'JOBS[-1]'
    kill -KILL -- "-$job" 2> /dev/null || true # what it has left behind
    [[ $code -eq 0 ]] || failed "$1 ended with an error" "$2"
}

# wait_ready WHAT LOG URL...: until each answers, and the last of JOBS still runs: it may be another's answer.
wait_ready() {
    local what=$1 log=$2 url deadline=$((SECONDS + ${READY_SECONDS:-600}))
    shift 2
    for url in "$@"; do
        until curl --silent --fail --noproxy '*' --max-time 2 --output /dev/null "$url"; do
            kill -0 "${JOBS[-1]}" 2> /dev/null || failed "$what ended before it was ready" "$log"
            [[ $SECONDS -lt $deadline ]] || failed "$what was not ready in time" "$log"
            sleep 0.2
        done
    done
    kill -0 "${JOBS[-1]}" 2> /dev/null || failed "$what ended, and another's server answers in its place" "$log"
}

free_port() {
    "$PYTHON" -c 'from nemo_aligner_cai.training.launch import jobs; print(jobs.free_port())'
}

# start_stage STAGE SCRIPT CONFIG key=value...: cai's name of the stage, upstream's script, our config. Its files go to
# $RESULTS_DIR/STAGE, and its log beside that folder, because NeMo moves what it finds inside. DEVICES is for it what
# CUDA_VISIBLE_DEVICES is.
start_stage() {
    local stage=$1 script=$2 config=$3 command=()
    shift 3
    # TensorBoard, because it is what upstream's scripts and ours both write; at once, because a server that is stopped
    # may lose what it holds back.
    set -- "$@" exp_manager.explicit_log_dir="$RESULTS_DIR/$stage" exp_manager.create_tensorboard_logger=true \
        ++exp_manager.summary_writer_kwargs.flush_secs=1
    [[ -z ${DEVICES:-} ]] || command=(env CUDA_VISIBLE_DEVICES="$DEVICES")
    if [[ $CAI_DEVICE == gpu ]]; then
        # Standalone: two of them on one machine would otherwise meet at the same port. The folder of the configs: here
        # the package is not the installed one, which has them.
        command+=(torchrun --standalone --nproc-per-node="${NPROC:-1}" "$NEMO_ALIGNER_HOME/examples/nlp/gpt/$script"
            --config-dir="$ROOT/examples/nlp/gpt/conf" --config-name="$config" trainer.devices="${NPROC:-1}" "$@")
    else
        command+=("$PYTHON" -m nemo_aligner_cai.cli train "$stage" --config-name="$config" hardware=cpu "$@")
    fi
    start "$RESULTS_DIR/$stage.log" "${command[@]}"
}

# train STAGE SCRIPT CONFIG key=value...: a stage that ends by itself.
train() {
    start_stage "$@"
    finish "$1" "$RESULTS_DIR/$1.log"
}

# serve MODEL: NeMo's text-generation server at $PORT, ready.
serve() {
    local settings=(hardware=cpu)
    [[ $CAI_DEVICE == cpu ]] || settings=(trainer.devices="${NPROC:-1}" tensor_model_parallel_size="${NPROC:-1}")
    PORT=${SERVER_PORT:-$(free_port)}
    start "$RESULTS_DIR/server.log" "$PYTHON" -m nemo_aligner_cai.cli serve "$1" --port "$PORT" "${settings[@]}"
    wait_ready "the server" "$RESULTS_DIR/server.log" "http://127.0.0.1:$PORT/health"
}

# generate SCRIPT FLAG...: one of our scripts that make data, against the server.
generate() {
    start "$RESULTS_DIR/generate.log" "$PYTHON" "$ROOT/examples/nlp/cai/$1" --port "$PORT" "${@:2}"
    finish "$1" "$RESULTS_DIR/generate.log"
}

# check FOLDER FACT...: each as in check.py, of $RESULTS_DIR/FOLDER; the first that does not hold ends the script.
check() {
    local folder=$1
    shift
    "$PYTHON" "$ROOT/tests/functional/check.py" "$RESULTS_DIR/$folder" "$@"
}
