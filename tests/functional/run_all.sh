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
# Run each of test_cases/, or those named (run_all.sh sft-tiny), and say how each ended.
#
# Variables: see common.sh. The tiny cases take the model that the package holds and make their own data.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ALIGNER_CI_DIR=${ALIGNER_CI_DIR:-$(mktemp -d -t cai-functional-XXXXXX)}
export ALIGNER_CI_DIR
[[ $# -gt 0 ]] || set -- "$HERE"/test_cases/*

failed=0
for case in "$@"; do
    name=$(basename "$case")
    began=$SECONDS
    outcome=passed
    bash "$HERE/test_cases/$name" || { outcome=FAILED; failed=$((failed + 1)); }
    echo "$outcome $name in $((SECONDS - began)) s"
done
echo "$(($# - failed)) passed, $failed failed; results are in $ALIGNER_CI_DIR"
[[ $failed -eq 0 ]]
