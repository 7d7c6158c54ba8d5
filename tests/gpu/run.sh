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
# Measure every trainer and the server on this machine's GPU; nothing is fetched.
#
#   tests/gpu/run.sh results                  # in the NeMo container
#   tests/gpu/run.sh results wheels           # elsewhere, with what carry.sh has collected
#
# Further arguments are measure.py's: tests/gpu/run.sh results wheels --sizes tiny
# PYTHON   the interpreter that has torch (default: python3)
set -euo pipefail
OUT=${1:?a folder for figures, models and logs}
shift
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$ROOT:${PYTHONPATH:-}"
if [[ ${1:-} != "" && ${1:-} != --* ]]; then
    # Into an environment of their own, where they come before what is there, such as torch. No PYTHONPATH would do:
    # pytriton looks for its libraries in site-packages.
    ENVIRONMENT=$(mktemp -d -t cai-gpu-XXXXXX)
    trap 'rm -rf "$ENVIRONMENT"' EXIT
    "$PYTHON" -m venv --without-pip "$ENVIRONMENT"
    "$PYTHON" -m pip --python "$ENVIRONMENT/bin/python" install -q --no-index --no-deps "$1"/*.whl
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
        > "$(echo "$ENVIRONMENT"/lib/python3*/site-packages)/torch.pth"
    PYTHON=$ENVIRONMENT/bin/python
    shift
fi
"$PYTHON" -m tests.gpu.measure --out "$OUT" "$@"
