#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# Run the cases of test_cases/ that this machine has GPUs enough for, or those named (run_all.sh sft-tiny), and say how
# each ended.
#
# Variables: see common.sh. The tiny cases take the model that the package holds and make their own data, those of real
# size take $ALIGNER_CI_DIR/checkpoints/mistral-7b.nemo. A case says in a line of its own how many GPUs it needs.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/functional/device.sh
source "$HERE/device.sh"
ALIGNER_CI_DIR=${ALIGNER_CI_DIR:-$(mktemp -d -t cai-functional-XXXXXX)}
export ALIGNER_CI_DIR CAI_DEVICE

left_out=0
if [[ $# -eq 0 ]]; then
    # In the order of the steps: ppo takes the model that rm leaves.
    for case in "$HERE"/test_cases/{sft,rm,ppo,generate-sl,generate-rl}-*; do
        needed=$(sed -n 's/^# GPUs: //p' "$case")
        if [[ ${needed:-0} -le $GPUS ]]; then
            set -- "$@" "$case"
        else
            echo "left out $(basename "$case"): it needs $needed GPUs, and here are $GPUS"
            left_out=$((left_out + 1))
        fi
    done
fi

# A signal ends the case that runs, which ends what it has started.
running=""
end_case() {
    [[ -z $running ]] || { kill "$running" && wait "$running"; } 2> /dev/null || true
}
trap end_case EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=0
for case in "$@"; do
    name=$(basename "$case")
    began=$SECONDS
    outcome=passed
    bash "$HERE/test_cases/$name" &
    running=$!
    wait "$running" || { outcome=FAILED; failed=$((failed + 1)); }
    running=""
    echo "$outcome $name in $((SECONDS - began)) s"
done
echo "$(($# - failed)) passed, $failed failed, $left_out left out; results are in $ALIGNER_CI_DIR"
[[ $failed -eq 0 ]]
