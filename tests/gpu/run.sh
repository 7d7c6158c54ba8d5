#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
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
