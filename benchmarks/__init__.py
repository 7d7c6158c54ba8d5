# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What the package promises about speed, faults and memory, measured: see README.md in this folder."""
